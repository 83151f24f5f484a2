"""The filtered dataset as a folder for others: data, dropped rows, manifest and dataset card."""
