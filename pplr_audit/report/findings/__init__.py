"""Findings as a report needs them: grouped into series, looked up by cut, redacted."""
