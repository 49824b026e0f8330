"""Layers computed in faster ways: without autograd, by oneDNN, or with the kept weights alone."""
