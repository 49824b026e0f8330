"""The plan of a study: trials, unique trainings, estimated time, stop rules."""
