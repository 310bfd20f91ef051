"""Is a frame read as what it holds, whatever its index and the types of its columns?"""

from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest

from research.data import load_bars
from tests.conftest import assert_same_bits
from tests.research.data.test_data import PLANES, assert_same_bars, frame

TWO = frame(40, ("AAA", "BBB"))
PARTS = {name: rows.drop(columns="symbol") for name, rows in TWO.groupby("symbol")}
BY_TIME = {name: rows.set_index("timestamp") for name, rows in PARTS.items()}
AS_TEXT = TWO.assign(timestamp=TWO["timestamp"].astype(str))


@pytest.mark.parametrize(
    "rows",
    [
        pd.concat(BY_TIME),
        pd.concat(BY_TIME, names=["ticker", "date"]),
        pd.concat({name: rows.rename_axis(None) for name, rows in BY_TIME.items()}),
        pd.concat(PARTS),
        pd.concat({name: rows.reset_index(drop=True) for name, rows in PARTS.items()}, names=["symbol"]),
        TWO.set_index(["symbol", "timestamp"], drop=False),
        TWO.set_index(["symbol", "timestamp"]).rename_axis([None, None]),
        TWO.set_index(["timestamp", "symbol"]).rename_axis([None, None]),
        AS_TEXT.set_index(["timestamp", "symbol"]).rename_axis([None, None]),
    ],
)
def test_an_index_of_two_levels_holds_times_and_symbols_in_any_order(rows):
    assert_same_bars(load_bars(rows), load_bars(TWO))


def test_decimals_are_the_floats_of_their_texts():
    """A cast from Decimal by the library is off in the last bit."""
    rng = np.random.default_rng(1)
    rows = frame(500, ("AAA",))
    texts = {name: [f"{v:.4f}" for v in rng.uniform(99.0, 101.0, 500)] for name in PLANES if name != "volume"}
    texts["high"], texts["low"] = ["102.0001"] * 500, ["98.0003"] * 500
    plain = rows.assign(**{name: [float(text) for text in column] for name, column in texts.items()})
    exact = rows.assign(**{name: [Decimal(text) for text in column] for name, column in texts.items()})
    for source in (exact, pl.from_pandas(plain).with_columns(pl.col("open", "close").cast(pl.String).cast(pl.Decimal(18, 4)))):
        assert_same_bits(load_bars(source).close, load_bars(plain).close)
        assert_same_bits(load_bars(source).open, load_bars(plain).open)
