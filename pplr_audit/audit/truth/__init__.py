"""One file a secret: guess and truth in, scores out."""
