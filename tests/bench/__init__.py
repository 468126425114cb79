"""Figures and counts of issue 8: `python -m tests.bench` prints the table, `test_counts.py` is in the suite."""
