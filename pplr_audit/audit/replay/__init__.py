"""A stored round run again with taps, and the records that it yields."""
