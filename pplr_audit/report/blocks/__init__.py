"""Blocks of a report before it has a format: text, tables, charts."""
