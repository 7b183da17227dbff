"""The report room: documents in, text out. Pure functions; of the rest of the package only ``errors`` is known here."""
