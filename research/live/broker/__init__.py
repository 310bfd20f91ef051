"""Orders and the paper account."""
