"""The shell: reads a study, plans it, launches it on Ray Tune, searches with Optuna."""
