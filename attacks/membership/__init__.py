"""Attacks on membership: was this user trained on?"""
