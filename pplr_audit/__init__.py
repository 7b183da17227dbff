"""Measure what leaks when a language model is fine-tuned as a federated recommender the PPLR way."""

__version__ = "0.1.0"
