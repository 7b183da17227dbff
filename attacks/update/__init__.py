"""Attacks that read what crosses once a round, or once a step: updates of clients, sums of them, and new models."""
