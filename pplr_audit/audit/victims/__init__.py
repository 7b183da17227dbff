"""The attacked users under row numbers without meaning, and what is asked about them."""
