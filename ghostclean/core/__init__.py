"""The pure core: what is true about every trade, and what to write. No clock, no I/O."""
