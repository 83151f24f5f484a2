"""Measurements that print a table; no part of the test run. `python -m bench.NAME --help`."""
