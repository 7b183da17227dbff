"""Costs of a cut to a client: one set of formulas for memory, arithmetic and traffic, and what a run measured."""
