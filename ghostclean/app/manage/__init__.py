"""Managing open trades: their stops, cutting losses, flattening at the end of the day."""
