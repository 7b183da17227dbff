"""Names and numbers as a report writes them; text from data is escaped here."""
