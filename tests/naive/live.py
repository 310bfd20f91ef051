"""What candles are the trades of an exchange? As plain as it can be said."""

import math


def trade_bars(trades, length):
    """Bars (open, four prices, sum of sizes) of trades (id, time, price, size) in order; no bar where nobody traded."""
    out = []
    for start in sorted({ms - ms % length for _, ms, _, _ in trades}):
        inside = [(price, size) for _, ms, price, size in trades if start <= ms < start + length]
        prices = [price for price, _ in inside]
        out.append((start, prices[0], max(prices), min(prices), prices[-1], math.fsum(size for _, size in inside)))
    return out
