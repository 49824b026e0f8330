"""Numbers taken of trainings: weights, masks, stability, predictors."""
