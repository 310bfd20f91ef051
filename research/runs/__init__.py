"""Backtest runs: one pass of the chain, and its tables on disk."""
