"""Do the bounds hold whatever happened inside a bar, and does a finer candle only narrow them?"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import qtcore as qt
import research
from qtcore.rules import Reason
from qtcore.types import FILL, NS_PER_HOUR, Bars
from research.cli.app import app
from research.data.resample import resample
from research.errors import DataError, UserError
from research.evidence.intrabar import bound, bounds_text
from research.training.predictions import Predictions
from tests.conftest import shared_data
from tests.naive import evidence as naive
from tests.support import PUBLISHED
from tests.support.fake_run import START

MINUTE = NS_PER_HOUR // 60
FREE = PUBLISHED.with_values({"broker.slippage_rate": 0.0, "broker.fee_rate": 0.0})


def bars_of(candles, minutes):
    """One symbol's candles [n, 4]."""
    open_time = START + minutes * MINUTE * np.arange(len(candles))
    planes = [np.array(plane, float)[:, None] for plane in zip(*candles)]
    return Bars(open_time, open_time + minutes * MINUTE, *planes, np.ones((len(candles), 1)), ("A",), minutes * MINUTE)


def ticks_of(bars):
    """The closes as ticks: bars of one price each."""
    return replace(bars, open=bars.close, high=bars.close, low=bars.close)


def stopped(candle, level, is_long):
    """A run of one hourly bar in which a position of one unit was stopped at `level`."""
    fills = np.zeros(2, FILL)
    fills["qty"], fills["is_entry"], fills["stop_price"] = ([1.0, -1.0] if is_long else [-1.0, 1.0]), [1, 0], [level, np.nan]
    fills["price"], fills["reference_price"], fills["reason"] = 100.0, [100.0, level], [Reason.APPROVED, Reason.STOP]
    fills["pnl"] = [0.0, fills["qty"][0] * (level - 100.0)]
    cash = FREE.broker.initial_cash
    result = SimpleNamespace(fills=fills, equity=np.array([cash + fills["pnl"][1]]))
    return SimpleNamespace(bars=bars_of([candle], 60), params=FREE, result=result, own_layers=())


def run_on(bars, params=PUBLISHED, seed=1):
    return research.backtest(bars, Predictions.random(bars, seed=seed), params)


def nested(inner, outer):
    """Whether all bounds of one lie within those of the other, to the bit."""
    pairs = [(inner.pnl_low, outer.pnl_low), (outer.pnl_high, inner.pnl_high), (inner.low, outer.low), (outer.high, inner.high)]
    return all(np.all(a >= b) for a, b in pairs) and inner.n_bars <= outer.n_bars


def is_point(run, bars):
    """For every stop inside a bar of the run, whether these candles leave one price: by hand, from the first that reaches its level."""
    fills, out = run.result.fills, []
    entries = {fill["trade_id"]: fill for fill in fills[fills["is_entry"] == 1]}
    for left in fills[(fills["is_entry"] == 0) & (fills["reason"] == Reason.STOP)]:
        level, s, is_long = entries[left["trade_id"]]["stop_price"], left["symbol"], left["qty"] < 0
        if left["reference_price"] != level or run.bars.open[left["bar"], s] == level:
            continue
        rows = np.flatnonzero((bars.open_time >= run.bars.open_time[left["bar"]]) & (bars.close_time <= run.bars.close_time[left["bar"]]))
        for row in rows:
            extreme, first = (bars.low if is_long else bars.high)[row, s], bars.open[row, s]
            if extreme <= level if is_long else extreme >= level:
                out.append((first <= level if is_long else first >= level) or extreme == level)
                break
    return np.array(out, bool)


ticks = st.integers(1, 6)
paths = st.lists(st.lists(ticks, min_size=1, max_size=4), min_size=2, max_size=3)


@given(paths=paths, level=ticks, is_long=st.booleans())
@settings(max_examples=300, deadline=None)
def test_bounds_are_the_extremes_of_all_paths_of_ticks(paths, level, is_long):
    whole = [tick for path in paths for tick in path]
    candle, *finer = [(path[0], max(path), min(path), path[-1]) for path in (whole, *paths)]
    is_reached = candle[2] <= level if is_long else candle[1] >= level
    is_beyond = candle[0] <= level if is_long else candle[0] >= level
    assume(is_reached and not is_beyond)  # else it left at the open, or not at all
    run = stopped(candle, float(level), is_long)
    minutes = 60 // len(finer)
    for bounds, candles in ((bound(run), [candle]), (bound(run, bars_of(finer, minutes)), finer)):
        found = naive.stop_prices(candles, level, is_long)
        assert sorted((bounds.exit_worst[0], bounds.exit_best[0])) == [min(found), max(found)]
        assert bounds.n_bars == (len(found) > 1)
        assert (bounds.low, bounds.high) == (bounds.pnl_low[0], bounds.pnl_high[0])


