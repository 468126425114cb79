"""The shell around the pure core: it reads, looks up, journals, writes and reports."""
