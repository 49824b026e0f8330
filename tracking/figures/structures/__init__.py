"""Figures of structures: their cost, the cost of finding them, and how alike they are."""
