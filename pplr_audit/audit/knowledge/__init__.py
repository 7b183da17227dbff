"""Knowledge that an adversary of a run has: copies of models, texts, pairs."""
