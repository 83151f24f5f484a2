"""The method of Influcoder in plain Python: it knows nothing of Dagster or MLflow.

The packages in which models run load the modules of their `__init__.pyi` on first use: torch and
what builds on it take seconds to import, and most commands compute nothing.
"""
