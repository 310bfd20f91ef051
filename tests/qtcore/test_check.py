"""Bars at the door of qtcore: a cell is a candle, or a hole in all five planes, whoever made it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from qtcore import Bars, Engine, InputError, Params
from qtcore.check import ROUNDING, as_bars

HOUR = 3_600_000_000_000
PLANES = ("open", "high", "low", "close", "volume")
N = 40_000  # more cells than are checked together


def flat(n: int = N) -> Bars:
    """Candles that move by one around 100."""
    time, close = HOUR * np.arange(1, n + 1), np.full((n, 1), 100.0)
    return Bars(time, time + HOUR, close.copy(), close + 1.0, close - 1.0, close, np.ones_like(close), ("A",), HOUR)


@pytest.mark.parametrize("name", PLANES)
@pytest.mark.parametrize("at", [0, N - 1])
def test_a_hole_is_one_in_all_five(name, at):
    bars = flat()
    plane = getattr(bars, name).copy()
    plane[at] = np.nan
    with pytest.raises(InputError, match=r"NaN in all five planes where there is no candle.* was .*nan.*make such a candle a hole"):
        as_bars(replace(bars, **{name: plane}))
    holes = {each: np.where(np.arange(N)[:, None] == at, np.nan, getattr(bars, each)) for each in PLANES}
    assert np.isnan(as_bars(replace(bars, **holes)).close[at])


@pytest.mark.parametrize(("name", "price"), [("open", 102), ("open", 98), ("close", 102), ("close", 98), ("high", 98.5), ("low", 101.5)])
def test_a_candle_keeps_its_order(name, price):
    bars = flat(3)
    plane = getattr(bars, name).copy()
    plane[1] = price
    shown = {"open": 100, "high": 101, "low": 99, "close": 100} | {name: price}
    was = ", ".join(f"{value:g}" for value in shown.values())
    with pytest.raises(InputError, match=re.escape(f"was {was}, 1 (open, high, low, close, volume)")):
        Engine(Params.profile("published").with_values({"broker.max_holding_bars": 5})).run(replace(bars, **{name: plane}))


def test_float_rounding_is_no_broken_candle():
    bars = flat(3)
    as_bars(replace(bars, open=bars.high * (1.0 + ROUNDING / 2)))
    with pytest.raises(InputError, match="low <= open, close <= high"):
        as_bars(replace(bars, open=bars.high * (1.0 + 3 * ROUNDING)))
