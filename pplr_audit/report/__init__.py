"""The report room: the documents of a run in, text and pictures out."""
