"""Attacks on what crosses besides tensors: masks and lengths."""
