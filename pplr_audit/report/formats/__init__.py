"""Formats of a report: HTML and Markdown out of the same blocks."""
