"""The report of a study: HTML page, tables, terminal."""
