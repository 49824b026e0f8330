"""Projection of finished records into MLflow runs, figures and reports."""
