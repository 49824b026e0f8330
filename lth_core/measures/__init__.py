"""Numbers measured on trainings: weights, masks, stability, predictors."""
