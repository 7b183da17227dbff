"""Search for the tokens or titles that explain what crossed."""
