"""Statistics of predictions that need no run: bootstrap, intervals, losses."""
