"""The method of Influcoder in plain Python: it knows nothing of Dagster or MLflow."""
