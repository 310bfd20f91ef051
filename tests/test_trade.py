"""Does the trade loop do what the specification says, whatever the options, the cuts and the future?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore.chain.trade import TradeState, finish, run_trade
from qtcore.params import Params
from qtcore.types import FILL, NEVER, NS_PER_HOUR, Bars
from tests.conftest import START, assert_same_bits, awkward_bars
from tests.naive import trade as naive

OUTPUTS = ("final_action", "governor_reason", "size", "pnl", "equity", "balance", "exposure")
OPTIONS = {
    "default": {},
    "horizon": {"broker.max_holding_bars": 5},
    "one_bar": {"broker.max_holding_bars": 1, "governor.stop_loss": 0.005},
    "tight_stop": {"governor.stop_loss": 0.004, "governor.cooldown_minutes": 180},
    "many_trades": {"governor.max_daily_trades": 10_000, "governor.max_position": 0.03, "governor.max_exposure": 3.0},
    "breaker": {"governor.max_drawdown": 0.01},
    "breaker_daily": {"governor.max_drawdown": 0.003, "governor.drawdown_reset": "daily"},
    "balance": {"governor.drawdown_basis": "balance", "governor.max_drawdown": 0.02, "broker.max_holding_bars": 3},
    "existing": {"governor.exposure_mode": "existing", "governor.max_exposure": 0.2},
    "last_50": {"governor.cooldown_scope": "last_50", "governor.cooldown_minutes": 600, "broker.max_holding_bars": 2},
    "kelly_confidence": {"governor.sizing_mode": "kelly_confidence", "governor.kelly_fraction": 0.05},
    "kelly_empirical": {"governor.sizing_mode": "kelly_empirical", "broker.slippage_rate": 0.0, "broker.fee_rate": 0.0},
    "by_confidence": {"governor.order": "by_confidence", "governor.max_daily_trades": 6},
    "close": {"broker.fill": "close", "broker.max_holding_bars": 4},
    "close_balance": {"broker.fill": "close", "governor.drawdown_basis": "balance", "governor.max_drawdown": 0.01},
    "no_shorts": {"broker.allow_short": False},
    "kill": {"governor.emergency_stop": True},
    "delist": {"broker.delist_after": 2, "broker.max_holding_bars": 48, "governor.stop_loss": 0.5},
    "costly": {"broker.fee_rate": 0.01, "broker.slippage_rate": 0.05, "governor.stop_loss": 0.02, "broker.max_holding_bars": 3},
}


def votes_for(bars: Bars, seed: int, hold: float = 0.4, at_holes: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Random opinions; a few confidences sit exactly on the limit, a few are NaN, some speak of bars that are missing."""
    rng = np.random.default_rng(seed)
    shape = bars.close.shape
    action = rng.choice(np.array([0, 1, 2], np.int8), shape, p=[(1 - hold) / 2, hold, (1 - hold) / 2])
    confidence = rng.choice([0.65, 0.7, np.nan], shape, p=[0.1, 0.88, 0.02])
    spread = rng.random(shape) < 0.8
    confidence[spread] = rng.uniform(0.5, 1.0, spread.sum())
    if not at_holes:
        action[np.isnan(bars.close)] = 1
    return action, confidence


def funding_for(bars: Bars, seed: int) -> np.ndarray:
    rates = np.where(np.arange(bars.n)[:, None] % 8 == 7, np.random.default_rng(seed).normal(0.0, 0.001, bars.close.shape), 0.0)
    rates[np.random.default_rng(seed + 1).random(rates.shape) < 0.02] = np.nan
    return rates


def with_funding(bars: Bars, rates: np.ndarray) -> Bars:
    return Bars(
        bars.open_time, bars.close_time, bars.open, bars.high, bars.low, bars.close, bars.volume, bars.symbols, bars.interval, rates
    )


def run_naive(bars, action, confidence, params, book=None):
    columns = {name: getattr(bars, name).tolist() for name in ("open_time", "close_time", "open", "high", "low", "close")}
    funding = None if bars.funding is None else bars.funding.tolist()
    return naive.trade(columns, action.tolist(), confidence.tolist(), params.flat(), book, funding)


def assert_same_as_naive(result, state, book, out):
    for name in OUTPUTS:
        got = getattr(result, name)
        assert_same_bits(got, np.array(out[name], got.dtype), name)
    assert_same_ledger(result.fills, book.ledger)
    assert_same_account(state, book)


def assert_same_ledger(fills, ledger):
    assert len(fills) == len(ledger)
    for name in FILL.names:
        assert_same_bits(fills[name], np.array([row[name] for row in ledger], FILL[name]), name)


def assert_same_account(state, book):
    a = state.account[0]
    for name in (
        "balance",
        "equity",
        "peak",
        "exposure",
        "fees",
        "slippage",
        "funding",
        "trades_today",
        "n_trades",
        "n_cancelled",
        "n_halted",
    ):
        assert a[name] == getattr(book, name), name
    assert (a["day"], a["is_halted"], a["n_bars"]) == (book.day, book.halted, book.t + 1)
    assert a["halt_time"] == (NEVER if book.halt_time is None else book.halt_time)
    assert (a["n_closed"], a["n_fills"]) == (len(book.history), len(book.ledger))
    for position, sym in zip(state.positions, book.symbols):
        pos = sym["pos"] or {"qty": 0.0, "entry": np.nan, "stop": np.nan, "notional": 0.0, "fee": 0.0, "funding": 0.0, "unrealised": 0.0}
        names = ("qty", "entry_price", "stop_price", "entry_notional", "entry_fee", "funding", "unrealised")
        np.testing.assert_array_equal(
            [position[name] for name in names],
            list(pos.values())[:1] + [pos[k] for k in ("entry", "stop", "notional", "fee", "funding", "unrealised")],
        )
        np.testing.assert_array_equal(position["last_close"], sym["last_close"])
        assert (position["last_bar"], position["pending_exit"]) == (sym["last_bar"], sym["exit"] or 0)
        assert position["pending_notional"] == (sym["pending"] or 0.0)
        assert position["last_loss_time"] == (NEVER if sym["last_loss"] is None else sym["last_loss"])


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_the_naive_chain(name, seed):
    bars = awkward_bars(420, seed, 6 if seed else 8)
    if seed:
        bars = with_funding(bars, funding_for(bars, seed))
    action, confidence = votes_for(bars, seed)
    params = Params().with_values(OPTIONS[name])
    state = TradeState.fresh(params, len(bars.symbols))
    result = run_trade(bars, action, confidence, params, state)
    book, out = run_naive(bars, action, confidence, params)
    assert_same_as_naive(result, state, book, out)
    end, fills = finish(state, int(bars.close_time[-1]), params)
    n_before = len(book.ledger)
    naive.close_all(book, int(bars.close_time[-1]))
    assert_same_ledger(fills, book.ledger[n_before:])
    assert_same_account(end, book)
    assert np.all(end.positions["qty"] == 0.0)
