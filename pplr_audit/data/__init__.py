"""From sources to clients' private histories and prompts."""
