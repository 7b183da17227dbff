"""Backbones: loaded from folders, installed packages or trained on the spot; checked before they are built."""
