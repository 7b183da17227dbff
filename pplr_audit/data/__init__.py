"""Data: sources become clients' private histories and prompts."""
