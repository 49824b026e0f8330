"""Packs: runs that are trained together, as one program with a leading dimension P."""
