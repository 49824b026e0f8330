"""What comes after training:
the study report, sync with MLflow, comparison with published figures.
"""
