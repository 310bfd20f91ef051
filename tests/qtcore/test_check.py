"""Bars at the door of qtcore: a cell is a candle, or a hole in all five planes, whoever made it."""

import re
from dataclasses import replace

import numpy as np
import pytest

import research
from qtcore import Bars, Engine, InputError, Params
from qtcore.check import ROUNDING, as_bars
from tests.support import PUBLISHED

HOUR = 3_600_000_000_000
PLANES = ("open", "high", "low", "close", "volume")
PLAIN = "bars.open must be a float64 array of shape [3, 1] (bars, symbols), was "
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


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"funding": np.array([[0.0], [np.inf], [0.0]])},
            "bars.funding must be finite at every candle, was inf; put 0.0 where",
        ),
        ({"funding": np.array([[0.0], [np.nan], [0.0]])}, "bars.funding must be finite at every candle, was nan"),
        ({"close_time": HOUR * np.array([2, 4, 5])}, "bars.close_time must not lie after the next bar opens, was so in row 1"),
        ({"interval": 0}, "bars.interval must be a whole number of ns above 0, was 0"),
        ({"interval": None}, "bars.interval must be a whole number of ns above 0, was None"),
        ({"open": np.array([["100"]] * 3)}, PLAIN + "ndarray of <U3 [3, 1]"),
        ({"open": np.full((3, 1), 100.0, object)}, PLAIN + "ndarray of object [3, 1]"),
        ({"open": np.ma.masked_equal(np.full((3, 1), 100.0), 100.0)}, PLAIN + "MaskedArray of float64 [3, 1]"),
        ({"open": [[100.0]] * 3}, PLAIN + "list of no dtype [3, 1]"),
    ],
)
def test_what_bars_cannot_be_is_named(values, said):
    with pytest.raises(InputError, match=re.escape(said)):
        as_bars(replace(flat(3), **values))


def test_other_layouts_are_read_and_kept_as_the_kernels_want_them():
    bars = research.load_bars("simulated:random_walk?n_bars=300&n_symbols=2")
    turned = replace(bars, **{name: np.asfortranarray(getattr(bars, name)) for name in PLANES})
    runs = [research.backtest(each, research.Predictions.random(each, seed=1), PUBLISHED) for each in (bars, turned)]
    assert runs[0].summary == runs[1].summary
