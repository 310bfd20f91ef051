"""Market data feeds: candles as they close, from replays, exchanges and streams of trades."""
