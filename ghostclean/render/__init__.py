"""How results are shown: text for pipes and cron, screens for terminals, JSON, Markdown."""
