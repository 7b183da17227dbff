"""Forms of files: bounded streams of whole records, columns, points in time."""
