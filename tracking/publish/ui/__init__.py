"""MLflow's UI on a database: a server of its own process, and the page that is opened."""
