"""One process that trades: start, runner, controls."""