@given(seed=st.integers(0, 10_000), fill=st.sampled_from(["next_open", "close", "next_close", "one_bar_later"]))
@settings(max_examples=8, deadline=None)
def test_finer_candles_narrow_the_bounds_down_to_what_the_ticks_did(seed, fill):
    params = PUBLISHED.with_values({"broker.fill": fill, "broker.allow_short": True})
    each = ticks_of(research.load_bars(f"simulated:random_walk?n_bars=2400&n_symbols=2&seed={seed}"))
    middle, bars = resample(each, "4h"), resample(each, "12h")
    run = run_on(bars, params, seed)
    coarse, fine, exact = bound(run), bound(run, middle), bound(run, each)
    assert len(exact.trade_id) > 3
    assert nested(fine, coarse)
    assert nested(exact, fine)
    assert np.array_equal(coarse.pnl_low == coarse.pnl_high, is_point(run, bars))
    assert np.array_equal(fine.pnl_low == fine.pnl_high, is_point(run, middle))
    assert (exact.n_bars, exact.low) == (0, exact.high)
    entries, exits = (run.result.fills[run.result.fills["is_entry"] == i] for i in (1, 0))
    for k, trade_id in enumerate(exact.trade_id):
        entry, left = (rows[rows["trade_id"] == trade_id][0] for rows in (entries, exits))
        assert coarse.pnl_high[k] == left["pnl"]
        first, s = np.searchsorted(each.open_time, entry["time"]), entry["symbol"]
        about = entry["qty"], entry["price"], entry["fee"], entry["stop_price"], params.broker.slippage_rate, params.broker.fee_rate
        pnl, row = naive.replayed(each.close[:, s], first, *about)
        assert (exact.pnl_low[k], exact.pnl_high[k], exact.open_time[k]) == (pnl, pnl, each.open_time[row])


def test_where_no_stop_was_passed_the_bounds_are_the_net_pnl():
    bars = research.load_bars("simulated:random_walk?n_bars=600&n_symbols=2&seed=3")
    run = run_on(bars, PUBLISHED.with_values({"governor.stop_loss": 0.5}))
    bounds, table = bound(run), run.intrabar()
    net = run.result.equity[-1] - run.params.broker.initial_cash
    assert (bounds.low, bounds.high, bounds.n_bars) == (net, net, 0)
    assert len(table) == len(run.trades) > 10
    assert table["stop_bar"].isna().all()
    assert table["pnl_low"].equals(table["pnl"].rename("pnl_low"))
    assert bounds_text(bounds.figures).startswith("known: ")


@pytest.fixture(scope="module")
def world():
    fine = research.load_bars("simulated:random_walk?n_bars=4000&n_symbols=3&seed=5")
    return fine, run_on(resample(fine, "8h"))


def test_the_table_has_a_row_a_trade_and_adds_up_to_the_account(world):
    fine, run = world
    for finer in (None, fine):
        table, bounds = run.intrabar(finer), bound(run, finer)
        assert list(table["trade_id"]) == list(run.trades["trade_id"])
        assert ((table["pnl_low"] <= table["pnl_high"]) | table["pnl"].isna()).all()
        for name, side in (("pnl_low", 0), ("pnl_high", 1)):
            assert table.attrs["net_pnl"][side] == pytest.approx(bounds.net + (table[name] - table["pnl"]).sum(), rel=1e-12)
        inside = table[table["stop_bar"].notna()]
        assert len(inside) == bounds.figures["n_stops"] > 30
        assert (inside["stop_bar"] < inside["exit_time"]).all()


def test_an_account_cannot_lose_more_than_it_has():
    run = stopped((100.0, 100.0, 10.0, 50.0), 99.0, True)
    run.params = FREE.with_values({"broker.initial_cash": 40.0})
    run.result.equity = np.array([39.0])
    assert (bound(run).low, bound(run).high) == (-40.0, -1.0)


