"""Baselines of training: a textbook loop on the same images, and the floor."""
