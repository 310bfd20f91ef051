"""Does money appear or vanish? The books against the ledger, the limits against every approval, the metrics against NumPy."""

import numpy as np
import pytest

from qtcore.chain.trade import TradeState, cell_pnl, fill_capacity, finish, run_trade
from qtcore.metrics import init_metrics, metrics_of, summarise, update_metrics
from qtcore.rules import Reason
from qtcore.types import slab
from tests.conftest import assert_same_bits, awkward_bars
from tests.naive import metrics as naive
from tests.qtcore.test_trade import FILLS, OPTIONS, assert_ledger_replays, funding_for, votes_for, with_funding
from tests.support import PUBLISHED

CASH = PUBLISHED.broker.initial_cash


def run(name, seed=3, has_funding=False, n=400):
    bars = awkward_bars(n, seed)
    bars = with_funding(bars, funding_for(bars, seed)) if has_funding else bars
    action, confidence = votes_for(bars, seed)
    params = PUBLISHED.with_values({"broker.max_holding_bars": 6, **OPTIONS[name]})
    state = TradeState.fresh(params, len(bars.symbols))
    return bars, params, state, run_trade(bars, action, confidence, params, state), action, confidence


@pytest.mark.parametrize("has_funding", [False, True])
@pytest.mark.parametrize("name", ["default", "many_trades", "delist", "costly", *FILLS])
def test_cash_and_holdings_are_equity_at_every_bar(name, has_funding):
    """Cash comes from the ledger and the funding paid, holdings from the positions; nothing else is equity."""
    bars = awkward_bars(300, 3)
    bars = with_funding(bars, funding_for(bars, 3)) if has_funding else bars
    action, confidence = votes_for(bars, 3)
    params = PUBLISHED.with_values({"broker.max_holding_bars": 6, **OPTIONS[name]})
    state, spent = TradeState.fresh(params, len(bars.symbols)), 0.0
    for t in range(bars.n):
        rows = slice(t, t + 1)
        result = run_trade(bars[rows], action[rows], confidence[rows], params, state)
        spent += float(np.sum(result.fills["qty"] * result.fills["price"] + result.fills["fee"]))
        held = state.positions[state.positions["qty"] != 0.0]
        cash = CASH - spent + state.account["funding"][0]
        assert result.equity[0] == pytest.approx(cash + np.sum(held["qty"] * held["last_close"]), abs=1e-9 * CASH)


@pytest.mark.parametrize("name", ["default", "many_trades", "last_50", *FILLS])
def test_the_ledger_adds_up_and_replays_to_the_final_state(name):
    _, params, state, result, *_ = run(name)
    assert_ledger_replays(result.fills, state, params)
    assert state.account["fees"][0] == pytest.approx(result.fills["fee"].sum(), rel=1e-12)
    assert state.account["balance"][0] == pytest.approx(CASH + result.fills["pnl"].sum(), rel=1e-12)


@pytest.mark.parametrize("has_funding", [False, True])
def test_every_position_is_closed_once_and_the_balance_is_the_sum_of_the_trades(has_funding):
    bars, params, state, result, *_ = run("many_trades", has_funding=has_funding)
    end, last = finish(state, int(bars.close_time[-1]), params)
    fills = np.concatenate([result.fills, last])
    opened, closed = fills["trade_id"][fills["is_entry"] == 1], fills["trade_id"][fills["is_entry"] == 0]
    assert_same_bits(opened, np.arange(len(opened)))
    assert_same_bits(np.sort(closed), np.arange(len(opened)))
    assert end.account["balance"][0] == pytest.approx(CASH + fills["pnl"].sum(), rel=1e-12)
    assert end.account["balance"][0] == end.account["equity"][0]
    by_id = np.argsort(closed)
    qty = fills["qty"]
    assert_same_bits(qty[fills["is_entry"] == 1], -qty[fills["is_entry"] == 0][by_id])


