"""Trading session: one process that trades, with its runner and controls."""
