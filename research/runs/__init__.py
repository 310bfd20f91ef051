"""One pass of the chain, and its tables on disk."""
