"""The pipeline: Dagster definitions over influcoder_lib. No numerics live here."""
