"""Is the outcome of a cell what the trade loop earns when it trades that cell alone?"""

import numpy as np
import pytest

from qtcore.chain.outcome import outcomes
from qtcore.chain.trade import TradeState, run_trade
from qtcore.params import Params
from qtcore.types import Bars, InputError
from tests.conftest import assert_same_bits, awkward_bars
from tests.support import PUBLISHED

FREE = {
    "governor.min_confidence": 0.0,
    "governor.max_drawdown": 1.0,
    "governor.max_exposure": 10.0,
    "governor.kelly_fraction": 1.0,
    "governor.win_rate": 0.9,
    "broker.fee_rate": 0.0,
}
SETTINGS = {
    "usual": {"broker.max_holding_bars": 5},
    "one bar": {"broker.max_holding_bars": 1},
    "tight stop": {"broker.max_holding_bars": 12, "governor.stop_loss": 0.004},
    "slippage": {"broker.max_holding_bars": 8, "broker.slippage_rate": 0.01, "governor.stop_loss": 0.011},
    "gone soon": {"broker.max_holding_bars": 30, "broker.delist_after": 2, "governor.stop_loss": 0.9},
}


def one_trade(bars: Bars, params: Params, side: int, t: int, s: int) -> tuple[float, int]:
    """Trade one cell alone; its result before costs and the bar in which it ends, NaN and -1 without an end."""
    action, confidence = np.ones(bars.close.shape, np.int8), np.ones(bars.close.shape)
    action[t, s] = 1 + side
    fills = run_trade(bars, action, confidence, params, TradeState.fresh(params, len(bars.symbols))).fills
    if len(fills) < 2:
        return np.nan, -1
    entry, exit_ = fills
    return side * (exit_["reference_price"] / entry["reference_price"] - 1.0), int(exit_["bar"])


@pytest.mark.parametrize("name", SETTINGS)
def test_outcomes_are_what_the_trade_loop_earns_with_one_cell(name):
    bars, params = awkward_bars(240, seed=len(name)), PUBLISHED.with_values(FREE | SETTINGS[name])
    results, ends = outcomes(bars, params)
    rng = np.random.default_rng(3)
    told = {True: 0, False: 0}
    traded = ~np.isnan(bars.close)
    for _ in range(300):
        t, s, side = int(rng.integers(0, bars.n)), int(rng.integers(0, len(bars.symbols))), int(rng.choice([-1, 1]))
        if not traded[t, s]:
            continue  # nothing is decided in a hole
        k = (side + 1) // 2
        expected = one_trade(bars, params, side, t, s)
        assert_same_bits(results[k, t, s], expected[0], f"{name}: {side} at {t}, {s}")
        assert ends[k, t, s] == expected[1]
        told[expected[1] >= 0] += 1
    assert min(told.values()) > 0


@pytest.mark.parametrize("cut", [1, 100, 239])
def test_outcomes_that_ended_are_the_same_whatever_comes_later(cut):
    bars, params = awkward_bars(240, seed=2), PUBLISHED.with_values(SETTINGS["usual"])
    (whole, ends), (part, _) = outcomes(bars, params), outcomes(bars[:cut], params)
    assert_same_bits(part, np.where(ends[:, :cut] < cut, whole[:, :cut], np.nan))


@pytest.mark.parametrize(
    ("values", "message"),
    [({}, "max_holding_bars must be 1 or more"), ({"broker.max_holding_bars": 5, "broker.fill": "close"}, "next_open")],
)
def test_outcomes_need_a_horizon_and_the_next_open(values, message):
    with pytest.raises(InputError, match=message):
        outcomes(awkward_bars(50), PUBLISHED.with_values(values))
