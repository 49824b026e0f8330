"""Recipes of trainings: jobs with their starts and masks, branches, controls, methods."""
