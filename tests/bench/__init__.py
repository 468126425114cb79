"""Figures and counts: `python -m tests.bench` prints the table, `test_counts.py` is in the suite."""
