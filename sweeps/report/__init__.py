"""Reports of studies, which train nothing: the study report, sync with MLflow, comparison with
published figures.
"""
