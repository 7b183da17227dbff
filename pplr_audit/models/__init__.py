"""Models: a backbone with its adapter, cut into front, trunk and back."""
