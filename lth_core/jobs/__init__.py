"""Recipes: what is trained, from which start, under which mask."""
