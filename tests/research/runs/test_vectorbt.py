"""Does another library, given our fills, come to the same money? vectorbt on real candles, one sub-row per fill of a bar."""

import numpy as np
import pandas as pd
import pytest

from qtcore.chain.trade import TradeState, finish, run_trade
from qtcore.rules import Reason
from qtcore.types import NS_PER_HOUR, Bars
from tests.conftest import shared_data
from tests.support import PUBLISHED
from tests.support.books import book_params

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "PEPEUSDT", "DOGEUSDT", "XRPUSDT", "ENAUSDT", "SHIBUSDT", "TAOUSDT", "AVAXUSDT")
PRICES = ("open", "high", "low", "close", "volume")
SLOTS = 4  # of a bar: exits at the open, entries at the open, stops, the close
RTOL = 1e-9  # the two add up cash in another order


def load(symbols, n):
    """The last n hourly bars of `symbols`, NaN before a listing."""
    table = pd.read_parquet(shared_data("crypto_spot_1h_wide.parquet"), filters=[("symbol", "in", list(symbols))])
    frames = {name: table.pivot(index="timestamp", columns="symbol", values=name)[list(symbols)].tail(n) for name in PRICES}
    open_time = frames["open"].index.as_unit("ns").asi8
    planes = {name: np.ascontiguousarray(frame.to_numpy(np.float64)) for name, frame in frames.items()}
    return Bars(open_time, open_time + NS_PER_HOUR, **planes, symbols=tuple(symbols), interval=NS_PER_HOUR)


def momentum_votes(bars, seed=0):
    """Follow the last 12 bars, with a seeded confidence; nothing on small moves."""
    move = np.full(bars.close.shape, np.nan)
    move[12:] = bars.close[12:] / bars.close[:-12] - 1.0
    action = np.where(move > 0.01, 2, np.where(move < -0.01, 0, 1)).astype(np.int8)
    return action, np.random.default_rng(seed).uniform(0.55, 0.95, action.shape)


def as_orders(bars, fills):
    """Spread the ledger over SLOTS sub-rows a bar: order sizes and prices, and closes to value with."""
    n, width = bars.close.shape
    size, price = np.full((2, n, SLOTS, width), np.nan)
    is_late = fills["time"] == bars.close_time[fills["bar"]]
    slot = np.where(is_late, 2, fills["is_entry"])
    assert len({*zip(fills["bar"], slot, fills["symbol"])}) == len(fills)
    at = (fills["bar"], slot, fills["symbol"])
    size[at], price[at] = fills["qty"], fills["price"]
    close = pd.DataFrame(bars.close).ffill().bfill().to_numpy()
    value = np.repeat(close[:, None, :], SLOTS, axis=1)
    return (x.reshape(n * SLOTS, width) for x in (size, price, value))


def portfolio(bars, fills, params):
    vbt = pytest.importorskip("vectorbt", reason="vectorbt is not installed; it is the extra `vectorbt`")
    size, price, value = as_orders(bars, fills)
    options = {"fees": params.broker.fee_rate, "init_cash": params.broker.initial_cash, "cash_sharing": True, "group_by": True}
    return vbt.Portfolio.from_orders(value, size, price=price, size_type="amount", direction="both", freq="15min", **options)


@pytest.fixture(scope="module")
def run():
    bars = load(SYMBOLS, 4_000)
    action, confidence = momentum_votes(bars)
    values = {"governor.stop_loss": 0.01, "broker.max_holding_bars": 12, "governor.max_daily_trades": 1_000, "governor.max_drawdown": 1.0}
    params = PUBLISHED.with_values(values)
    state = TradeState.fresh(params, len(bars.symbols))
    result = run_trade(bars, action, confidence, params, state)
    _, last = finish(state, int(bars.close_time[-1]), params)
    return bars, params, result, last


def test_the_sample_is_rich_enough(run):
    _, _, result, _ = run
    fills = result.fills
    exits, entries = fills[fills["is_entry"] == 0], fills[fills["is_entry"] == 1]
    stops = exits[exits["reason"] == Reason.STOP]
    own_bar = stops["bar"] == entries["bar"][stops["trade_id"]]
    assert len(exits) >= 500
    assert np.sum(exits["qty"] > 0.0) >= 100  # shorts are bought back
    assert len(stops) >= 50
    assert own_bar.sum() >= 20


@pytest.fixture(scope="module")
def theirs(run):
    bars, params, result, _ = run
    return portfolio(bars, result.fills, params)


def test_the_same_equity_curve(run, theirs):
    result = run[2]
    equity = theirs.value().to_numpy()[SLOTS - 1 :: SLOTS]
    np.testing.assert_allclose(result.equity, equity, rtol=RTOL)


