"""The journal: every bar that live trading decided, sealed."""
