"""Files of weights: limits, checks, and the smaller network of a training for use elsewhere."""