def test_the_same_trades(run, theirs):
    _, _, result, last = run
    records = theirs.trades.records
    exits = result.fills[result.fills["is_entry"] == 0]
    closed = records[records["status"] == 1].sort_values(["col", "exit_idx"])
    ours = exits[np.lexsort((exits["time"], exits["symbol"]))]
    assert len(closed) == len(ours)
    assert len(records) - len(closed) == len(last)  # what vectorbt calls open is what the end of the data closes
    np.testing.assert_array_equal(closed["col"], ours["symbol"])
    np.testing.assert_array_equal(closed["direction"], (ours["qty"] > 0.0).astype(int))
    np.testing.assert_allclose(closed["pnl"], ours["pnl"], rtol=RTOL, atol=RTOL * 1_000.0)  # of a usual notional: pnl is a difference
    entries = result.fills[result.fills["is_entry"] == 1]
    np.testing.assert_allclose(closed["return"], ours["pnl"] / entries["notional"][ours["trade_id"]], rtol=RTOL, atol=RTOL)
    np.testing.assert_allclose(records["entry_fees"].sum() + closed["exit_fees"].sum(), result.fills["fee"].sum(), rtol=RTOL)


def test_the_same_equity_of_a_book_that_resizes_its_positions():
    """Real candles, momentum as the forecast: adds, parts and reversals, the same orders in the books of vectorbt."""
    bars, rng = load(SYMBOLS, 2_000), np.random.default_rng(4)
    move = np.full(bars.close.shape, np.nan)
    move[12:] = bars.close[12:] / bars.close[:-12] - 1.0
    forecast = 0.05 * move + rng.normal(0.0, 1e-3, move.shape)
    risk = np.where(np.isnan(move), np.nan, 4e-4)
    params = book_params(**{"governor.neutral": "dollar", "governor.max_drawdown": 1.0})
    said, money = (
        (np.ones(move.shape, np.int8), np.ones(move.shape)),
        (np.abs(forecast), np.abs(forecast), risk, forecast, np.ones(move.shape), np.empty((0, 0))),
    )
    state = TradeState.fresh(params, len(bars.symbols))
    result = run_trade(bars, *said, params, state, money=money)
    reasons = result.fills["reason"]
    assert min(np.sum(reasons == Reason.ADDED), np.sum(reasons == Reason.REDUCED), np.sum(reasons == Reason.EXIT_SIGNAL)) > 500
    theirs = portfolio(bars, result.fills, params)
    np.testing.assert_allclose(result.equity, theirs.value().to_numpy()[SLOTS - 1 :: SLOTS], rtol=RTOL)
    records = theirs.positions.records
    exits = result.fills[(result.fills["is_entry"] == 0) & (reasons != Reason.REDUCED)]
    closed = records[records["status"] == 1]
    np.testing.assert_allclose(closed["pnl"].sum(), exits["pnl"].sum(), rtol=1e-6)


def small(values, world="gaps", n_bars=700):
    import research

    bars = research.simulate(world, seed=4, n_bars=n_bars, n_symbols=3)
    return research.backtest(bars, research.Predictions.random(bars, seed=1), PUBLISHED.with_values(values))


@pytest.mark.parametrize("values", [{}, {"broker.fill": "close"}, {"governor.stop_loss": 0.003, "broker.delist_after": 2}], ids=str)
def test_a_run_becomes_a_portfolio_with_the_same_equity(values):
    pytest.importorskip("vectorbt", reason="vectorbt is not installed; it is the extra `vectorbt`")
    from research.runs.to_vectorbt import rows_per_bar

    run = small(values)
    theirs, rows = run.to_vectorbt(), rows_per_bar(run)
    value = theirs.value().iloc[rows - 1 :: rows]
    assert len(run.result.fills) > 100
    np.testing.assert_allclose(run.result.equity, value.to_numpy(), rtol=RTOL)
    np.testing.assert_array_equal(value.index.asi8, run.bars.close_time)
    assert list(theirs.wrapper.columns) == list(run.bars.symbols)
    assert theirs.orders.count() == len(run.result.fills)
    assert theirs.total_return() == pytest.approx(run.result.equity[-1] / run.params.broker.initial_cash - 1.0, rel=1e-6)


def test_what_vectorbt_cannot_hold_is_one_sentence(monkeypatch):
    import sys
    from dataclasses import replace

    from research.errors import UserError

    run = small({}, n_bars=300)
    paid = replace(run, bars=replace(run.bars, funding=np.full(run.bars.close.shape, 1e-4)))
    with pytest.raises(UserError, match="without funding, was one with"):
        paid.to_vectorbt()
    monkeypatch.setitem(sys.modules, "vectorbt", None)
    with pytest.raises(UserError, match="needs the vectorbt library, was not installed"):
        run.to_vectorbt()
