"""From records to answers:
verdicts, overlaps, families of methods, rewind points. Nothing is drawn.
"""
