"""Tickets in MLflow: the files beside each, and versions of registered models."""
