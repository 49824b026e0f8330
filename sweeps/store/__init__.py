"""The store as a study sees it: records, references, garbage, integrity, usage."""
