"""Does the trade loop do what the specification says, whatever the options, the cuts and the future?"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qtcore.chain.trade import TradeState, cell_pnl, finish, run_trade
from qtcore.params import PARAMS
from qtcore.portfolio import apply_fill, init_account
from qtcore.rules import RULES, Reason
from qtcore.types import FILL, N_CLOSED, NEVER, NS_PER_HOUR, WAITS, Bars
from tests.conftest import START, assert_same_bits, awkward_bars
from tests.naive import trade as naive
from tests.support import PUBLISHED
from tests.support.books import KINDS, book_params, book_world, run_book

OUTPUTS = ("final_action", "governor_reason", "size", "pnl", "equity", "balance", "exposure", "worth")
RUINED = {
    "governor.max_position": 1.0,
    "governor.max_exposure": 10.0,
    "governor.kelly_fraction": 1.0,
    "governor.win_rate": 0.95,
    "governor.max_daily_trades": 1_000,
    "governor.max_drawdown": 1.0,
    "governor.cooldown_minutes": 0,
    "governor.stop_loss": 1.0,
    "broker.slippage_rate": 0.09,
}
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
    "odds": {"governor.sizing_mode": "kelly_empirical", "governor.kelly_trades": 40, "governor.payoff": 3.0, "broker.initial_cash": 500.0},
    "scaled": {"governor.reference_confidence": 0.95, "governor.min_confidence": 0.9},
    "by_confidence": {"governor.order": "by_confidence", "governor.max_daily_trades": 6},
    "close": {"broker.fill": "close", "broker.max_holding_bars": 4},
    "close_balance": {"broker.fill": "close", "governor.drawdown_basis": "balance", "governor.max_drawdown": 0.01},
    "no_shorts": {"broker.allow_short": False},
    "kill": {"governor.emergency_stop": True},
    "delist": {"broker.delist_after": 2, "broker.max_holding_bars": 48, "governor.stop_loss": 0.5},
    "ruined": RUINED,
    "ruined_close": {**RUINED, "broker.fill": "close", "governor.drawdown_basis": "balance", "governor.drawdown_reset": "daily"},
    "next_close": {"broker.fill": "next_close", "broker.max_holding_bars": 4, "governor.stop_loss": 0.01},
    "next_close_once": {"broker.fill": "next_close", "broker.max_holding_bars": 1, "governor.drawdown_basis": "balance"},
    "one_bar_later": {"broker.fill": "one_bar_later", "broker.max_holding_bars": 3, "governor.max_exposure": 0.2},
    "one_bar_later_once": {"broker.fill": "one_bar_later", "broker.max_holding_bars": 1, "governor.stop_loss": 0.004},
    "worst": {"broker.fill": "worst", "broker.max_holding_bars": 4, "governor.stop_loss": 0.01},
    "impact": {"broker.impact": 0.3, "broker.max_holding_bars": 4},
    "impact_close": {"broker.impact": 0.9, "broker.max_holding_bars": 4, "broker.fill": "next_close", "governor.max_drawdown": 0.9},
    "ruined_next_close": {**RUINED, "broker.fill": "next_close"},
    "ruined_later": {**RUINED, "broker.fill": "one_bar_later", "broker.max_holding_bars": 3},
    "ruined_worst": {**RUINED, "broker.fill": "worst"},
    "costly": {"broker.fee_rate": 0.01, "broker.slippage_rate": 0.05, "governor.stop_loss": 0.02, "broker.max_holding_bars": 3},
}

FILLS = ("close", "next_close", "one_bar_later", "worst", "impact", "impact_close")
POSITION_KEYS = {
    "qty": "qty",
    "entry_price": "entry",
    "stop_price": "stop",
    "entry_notional": "notional",
    "entry_fee": "fee",
    "funding": "funding",
    "unrealised": "unrealised",
    "entry_time": "time",
    "entry_bar": "bar",
    "trade_id": "id",
}
FLAT_POSITION = {
    **dict.fromkeys(("qty", "notional", "fee", "funding", "unrealised"), 0.0),
    "entry": np.nan,
    "stop": np.nan,
    "time": NEVER,
    "bar": -1,
    "id": -1,
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
    columns = {name: getattr(bars, name).tolist() for name in ("open_time", "close_time", "open", "high", "low", "close", "volume")}
    funding = None if bars.funding is None else bars.funding.tolist()
    return naive.trade(columns, action.tolist(), confidence.tolist(), params.flat(), book, funding)


def assert_same_as_naive(result, state, book, out):
    for name in OUTPUTS:
        got = getattr(result, name)
        assert_same_bits(got, np.array(out[name], got.dtype), name)
    assert_same_ledger(result.fills, book.ledger)
    assert_same_account(state, book)


def assert_ledger_replays(fills, state, params):
    """Book every fill again on a fresh account: each row and the final state come out to the bit."""
    account, positions, closed = init_account(params, len(state.positions))
    for fill in fills:
        again = np.zeros(1, fills.dtype)
        for column in ("time", "bar", "symbol", "is_entry", "reason", "qty", "price", "reference_price", "notional", "stop_price", "fee"):
            again[column] = fill[column]
        apply_fill(account[0], positions[int(fill["symbol"])], closed[int(account["n_closed"][0]) % N_CLOSED], again[0])
        assert_same_bits(again[0], fill)
    for column in ("balance", "fees", "slippage", "funding", "n_fills", "n_trades", "n_closed"):
        assert_same_bits(account[column], state.account[column], column)
    kept = ("qty", "entry_price", "entry_notional", "entry_fee", "stop_price", "entry_time", "entry_bar", "last_loss_time", "trade_id")
    for column in kept:
        assert_same_bits(positions[column], state.positions[column], column)
    assert_same_bits(closed, state.closed)


def assert_same_ledger(fills, ledger):
    assert len(fills) == len(ledger), "number of fills"
    for name in FILL.names:
        assert_same_bits(fills[name], np.array([row[name] for row in ledger], FILL[name]), name)


def assert_same_account(state, book):
    a = state.account[0]
    for name in ("balance", "equity", "peak", "exposure", "fees", "slippage", "funding", "trades_today", "n_trades", "n_cancelled"):
        assert a[name] == getattr(book, name), name
    same = (a["day"], a["is_halted"], a["n_halted"], a["n_bars"]) == (book.day, book.halted, book.n_halted, book.t + 1)
    assert same, "day, halts or bars"
    assert a["halt_time"] == (NEVER if book.halt_time is None else book.halt_time), "halt_time"
    assert (a["n_closed"], a["n_fills"]) == (len(book.history), len(book.ledger)), "n_closed, n_fills"
    for position, sym in zip(state.positions, book.symbols):
        pos = sym["pos"] or FLAT_POSITION
        for name, key in POSITION_KEYS.items():
            np.testing.assert_array_equal(position[name], pos[key], name)
        np.testing.assert_array_equal(position["last_close"], sym["last_close"])
        due = max(sym["due"] if sym["pending"] else -1, sym["exit_due"] if sym["exit"] else -1)
        waits = WAITS if due > book.t + 1 else 0
        assert (position["last_bar"], position["pending_exit"]) == (sym["last_bar"], (sym["exit"] or 0) + waits), "last_bar, pending_exit"
        assert position["pending_notional"] == (sym["pending"] or 0.0), "pending_notional"
        assert position["last_loss_time"] == (NEVER if sym["last_loss"] is None else sym["last_loss"]), "last_loss_time"


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_the_naive_chain(name, seed):
    bars = awkward_bars(420, seed, 6 if seed else 8)
    if seed:
        bars = with_funding(bars, funding_for(bars, seed))
    action, confidence = votes_for(bars, seed)
    params = PUBLISHED.with_values(OPTIONS[name])
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


def outcome(values: dict[str, object]) -> tuple[set[Reason], bytes]:
    """Reasons that the account gives under `values`, and what became of it, on awkward bars."""
    bars = awkward_bars(420, 0, 8)
    action, confidence = votes_for(bars, 0)
    params = PUBLISHED.with_values(values)
    state = TradeState.fresh(params, len(bars.symbols))
    result = run_trade(bars, action, confidence, params, state)
    fills = np.concatenate([result.fills, finish(state, int(bars.close_time[-1]), params)[1]])
    reasons = {*result.governor_reason.ravel().tolist(), *fills["reason"].tolist()}
    return {Reason(code) for code in reasons}, result.governor_reason.tobytes() + fills.tobytes()


def outcome_of_a_book(values: dict[str, object]) -> tuple[set[Reason], bytes]:
    """The same of a cross-sectional book."""
    got, _ = run_book(book_world(300, 6, seed=1), book_params(**values))
    reasons = {*got["governor_reason"].ravel().tolist(), *got["fills"]["reason"].tolist()}
    return {Reason(code) for code in reasons}, got["governor_reason"].tobytes() + got["fills"].tobytes()


def test_the_cases_reach_every_rule_of_the_account_and_move_something_by_every_parameter():
    cases = {name: (outcome, values) for name, values in OPTIONS.items()}
    cases |= {f"book: {name}": (outcome_of_a_book, values) for name, values in KINDS.items()}
    found = {name: run(values) for name, (run, values) in cases.items()}
    reached = set().union(*(reasons for reasons, _ in found.values()))
    asked = [rule for rule in RULES if rule.layer in ("governor", "exit") and not rule.fails]
    assert [f"no case of OPTIONS reaches {rule.reason.name}" for rule in asked if rule.reason not in reached] == []
    idle = {f"{layer}.{name}" for layer in ("governor", "broker") for name in PARAMS[layer].names}
    idle -= {"governor.flatten_on_kill"}  # a kill switch that is on from the first bar finds nothing open
    idle -= {"governor.cooldown_scope"}  # few losses are older than 50 trades and younger than a cooldown
    idle -= {"governor.book"}  # it goes with opinions that have a price alone
    for name, (run, values) in cases.items():
        without = {key: {k: v for k, v in values.items() if k != key} for key in idle & set(values)}
        idle -= {key for key, rest in without.items() if run(rest)[1] != found[name][1]}
    assert [f"no case of OPTIONS moves anything by {key}" for key in sorted(idle)] == []


MIXED = st.fixed_dictionaries(
    {
        "broker.max_holding_bars": st.sampled_from([0, 1, 2, 7]),
        "broker.fill": st.sampled_from(["next_open", "close", "next_close", "one_bar_later", "worst"]),
        "broker.impact": st.sampled_from([0.0, 0.0, 0.2]),
        "broker.allow_short": st.booleans(),
        "broker.delist_after": st.sampled_from([1, 3, 24]),
        "broker.fee_rate": st.sampled_from([0.0, 0.0004]),
        "governor.stop_loss": st.sampled_from([0.001, 0.01, 0.2]),
        "governor.order": st.sampled_from(["symbols", "by_confidence"]),
        "governor.exposure_mode": st.sampled_from(["projected", "existing"]),
        "governor.sizing_mode": st.sampled_from(["kelly_win_rate", "kelly_confidence", "kelly_empirical"]),
        "governor.cooldown_scope": st.sampled_from(["symbol_last_loss", "last_50"]),
        "governor.cooldown_minutes": st.sampled_from([0, 60, 300]),
        "governor.max_daily_trades": st.sampled_from([0, 3, 50]),
        "governor.max_drawdown": st.sampled_from([0.002, 0.02, 1.0]),
        "governor.drawdown_basis": st.sampled_from(["equity", "balance"]),
        "governor.drawdown_reset": st.sampled_from(["none", "daily"]),
        "governor.max_exposure": st.sampled_from([0.15, 0.5, 5.0]),
        "governor.min_confidence": st.sampled_from([0.0, 0.65]),
    }
)


DELISTED_UNDER_A_PENDING_ENTRY = {
    "broker.max_holding_bars": 1,
    "broker.allow_short": False,
    "broker.delist_after": 1,
    "governor.stop_loss": 0.01,
    "governor.max_drawdown": 0.02,
    "governor.max_daily_trades": 50,
    "governor.min_confidence": 0.0,
}


@example(values=DELISTED_UNDER_A_PENDING_ENTRY, seed=0, has_funding=False)
@settings(max_examples=40, deadline=None)
@given(values=MIXED, seed=st.integers(0, 5), has_funding=st.booleans())
def test_equal_to_the_naive_chain_under_any_mix_of_options(values, seed, has_funding):
    bars = awkward_bars(110, seed, 5)
    bars = with_funding(bars, funding_for(bars, seed)) if has_funding else bars
    action, confidence = votes_for(bars, seed, hold=0.3)
    params = PUBLISHED.with_values(values)
    state = TradeState.fresh(params, len(bars.symbols))
    result = run_trade(bars, action, confidence, params, state)
    assert_same_as_naive(result, state, *run_naive(bars, action, confidence, params))


# ---------------------------------------------------------------- cuts, future, interpreter


def run_in_blocks(bars, action, confidence, params, cuts):
    """Run in blocks that end at `cuts`; returns the joined outputs and the state."""
    state, parts = TradeState.fresh(params, len(bars.symbols)), []
    for a, b in zip([0, *cuts], [*cuts, bars.n]):
        rows = slice(a, b)
        parts.append(run_trade(bars[rows], action[rows], confidence[rows], params, state))
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in (*OUTPUTS, "fills")}, state


def assert_same_run(a, b):
    for name, column in a[0].items():
        assert_same_bits(column, b[0][name], name)
    for name in ("account", "positions", "closed"):
        assert_same_bits(getattr(a[1], name), getattr(b[1], name), name)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(sorted(OPTIONS)),
    cuts=st.lists(st.integers(0, 160), max_size=8).map(sorted),
    seed=st.integers(0, 3),
    has_funding=st.booleans(),
)
def test_cutting_the_input_changes_nothing(name, cuts, seed, has_funding):
    bars = awkward_bars(160, seed, 5)
    bars = with_funding(bars, funding_for(bars, seed)) if has_funding else bars
    action, confidence = votes_for(bars, seed)
    params = PUBLISHED.with_values({"broker.max_holding_bars": 6, **OPTIONS[name]})
    whole = run_in_blocks(bars, action, confidence, params, [])
    assert_same_run(whole, run_in_blocks(bars, action, confidence, params, cuts))


@pytest.mark.parametrize("name", ["horizon", "by_confidence", "last_50", *FILLS])
def test_bar_by_bar_is_the_same_run(name):
    bars = awkward_bars(120, 5)
    action, confidence = votes_for(bars, 5)
    params = PUBLISHED.with_values(OPTIONS[name])
    whole = run_in_blocks(bars, action, confidence, params, [])
    assert_same_run(whole, run_in_blocks(bars, action, confidence, params, list(range(1, bars.n))))


@pytest.mark.parametrize("name", ["horizon", *FILLS])
@pytest.mark.parametrize("t", [1, 80, 159])
def test_the_past_ignores_the_future(t, name):
    bars, other = awkward_bars(160, 1), awkward_bars(160, 2)
    planes = {name: np.vstack([getattr(bars, name)[:t], getattr(other, name)[t:]]) for name in ("open", "high", "low", "close", "volume")}
    changed = Bars(bars.open_time, bars.close_time, **planes, symbols=bars.symbols, interval=bars.interval)
    action, confidence = votes_for(bars, 1)
    params = PUBLISHED.with_values(OPTIONS[name])
    a = run_in_blocks(bars, action, confidence, params, [])[0]
    action[t:], confidence[t:] = votes_for(bars, 9)[0][t:], 0.99
    b = run_in_blocks(changed, action, confidence, params, [])[0]
    for name in OUTPUTS:
        assert_same_bits(a[name][:t], b[name][:t], name)
    past = [run["fills"][run["fills"]["bar"] < t] for run in (a, b)]
    assert_same_bits(past[0], past[1], "fills")


def digest(name="horizon"):
    """Hash every array of a small run."""
    bars = awkward_bars(200, 4)
    action, confidence = votes_for(bars, 4)
    outputs, state = run_in_blocks(bars, action, confidence, PUBLISHED.with_values(OPTIONS[name]), [70])
    arrays = [*outputs.values(), *vars(state).values()]
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def test_the_interpreter_gives_the_same_bits():
    names = ["horizon", "one_bar_later", "impact_close", "worst"]
    code = f"from tests.qtcore.test_trade import digest; print(*map(digest, {names}))"
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [digest(name) for name in names], done.stderr


# ---------------------------------------------------------------- five-bar examples

NO_COST = {"broker.fee_rate": 0.0, "broker.slippage_rate": 0.0}
TEN_PERCENT = {"governor.kelly_fraction": 1.0, "governor.stop_loss": 0.02}  # every size is the cap: 10 % of the base
ACTIONS = {"S": 0, ".": 1, "B": 2}
FLAT = (100.0, 100.0, 100.0, 100.0)
HOLE = (np.nan,) * 4


def example(rows, signals, confidence=0.9, values=None, funding=None, state=None, volume=0.0):
    """Run bars (open, high, low, close) per symbol and bar with signals "B", "S" or "." per symbol; times start at midnight UTC.

    rows, signals: one list for one symbol, or a dict of symbols. Returns the result, the state and a list of readable fills.
    """
    rows = rows if isinstance(rows, dict) else {"A": rows}
    signals = signals if isinstance(signals, dict) else {"A": signals}
    planes = [np.ascontiguousarray(np.array([rows[s] for s in rows])[:, :, i].T) for i in range(4)]
    action = np.array([[ACTIONS[x] for x in signals[s]] for s in rows], np.int8).T.copy()
    n = len(action)
    first = 0 if state is None else int(state.account["n_bars"][0])
    open_time = START + NS_PER_HOUR * np.arange(first, first + n)
    rates = None if funding is None else np.array(funding, float).reshape(n, -1)
    bars = Bars(open_time, open_time + NS_PER_HOUR, *planes, np.full_like(planes[0], volume), tuple(rows), NS_PER_HOUR, rates)
    params = PUBLISHED.with_values({**NO_COST, **TEN_PERCENT, **(values or {})})
    state = TradeState.fresh(params, len(rows)) if state is None else state
    conf = np.broadcast_to(np.array(confidence, float), (n, len(rows))) if np.ndim(confidence) < 2 else np.array(confidence, float)
    result = run_trade(bars, action, np.array(conf, order="C"), params, state)
    return result, state, [said(fill) for fill in result.fills]


def said(fill):
    """A fill as (hours since the start, reason, reference price, pnl rounded to cents)."""
    hours = (int(fill["time"]) - START) / NS_PER_HOUR
    return hours, Reason(int(fill["reason"])).name, float(fill["reference_price"]), round(float(fill["pnl"]), 2)


def reasons(result, symbol=0):
    return [Reason(int(code)).name for code in result.governor_reason[:, symbol]]


def test_an_order_fills_at_the_next_open_with_slippage_and_fee():
    rows = [FLAT, (100.0, 103.0, 99.0, 102.0), (102.0, 102.0, 102.0, 102.0)]
    result, _, fills = example(rows, "B..", values={"broker.fee_rate": 0.0004, "broker.slippage_rate": 0.0001})
    price = 100.0 * 1.0001
    assert fills == [(1.0, "APPROVED", 100.0, 0.0)]
    assert result.fills["price"][0] == price
    assert result.fills["qty"][0] == 1000.0 / price
    assert result.fills["fee"][0] == 1000.0 * 0.0004
    assert result.fills["stop_price"][0] == price * (1.0 - 0.02)
    assert result.size[0, 0] == 1000.0
    unrealised = 1000.0 / price * (102.0 - price) - 0.4
    assert result.equity.tolist() == [10_000.0, 10_000.0 + unrealised, 10_000.0 + unrealised]
    assert result.balance.tolist() == [10_000.0] * 3
    assert result.exposure.tolist() == [1000.0] * 3
    np.testing.assert_allclose(cell_pnl(result.pnl)[:, 0], [unrealised, 0.0, 0.0], rtol=1e-12)


def test_a_gap_through_the_stop_leaves_at_the_open():
    rows = [FLAT, FLAT, (95.0, 96.0, 90.0, 96.0), FLAT]
    assert example(rows, "B...")[2] == [(1.0, "APPROVED", 100.0, 0.0), (2.0, "STOP", 95.0, -50.0)]


def test_a_stop_inside_the_bar_fills_at_its_level_when_the_bar_closes():
    rows = [FLAT, FLAT, (99.0, 99.0, 97.0, 99.0), FLAT]
    assert example(rows, "B...")[2] == [(1.0, "APPROVED", 100.0, 0.0), (3.0, "STOP", 98.0, -20.0)]


def test_an_open_equal_to_the_stop_is_not_beyond_it():
    rows = [FLAT, FLAT, (98.0, 99.0, 97.0, 99.0), FLAT]
    assert example(rows, "B...")[2][1] == (3.0, "STOP", 98.0, -20.0)


def test_a_stop_is_tried_on_the_fill_bar():
    rows = [FLAT, (100.0, 101.0, 98.0, 101.0), FLAT]
    assert example(rows, "B..")[2] == [(1.0, "APPROVED", 100.0, 0.0), (2.0, "STOP", 98.0, -20.0)]


def test_a_short_stops_on_the_high():
    rows = [FLAT, FLAT, (101.0, 102.0, 100.0, 100.0), (104.0, 105.0, 103.0, 103.0)]
    assert example(rows, "S...")[2][1] == (3.0, "STOP", 102.0, -20.0)
    rows[2] = (101.0, 101.99, 100.0, 100.0)
    assert example(rows, "S...")[2][1] == (3.0, "STOP", 104.0, -40.0)


def test_the_horizon_counts_rows_and_allows_an_entry_at_the_same_open():
    rows = [FLAT, FLAT, FLAT, (101.0, 101.0, 101.0, 101.0), FLAT]
    result, _, fills = example(rows, "B.B..", values={"broker.max_holding_bars": 2})
    assert fills == [(1.0, "APPROVED", 100.0, 0.0), (3.0, "HORIZON", 101.0, 10.0), (3.0, "APPROVED", 101.0, 0.0)]
    assert reasons(result) == ["APPROVED", "HOLD_SIGNAL", "APPROVED", "HOLD_SIGNAL", "HORIZON"]
    assert result.exposure[2] == 2000.0  # the leaving position counts until its exit fills


def test_an_opposite_signal_closes_at_the_next_open_whatever_its_confidence():
    confidence = [[0.9], [0.1], [0.9], [0.9], [0.9]]
    result, _, fills = example([FLAT] * 5, "BSSS.", confidence)
    assert fills == [(1.0, "APPROVED", 100.0, 0.0), (2.0, "EXIT_SIGNAL", 100.0, 0.0), (3.0, "APPROVED", 100.0, 0.0)]
    assert reasons(result) == ["APPROVED", "EXIT_SIGNAL", "APPROVED", "POSITION_ALREADY_OPEN", "HOLD_SIGNAL"]
    assert result.final_action[:, 0].tolist() == [2, 1, 0, 1, 1]
    assert result.size[:, 0].tolist() == [1000.0, 0.0, -1000.0, 0.0, 0.0]


def test_an_opposite_signal_on_the_last_bar_of_the_horizon_is_an_exit_and_no_flip():
    result, _, fills = example([FLAT] * 4, "B.S.", values={"broker.max_holding_bars": 2})
    assert reasons(result) == ["APPROVED", "HOLD_SIGNAL", "EXIT_SIGNAL", "HOLD_SIGNAL"]
    assert fills[1:] == [(3.0, "EXIT_SIGNAL", 100.0, 0.0)]


def test_an_entry_into_a_hole_is_cancelled_and_counts():
    result, state, fills = example([FLAT, HOLE, FLAT, FLAT], "B.B.", values={"governor.max_daily_trades": 2})
    assert fills == [(3.0, "APPROVED", 100.0, 0.0)]
    assert reasons(result) == ["APPROVED", "NO_BAR", "APPROVED", "HOLD_SIGNAL"]
    assert result.exposure.tolist() == [1000.0, 0.0, 1000.0, 1000.0]
    assert (state.account["n_cancelled"][0], state.account["trades_today"][0]) == (1, 2)


def test_no_entry_is_approved_at_a_hole():
    result, _, fills = example([FLAT, HOLE, FLAT], ".B.")
    assert (reasons(result)[1], fills) == ("NO_BAR", [])


def test_an_exit_waits_for_the_next_valid_open():
    rows = [FLAT, FLAT, HOLE, HOLE, (99.0, 99.0, 99.0, 99.0)]
    result, _, fills = example(rows, "BS...")
    assert fills[1] == (4.0, "EXIT_SIGNAL", 99.0, -10.0)
    assert result.equity.tolist() == [10_000.0, 10_000.0, 10_000.0, 10_000.0, 9_990.0]


def test_a_symbol_without_bars_is_delisted_at_its_last_close():
    rows = [FLAT, (100.0, 101.0, 100.0, 101.0), HOLE, HOLE, HOLE, HOLE]
    _, state, fills = example(rows, "B.....", values={"broker.delist_after": 3})
    assert fills[1] == (5.0, "DELISTED", 101.0, 10.0)
    assert (state.positions["last_close"][0], state.positions["last_bar"][0]) == (101.0, 1)


def test_funding_is_paid_by_a_long_held_at_the_close():
    result, state, fills = example([FLAT] * 4, "B.S.", funding=[0.0, 0.001, 0.0, 0.005])
    assert result.balance.tolist() == [10_000.0, 9_999.0, 9_999.0, 9_999.0]
    assert fills[1] == (3.0, "EXIT_SIGNAL", 100.0, -1.0)
    assert (state.account["funding"][0], result.fills["funding"][1]) == (-1.0, -1.0)
    assert example([FLAT] * 3, "S..", funding=[0.0, 0.001, np.nan])[1].account["funding"][0] == 1.0
    assert state.positions["last_loss_time"][0] == START + 3 * NS_PER_HOUR  # a loss is net of funding


def test_the_daily_limit_starts_anew_at_midnight_of_the_decision_time():
    values = {"governor.max_daily_trades": 1, "broker.max_holding_bars": 1}
    result, _, _ = example([FLAT] * 25, "B" * 25, values=values)
    assert reasons(result) == ["APPROVED"] + ["DAILY_TRADE_LIMIT_REACHED"] * 22 + ["APPROVED", "DAILY_TRADE_LIMIT_REACHED"]


def test_only_a_stop_cools_down_one_hourly_decision():
    rows = [FLAT, FLAT, (99.0, 99.0, 97.0, 99.0), FLAT, FLAT]
    result, _, _ = example(rows, "B.BB.")
    assert reasons(result) == ["APPROVED", "HOLD_SIGNAL", "COOLDOWN_ACTIVE", "APPROVED", "HOLD_SIGNAL"]
    rows = [FLAT, FLAT, (99.0, 99.0, 99.0, 99.0), FLAT, FLAT]
    result, _, fills = example(rows, "BSB..")
    assert fills[1] == (2.0, "EXIT_SIGNAL", 99.0, -10.0)
    assert reasons(result)[2] == "APPROVED"  # a loss closed at the open is exactly 60 minutes old
    result, _, _ = example(rows, "BSB..", values={"governor.cooldown_minutes": 61})
    assert reasons(result)[2] == "COOLDOWN_ACTIVE"


def test_a_drawdown_halts_entries_for_the_rest_of_the_run():
    rows = [FLAT, FLAT, (95.0, 95.0, 95.0, 95.0), *[FLAT] * 24]
    values = {"governor.max_drawdown": 0.004}
    result, state, _ = example(rows, "B" + "." * 2 + "B" * 24, values=values)
    assert set(reasons(result)[3:]) == {"MAX_DRAWDOWN_EXCEEDED"}
    assert state.account["halt_time"][0] == START + 3 * NS_PER_HOUR
    assert state.account["n_halted"][0] == 25
    result, state, _ = example(rows, "B" + "." * 2 + "B" * 24, values={**values, "governor.drawdown_reset": "daily"})
    assert reasons(result)[22:24] == ["MAX_DRAWDOWN_EXCEEDED", "APPROVED"]
    assert (state.account["n_halted"][0], state.account["peak"][0]) == (21, 9_950.0)
    equal = example(rows, "B" + "." * 2 + "B" * 24, values={"governor.max_drawdown": 0.005})[0]
    assert reasons(equal)[3] == "APPROVED"  # a drawdown that equals the limit passes


def test_a_halt_is_lifted_by_hand():
    rows, values = [FLAT, FLAT, (95.0, 95.0, 95.0, 95.0), FLAT], {"governor.max_drawdown": 0.004, "governor.drawdown_reset": "manual"}
    _, state, _ = example(rows, "B...", values=values)
    assert reasons(example([FLAT], "B", values=values, state=state.copy())[0]) == ["MAX_DRAWDOWN_EXCEEDED"]
    state.lift_halt(PUBLISHED.with_values(values))
    assert reasons(example([FLAT], "B", values=values, state=state)[0]) == ["APPROVED"]
    with pytest.raises(ValueError, match="manual, was none"):
        state.lift_halt(PUBLISHED)


def test_projected_exposure_admits_five_positions_and_existing_six():
    symbols = "ABCDEFG"
    rows, signals = {s: [FLAT] * 2 for s in symbols}, dict.fromkeys(symbols, "B.")
    for mode, admitted in (("projected", 5), ("existing", 6)):
        result, _, _ = example(rows, signals, values={"governor.exposure_mode": mode})
        codes = [Reason(int(code)).name for code in result.governor_reason[0]]
        assert codes == ["APPROVED"] * admitted + ["MAX_EXPOSURE_EXCEEDED"] * (7 - admitted)


def test_order_by_confidence():
    rows, signals = {s: [FLAT] * 2 for s in "ABCD"}, dict.fromkeys("ABCD", "B.")
    confidence = [[0.7, 0.9, 0.8, 0.9]] * 2
    values = {"governor.max_daily_trades": 2, "governor.order": "by_confidence"}
    result, _, _ = example(rows, signals, confidence, values)
    assert result.final_action[0].tolist() == [1, 2, 1, 2]
    result, _, _ = example(rows, signals, confidence, {"governor.max_daily_trades": 2})
    assert result.final_action[0].tolist() == [2, 2, 1, 1]


def test_the_kill_switch_blocks_entries_lets_exits_go_and_cancels_what_is_pending():
    kill = {"governor.emergency_stop": True}
    result, state, fills = example([FLAT] * 3, "BBB", values=kill)
    assert (set(reasons(result)), fills) == ({"EMERGENCY_STOP_ACTIVE"}, [])
    _, state, _ = example([FLAT] * 2, "B.")
    result, _, fills = example([FLAT] * 3, "S..", values=kill, state=state)
    assert (reasons(result)[0], fills) == ("EXIT_SIGNAL", [(3.0, "EXIT_SIGNAL", 100.0, 0.0)])
    _, state, _ = example([FLAT], "B")
    result, state, fills = example([FLAT], ".", values=kill, state=state)
    assert (reasons(result), fills, state.account["n_cancelled"][0]) == (["EMERGENCY_STOP_ACTIVE"], [], 1)


def test_flatten_on_kill_closes_at_the_next_open():
    _, state, _ = example([FLAT] * 2, "B.")
    values = {"governor.emergency_stop": True, "governor.flatten_on_kill": True}
    result, _, fills = example([FLAT] * 2, "..", values=values, state=state)
    assert (reasons(result)[0], fills) == ("EMERGENCY_STOP_ACTIVE", [(3.0, "EMERGENCY_STOP_ACTIVE", 100.0, 0.0)])


def test_without_shorts_a_sell_only_closes():
    result, _, fills = example([FLAT] * 4, "SBS.", values={"broker.allow_short": False})
    assert reasons(result) == ["SHORTS_DISABLED", "APPROVED", "EXIT_SIGNAL", "HOLD_SIGNAL"]
    assert [f[1] for f in fills] == ["APPROVED", "EXIT_SIGNAL"]


def test_the_last_bar_opens_nothing_and_the_end_closes_on_a_copy():
    result, state, fills = example([FLAT, (100.0, 101.0, 100.0, 101.0)], "BB")
    before = state.copy()
    end, last = finish(state, int(START + 2 * NS_PER_HOUR), PUBLISHED.with_values(NO_COST))
    assert [said(fill) for fill in last] == [(2.0, "END_OF_DATA", 101.0, 10.0)]
    assert (len(fills), result.equity[-1], end.account["balance"][0]) == (1, 10_010.0, 10_010.0)
    for name in ("account", "positions", "closed"):
        assert_same_bits(getattr(state, name), getattr(before, name), name)


def test_fill_at_the_close():
    rows = [FLAT, (100.0, 101.0, 97.0, 99.0), (99.0, 99.0, 98.5, 99.0), FLAT]
    result, _, fills = example(rows, "B.S.", values={"broker.fill": "close", "broker.fee_rate": 0.001, "governor.stop_loss": 0.1})
    assert [f[:3] for f in fills] == [(1.0, "APPROVED", 100.0), (3.0, "EXIT_SIGNAL", 99.0)]
    assert result.equity[0] == 10_000.0 - 1.0
    assert result.balance[2] == result.equity[2] == 10_000.0 - 10.0 - 1.0 - 10.0 * 99.0 * 0.001
    result, _, fills = example([FLAT] * 4, "B...", values={"broker.fill": "close", "broker.max_holding_bars": 2})
    assert fills[1][:2] == (3.0, "HORIZON")
