"""Reporting, which runs nothing: the study report, sync with MLflow, comparison with published
figures.
"""
