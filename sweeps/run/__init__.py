"""Runs of a study: the work queue, Ray Tune, workers, trials, progress."""
