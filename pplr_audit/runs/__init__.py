"""The run directory as storage: files whole or absent, checked whenever they are read."""
