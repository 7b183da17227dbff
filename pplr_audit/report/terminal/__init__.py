"""Tables for the terminal: the answer in one screen."""