def test_a_flat_book_earns_nothing():
    bars, params = awkward_bars(200, 1), PUBLISHED
    state = TradeState.fresh(params, len(bars.symbols))
    result = run_trade(bars, np.ones(bars.close.shape, np.int8), np.ones(bars.close.shape), params, state)
    assert set(result.equity) == {CASH}
    assert (len(result.fills), result.pnl.any(), set(result.governor_reason.ravel())) == (0, False, {int(Reason.HOLD_SIGNAL)})


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_the_slices_add_up_to_the_total(name):
    """D-94: the PnL of every cell, grouped by any regime, is the change of equity without a rest."""
    _, params, _, result, *_ = run(name, has_funding=True)
    cells, cash = cell_pnl(result.pnl), params.broker.initial_cash
    regime = np.random.default_rng(0).integers(0, 9, cells.shape)
    slices = sum(float(cells[regime == r].sum()) for r in range(9))
    assert abs(slices - (result.equity[-1] - cash)) <= 1e-9 * cash
    steps = np.diff(np.concatenate([[cash], result.equity]))
    np.testing.assert_allclose(result.pnl.sum(axis=1), steps, atol=1e-9 * cash)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_what_the_governor_promises(name):
    """G-1 size limit, G-2 exposure limit, G-5 kill switch, O-5 and O-6 on every cell."""
    bars, params, _, result, action, confidence = run(name)
    assert len(result.fills) <= fill_capacity(params, bars.close_time, len(bars.symbols))
    g = params.governor
    base = result.equity if g.drawdown_basis.name == "EQUITY" else result.balance
    approved = result.governor_reason == Reason.APPROVED
    assert_same_bits(approved, result.final_action != 1)
    assert np.array_equal(result.final_action[approved], action[approved])
    assert np.all(confidence[approved] >= g.min_confidence)
    assert np.array_equal(np.sign(result.size[approved]), action[approved] - 1.0)
    assert not result.size[~approved].any()
    if g.emergency_stop:
        assert not approved.any()
    if not params.broker.fill.is_at_close:
        assert np.all(np.abs(result.size) <= (base * g.max_position)[:, None] * (1.0 + 1e-12))
        if g.exposure_mode.name == "PROJECTED":
            rows = approved.any(axis=1)
            assert np.all(result.exposure[rows] <= (base * g.max_exposure)[rows])


def test_metrics_equal_numpy_and_any_cut():
    _, _, _, result, *_ = run("many_trades", has_funding=True)
    whole = metrics_of(result.equity, result.worth, result.fills, CASH)
    parts = init_metrics(CASH)
    bars_of_fills = result.fills["bar"]
    for a, b in zip([0, 1, 1, 150], [1, 1, 150, 400]):
        fills = result.fills[(bars_of_fills >= a) & (bars_of_fills < b)]
        update_metrics(slab(parts), result.equity[a:b], result.worth[a:b], slab(fills))
    assert_same_bits(whole, parts)
    expected = naive.metrics(result.equity.tolist(), result.worth.tolist(), result.fills, CASH)
    for name, value in expected.items():
        assert whole[name][0] == value, name


def test_the_summary_equals_the_textbook():
    _, _, _, result, *_ = run("many_trades")
    got = summarise(metrics_of(result.equity, result.worth, result.fills, CASH), 8766.0)
    equity = np.concatenate([[CASH], result.equity])
    ret = equity[1:] / equity[:-1] - 1.0
    centred = ret - ret.mean()
    peak = np.maximum.accumulate(equity)
    pnl = result.fills["pnl"][result.fills["is_entry"] == 0]
    expected = {
        "total_return": equity[-1] / CASH - 1.0,
        "volatility": ret.std(ddof=1) * np.sqrt(8766.0),
        "sharpe": ret.mean() / ret.std(ddof=1) * np.sqrt(8766.0),
        "skew": (centred**3).mean() / (centred**2).mean() ** 1.5,
        "kurtosis": (centred**4).mean() / (centred**2).mean() ** 2,
        "max_drawdown": ((peak - equity) / peak).max(),
        "mean_exposure": (result.worth / result.equity).mean(),
        "turnover": result.fills["notional"].sum() / CASH,
        "win_rate": (pnl > 0).mean(),
        "profit_factor": pnl[pnl > 0].sum() / -pnl[pnl < 0].sum(),
        "average_trade": pnl.mean(),
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-8), name  # power sums lose a few digits against centred ones
    assert (got["n_trades"], got["n_stops"]) == (len(result.fills) - len(pnl), int((result.fills["reason"] == Reason.STOP).sum()))
    empty = summarise(init_metrics(CASH), 8766.0)
    assert empty["total_return"] == 0.0
    assert np.isnan([empty[name] for name in ("sharpe", "win_rate", "profit_factor", "mean_exposure")]).all()
