"""Layers computed in faster ways: by oneDNN, or with the kept weights alone."""
