"""Bundled sample data: real candles of S&P 500 and NASDAQ, daily, 1999-2018, from the data sets of the `arch` library."""

from importlib.util import find_spec
from pathlib import Path

from qtcore.types import Bars
from research.errors import DataError

FILES = {"NASDAQ": "nasdaq", "SP500": "sp500"}


def sample() -> Bars:
    """Return the embedded candles: symbols NASDAQ and SP500, daily sessions, index points, nothing adjusted. Raises UserError.

    The files are read where the library keeps them, without importing it: that takes seconds.

    >>> sample().symbols
    ('NASDAQ', 'SP500')
    """
    import pandas as pd

    from research.data.load import load

    spec = find_spec("arch")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("sample needs the candles of the arch library, was not installed; pip install arch")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    frames = [pd.read_csv(folder / name / f"{name}.csv.gz").assign(symbol=symbol) for symbol, name in FILES.items()]
    long = pd.concat(frames).rename(columns={"Date": "timestamp"}).drop(columns="Adj Close")
    long["timestamp"] = pd.to_datetime(long["timestamp"], format="%m/%d/%Y")
    return load(long, interval="1d").bars
