"""The linked folders are collected once, as part of the package."""

collect_ignore = ["attacks", "defenses", "scenarios"]
