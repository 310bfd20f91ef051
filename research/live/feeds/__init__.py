"""Candles as they close: replays, exchanges, streams of trades."""
