"""Analysis of records: verdicts, overlaps, families of methods, rewind points. Draws no figures."""
