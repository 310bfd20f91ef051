"""Which real candles come with the product? S&P 500 and NASDAQ, daily, 1999-2018, from the `arch` library's data sets."""

from qtcore.types import Bars


def sample() -> Bars:
    """Return the embedded candles: symbols NASDAQ and SP500, daily sessions in UTC, prices not adjusted (indices pay nothing).

    >>> sample().symbols
    ('NASDAQ', 'SP500')
    """
    import pandas as pd
    from arch.data import nasdaq, sp500

    from research.data.load import load

    frames = {"NASDAQ": nasdaq.load(), "SP500": sp500.load()}
    long = pd.concat([frame.drop(columns="Adj Close").assign(symbol=name) for name, frame in frames.items()])
    return load(long.reset_index(names="timestamp"), interval="1d").bars
