"""MLflow: runs, metrics, tickets and artifacts of a study. The only folder that imports MLflow."""
