"""``Run``: an MLflow run with its job."""