def test_finer_candles_of_a_part_leave_the_rest_as_it_was(world):
    fine, run = world
    whole, part, coarse = bound(run, fine), bound(run, fine[1600:]), bound(run)
    at = part.open_time >= fine.open_time[1600]
    assert 0 < part.n_finer == at.sum() < whole.n_finer == len(at)
    assert np.array_equal(part.pnl_low, np.where(at, whole.pnl_low, coarse.pnl_low))


def test_finer_candles_may_hold_more_symbols_in_another_order(world):
    fine, run = world
    column = [2, 0, 1]
    planes = {name: np.ascontiguousarray(getattr(fine, name)[:, column]) for name in ("open", "high", "low", "close", "volume")}
    other = replace(fine, symbols=tuple(fine.symbols[i] for i in column), **planes)
    assert np.array_equal(bound(run, other).pnl_low, bound(run, fine).pnl_low)


def test_finer_candles_of_another_market_are_refused_with_the_first_that_differs(world):
    fine, run = world
    low = fine.low.copy()
    low[805, 1] *= 0.5
    text = r"into the run's own candles, was low of SIM02 at 2000-02-03 08:00 with [\d.]+ instead of [\d.]+; give"
    with pytest.raises(DataError, match=text):
        bound(run, replace(fine, low=low))
    with pytest.raises(DataError, match="must be shorter than the run's 8h, was 8h"):
        bound(run, run.bars)
    with pytest.raises(DataError, match="must hold every symbol of the run, was without SIM03"):
        bound(run, research.load_bars("simulated:random_walk?n_bars=400&n_symbols=2"))
    with pytest.raises(DataError, match=r"must hold some of the run's time, 2000-01-01 00:00 to .*, was none of it"):
        bound(run, replace(fine, open_time=fine.open_time + 10**18, close_time=fine.close_time + 10**18))


@pytest.mark.parametrize(("name", "value", "text"), [("fill", "worst", "broker.fill=worst"), ("impact", 0.02, "broker.impact=0.02")])
def test_fills_that_are_not_at_the_level_have_no_bounds(world, name, value, text):
    run = run_on(world[1].bars, PUBLISHED.with_values({f"broker.{name}": value}))
    assert run.summary["evidence"]["intrabar"] is None
    with pytest.raises(UserError, match=f"was one with {text}; bound one without"):
        run.intrabar()


def test_an_own_trade_loop_has_no_bounds(world):
    _, run = world
    own = research.backtest(run.bars, run.predictions, PUBLISHED, trade=qt.rebind(qt.trade))
    assert own.summary["evidence"]["intrabar"] is None
    with pytest.raises(UserError, match="was one with an own trade"):
        own.intrabar()


def test_summary_and_page_say_the_bounds_and_the_command_narrows_them(world, tmp_path):
    fine, run = world
    folder = run.save(tmp_path / "run")
    research.data.save_bars(fine, tmp_path / "fine.parquet")
    assert run.summary["evidence"]["intrabar"] == bound(run).figures
    said = [bounds_text(bound(run, finer).figures) for finer in (None, fine)]
    run.report(folder / "report.html")
    assert said[0] in (folder / "report.html").read_text(encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(folder), "--finer", str(tmp_path / "fine.parquet")])
    assert (done.exit_code, done.output.count(f"net PnL {bound(run).net:+,.2f}, {said[1]}\n")) == (0, 1)
    assert said[1] in (folder / "report.html").read_text(encoding="utf-8")


def test_real_candles_of_five_minutes_bound_hours_from_inside():
    fine = research.load_bars(shared_data("crypto_spot_5m_large.parquet"))
    bars = resample(fine, "1h")
    free = {"governor.max_daily_trades": 200, "governor.max_drawdown": 1.0, "governor.stop_loss": 0.01, "broker.allow_short": True}
    run = run_on(bars, PUBLISHED.with_values(free))
    coarse, narrow = bound(run), bound(run, fine)
    assert len(coarse.trade_id) > 1_000
    assert nested(narrow, coarse)
    assert narrow.n_finer == len(narrow.trade_id)
    assert np.array_equal(narrow.pnl_low == narrow.pnl_high, is_point(run, fine))
    assert np.array_equal(coarse.pnl_low == coarse.pnl_high, is_point(run, bars))
    half = bound(run, resample(fine, "30m"))
    assert nested(narrow, half)
    assert nested(half, coarse)
