"""Journal: every bar that live trading decided, sealed."""
