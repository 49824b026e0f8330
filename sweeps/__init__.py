"""Sweeps of studies: command line, study files, plans, runs on Ray Tune, reports."""
