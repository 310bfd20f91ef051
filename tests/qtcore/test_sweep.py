"""Is a row of a sweep the backtest of its parameters, to the bit, whatever runs beside it?"""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore import Engine, InputError
from qtcore.chain.decide import decide
from qtcore.chain.trade import TradeState, run_trade
from qtcore.features import FeatureBank
from qtcore.metrics import metrics_of
from qtcore.rules import Reason
from qtcore.sweep import Driver, Market, drivers, equity_at, note_ends, run_order, sweep
from qtcore.sweep import market as market_module
from qtcore.sweep import rows as rows_module
from qtcore.sweep.rows import driver_name
from qtcore.types import METRICS, REGIME_METRICS
from tests.conftest import assert_same_bits, awkward_bars
from tests.naive import sweep as naive
from tests.qtcore.test_naive_chain import random_market, random_meta, random_votes
from tests.qtcore.test_trade import RUINED
from tests.support import PUBLISHED
from tests.support.priced import priced_world

N, S = 420, 4
BLOCK = 150 * S  # cells: three blocks, the last one short
FREE = {"broker.max_holding_bars": 5, "governor.max_drawdown": 1.0}


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    monkeypatch.setattr(market_module, "BLOCK", BLOCK)


LEAST = {"lanes": 1, "plain": 1_000}  # rows that are worth a chunk of lanes: every single one, or more than a test has


@contextmanager
def driver(name):
    """Give every row that fits lanes to the driver `name`, however few there are."""
    before, rows_module.LEAST = rows_module.LEAST, LEAST[name]
    try:
        yield
    finally:
        rows_module.LEAST = before


def world(seed: int = 3, funding: bool = False, meta: bool = False):
    """Bars, votes, indicators and regimes that reach every threshold."""
    rng = np.random.default_rng(seed)
    bars = awkward_bars(N, seed, S)
    if funding:
        bars = replace(bars, funding=np.where((np.arange(N) % 8 == 0)[:, None], 1e-4, np.zeros(bars.close.shape)))
    arbiter, regime = random_market(rng, N, S)
    probs = random_meta(rng, N, S) if meta else None
    return SimpleNamespace(bars=bars, votes=random_votes(rng, N, S), arbiter=arbiter, regime=regime, probs=probs)


def market_of(w, cells=None):
    problem = None if w.probs is None else np.full(N, int(Reason.PREDICTION_ERROR))
    prices = getattr(w, "pricing", None), getattr(w, "maps", None)
    return Market.of(w.bars, w.votes, w.arbiter, w.regime, cells, w.probs, problem, *prices)


def alone(w, params):
    """The same chain without the sweep."""
    problem = Reason.MODEL_NOT_LOADED if w.probs is None else Reason.PREDICTION_ERROR
    decisions = decide(w.votes, w.arbiter, w.regime, params, w.probs, meta_problem=problem)
    return run_trade(w.bars, decisions.raw_action, decisions.raw_confidence, params, TradeState.fresh(params, S))


def records(rows):
    return np.concatenate([row.record() for row in rows])


def assert_rows_are_runs(w, rows):
    got = {}
    for name in LEAST:
        with driver(name):
            got[name] = sweep(market_of(w), records(rows))[0]
    for i, params in enumerate(rows):
        result = alone(w, params)
        want = metrics_of(result.equity, result.worth, result.fills, params.broker.initial_cash)[0]
        for name, table in got.items():
            for column in METRICS.names:
                assert_same_bits(table[i][column], want[column], f"{name}: {column}")


def stepping(w, n_symbols=S):
    """The same world with steps of x30 and back in every symbol, at other bars in each: whoever is short there has nothing left."""
    factor = np.where((np.arange(N)[:, None] + 17 * np.arange(n_symbols)) // 50 % 2 == 1, 30.0, 1.0)
    planes = {name: getattr(w.bars, name) * factor for name in ("open", "high", "low", "close")}
    return SimpleNamespace(**{**vars(w), "bars": replace(w.bars, **planes)})


WORLDS = {"plain": world(), "funded": world(4, funding=True), "learned": world(5, meta=True)}
WORLDS["priced"] = priced_world(N, S, 6)
WORLDS["stepping"] = stepping(WORLDS["funded"])
THRESHOLDS = st.fixed_dictionaries(
    {
        "governor.min_confidence": st.sampled_from([0.0, 0.55, 0.6, 0.65, 0.775, 0.9]),
        "governor.stop_loss": st.sampled_from([0.005, 0.02, 0.3]),
        "governor.max_exposure": st.sampled_from([0.1, 0.5, 2.0]),
        "governor.max_daily_trades": st.sampled_from([0, 2, 20]),
        "governor.max_drawdown": st.sampled_from([0.01, 0.05, 1.0]),
        "governor.cooldown_minutes": st.sampled_from([0, 60, 600]),
        "broker.max_holding_bars": st.sampled_from([1, 5, 24]),
        "broker.fee_rate": st.sampled_from([0.0, 0.0004]),
        "broker.slippage_rate": st.sampled_from([0.0, 0.0001, 0.01]),
        "broker.delist_after": st.sampled_from([1, 3, 24]),
        "governor.max_position": st.sampled_from([0.0, 0.05, 1.0]),
        "governor.kelly_fraction": st.sampled_from([0.0, 0.25, 1.0]),
        "governor.payoff": st.sampled_from([0.5, 1.5, 3.0]),
        "broker.initial_cash": st.sampled_from([500.0, 10_000.0]),
        "arbiter.score_threshold": st.sampled_from([0.0, 0.05, 0.15, 0.3]),
        "arbiter.gate_confidence": st.sampled_from([0.0, 0.7, 0.8, 0.95]),
        "arbiter.enabled": st.booleans(),
        "meta.enabled": st.booleans(),
        "meta.low_confidence": st.sampled_from([0.0, 0.55, 0.8]),
        "meta.consensus_threshold": st.sampled_from([0.0, 0.5, 0.75, 1.0]),
        "meta.disagreement_threshold": st.sampled_from([0.0, 0.4, 0.5, 1.0]),
        "meta.entropy_threshold": st.sampled_from([0.3, 0.8]),
    }
)
MODES = [
    {},
    {"meta.mode": "override"},
    {"meta.mode": "v5"},
    {"meta.variant": "learned"},
    {"meta.policy_base": "score", "meta.missing_fill": "hold_half"},
    {"ensemble.weights": [0.1, 0.1, 0.1, 0.9, 0.0]},
    {"ensemble.weights": [0.1, 0.1, 0.2, 0.9, 0.3], "ensemble.tie_break": "order"},
    {"ensemble.regime_factors": [0.5 + 0.1 * (i % 7) for i in range(45)]},
    {"ensemble.multipliers": [0.8, 0.9, 1.0, 1.1]},
    {"governor.order": "by_confidence", "broker.fill": "close"},
    {"broker.fill": "next_close", "broker.impact": 0.2},
    {"broker.fill": "one_bar_later"},
    {"broker.fill": "worst"},
    {"governor.cooldown_scope": "last_50", "governor.sizing_mode": "kelly_empirical", "governor.exposure_mode": "existing"},
    {"governor.drawdown_basis": "balance", "governor.drawdown_reset": "daily"},
    {"governor.emergency_stop": True},
    {"governor.sizing_mode": "kelly_confidence", "governor.exposure_mode": "existing", "broker.allow_short": False},
    {"governor.drawdown_reset": "manual", "governor.reference_confidence": 0.5},
    {**RUINED, "governor.drawdown_reset": "daily"},
    {**RUINED, "governor.drawdown_basis": "balance", "governor.exposure_mode": "existing"},
]
PLAIN_ONLY = ({"governor.order": "by_confidence"}, {"broker.fill": "close"}, {"governor.cooldown_scope": "last_50"})
PLAIN_ONLY = (*PLAIN_ONLY, {"governor.sizing_mode": "kelly_empirical"}, {"broker.impact": 0.1}, {"broker.fill": "next_close"})
PLAIN_ONLY = (*PLAIN_ONLY, {"broker.fill": "one_bar_later"}, {"broker.fill": "worst"})


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(sorted(WORLDS)), rows=st.lists(st.tuples(THRESHOLDS, st.sampled_from(MODES)), min_size=1, max_size=9))
def test_a_row_has_the_bits_of_its_run(name, rows):
    assert_rows_are_runs(WORLDS[name], [PUBLISHED.with_values(a | b) for a, b in rows])


def test_every_mode_beside_every_other():
    rows = [PUBLISHED.with_values({**FREE, **mode, "arbiter.score_threshold": t}) for t in (0.05, 0.15) for mode in MODES]
    for w in WORLDS.values():
        assert_rows_are_runs(w, rows)


def draw(rng, n):
    """PARAMS [n] with everything drawn that lanes may differ in."""
    rows = np.repeat(PUBLISHED.with_values(FREE).record(), n)
    drawn = {
        "meta.low_confidence": rng.uniform(0.4, 0.9, n),
        "meta.consensus_threshold": rng.choice([0.5, 0.75, 1.0], n),
        "arbiter.score_threshold": rng.uniform(0.0, 0.3, n),
        "arbiter.gate_confidence": rng.uniform(0.6, 0.9, n),
        "arbiter.enabled": rng.random(n) < 0.9,
        "governor.min_confidence": rng.uniform(0.4, 0.8, n),
        "governor.max_position": rng.uniform(0.01, 0.5, n),
        "governor.max_exposure": rng.uniform(0.1, 1.0, n),
        "governor.max_drawdown": rng.uniform(0.02, 1.0, n),
        "governor.kelly_fraction": rng.uniform(0.1, 1.0, n),
        "governor.win_rate": rng.uniform(0.4, 0.7, n),
        "governor.payoff": rng.uniform(0.8, 3.0, n),
        "governor.cooldown_minutes": rng.integers(0, 900, n),
        "governor.max_daily_trades": rng.integers(0, 12, n),
        "governor.stop_loss": rng.uniform(0.001, 0.1, n),
        "governor.drawdown_reset": rng.choice([0, 1], n),
        "governor.drawdown_basis": rng.choice([0, 1], n),
        "broker.initial_cash": rng.uniform(100.0, 1e6, n),
        "broker.fee_rate": rng.uniform(0.0, 0.002, n),
        "broker.slippage_rate": rng.uniform(0.0, 0.002, n),
        "broker.max_holding_bars": rng.integers(1, 40, n),
        "broker.delist_after": rng.integers(1, 30, n),
        "broker.allow_short": rng.random(n) < 0.8,
    }
    for name, column in drawn.items():
        layer, key = name.split(".")
        rows[layer][key] = column
    return rows


@settings(max_examples=12, deadline=None)
@given(name=st.sampled_from(["funded", "learned", "plain"]), seed=st.integers(0, 2**32 - 1))
def test_lanes_have_the_bits_of_the_plain_driver(name, seed):
    rng, market = np.random.default_rng(seed), market_of(WORLDS[name])
    rows, ends = draw(rng, 300), np.sort(rng.choice(N, 5, replace=False))
    with driver("lanes"):
        assert set(drivers(market, rows)) == {Driver.LANES}
        got, equity = sweep(market, rows)[0], equity_at(market, rows, ends)
    parts = np.array_split(rows, 10)  # fewer than a chunk each
    with driver("plain"):
        assert set(drivers(market, parts[0])) == {Driver.FEW}
        want = np.concatenate([sweep(market, part)[0] for part in parts])
        assert_same_bits(equity, np.concatenate([equity_at(market, part, ends) for part in parts]))
    for column in METRICS.names:
        assert_same_bits(got[column], want[column], column)
    assert len(np.unique(got["last_equity"])) > 150
    assert got["n_stops"].sum() > 1_000


@pytest.mark.parametrize("name", ["plain", "funded", "learned"])
def test_ruined_lanes_have_the_bits_of_the_plain_driver(name):
    """Lanes are ruined in different bars, beside others that go on."""
    w, rows = stepping(WORLDS[name]), draw(np.random.default_rng(2), 128)
    rows["governor"]["max_drawdown"] = 1.0
    rows["governor"]["max_position"] = 0.5
    rows["governor"]["max_exposure"] = np.linspace(0.5, 5.0, 128)
    rows["governor"]["stop_loss"] = np.repeat([0.02, 1.0], 64)
    rows["broker"]["fee_rate"] = 0.0004
    market, ends = market_of(w), np.arange(N)
    with driver("lanes"):
        got, equity = sweep(market, rows)[0], equity_at(market, rows, ends)
    with driver("plain"):
        parts = np.array_split(rows, 8)
        assert_same_bits(equity, np.concatenate([equity_at(market, part, ends) for part in parts]))
        want = np.concatenate([sweep(market, part)[0] for part in parts])
    for column in METRICS.names:
        assert_same_bits(got[column], want[column], column)
    ruined = got["last_equity"] == 0.0
    assert 10 < ruined.sum() < 118
    assert (equity >= 0.0).all()
    assert len(np.unique(np.argmax(equity == 0.0, axis=1)[ruined])) > 2
    assert (got["max_drawdown"][ruined] == 1.0).all()


def test_what_looks_at_lists_of_trades_takes_the_plain_driver():
    market = market_of(WORLDS["plain"])
    for values in PLAIN_ONLY:
        codes = drivers(market, records([PUBLISHED.with_values(FREE | values)] * 64))
        assert {driver_name(code) for code in codes.tolist()} == set(values)
    some = records([PUBLISHED.with_values(FREE)] * 70 + [PUBLISHED.with_values(FREE | PLAIN_ONLY[0])] * 30)
    names = [driver_name(code) for code in drivers(market, some).tolist()]
    assert names == ["lanes"] * 64 + ["few"] * 6 + ["governor.order"] * 30
    cells = np.zeros((N, S), np.int8)
    assert set(drivers(market_of(WORLDS["plain"], cells), some)) == {Driver.REGIMES}
    assert len(drivers(market, some[:0])) == 0


def test_rows_in_the_order_of_the_drivers_make_the_chunks_of_the_whole():
    market = market_of(WORLDS["plain"])
    rows = np.concatenate([draw(np.random.default_rng(5), 300), records([PUBLISHED.with_values(FREE | PLAIN_ONLY[0])] * 9)])
    order = run_order(market, rows)
    assert sorted(order) == list(range(309))
    is_lane = drivers(market, rows)[order] == Driver.LANES
    n_lanes = int(is_lane.sum())
    assert is_lane[:n_lanes].all()
    whole = rows_module.cut(market.bars, rows, False).rows
    start = 0
    for chunk in whole:
        own = np.unique(chunk)
        assert set(order[start : start + len(own)]) == set(own)
        start += len(own)
    assert start == n_lanes
    assert sorted(run_order(market_of(WORLDS["plain"], np.zeros((N, S), np.int8)), rows)) == list(range(309))
    assert len(run_order(market, rows[:0])) == 0


def test_times_that_lanes_cannot_hold_take_the_plain_driver():
    w = WORLDS["plain"]
    bars = w.bars
    assert rows_module.time_unit(bars, 60) % 60_000_000_000 == 0
    start = bars.open_time[0]
    far = {name: start + (getattr(bars, name) - start) * 10 + np.arange(N) % 2 for name in ("open_time", "close_time")}
    odd = replace(bars, **far)  # half a year in single nanoseconds
    assert rows_module.time_unit(odd, 60) == 0
    assert set(drivers(Market.of(odd, w.votes, w.arbiter, w.regime), records([PUBLISHED.with_values(FREE)] * 64))) == {Driver.TIMES}
    late = replace(bars, close_time=bars.close_time - 1)  # 23:59:59.999999999
    assert rows_module.time_unit(late, 60) == 1
    rows = draw(np.random.default_rng(1), 64)
    market = Market.of(late, w.votes, w.arbiter, w.regime)
    with driver("lanes"):
        assert set(drivers(market, rows)) == {Driver.LANES}
        got = sweep(market, rows)[0]
    with driver("plain"):
        assert_same_bits(got, np.concatenate([sweep(market, part)[0] for part in np.array_split(rows, 2)]))


def test_a_row_has_the_bits_of_the_engine():
    w = WORLDS["plain"]
    planes = FeatureBank(PUBLISHED, w.bars.symbols, w.bars.interval, ()).compute(w.bars)
    rows = [PUBLISHED.with_values({**FREE, "governor.min_confidence": c}) for c in (0.5, 0.65, 0.8)]
    got, _ = sweep(Market.of(w.bars, w.votes, planes.arbiter, planes.regime), records(rows))
    for params, row in zip(rows, got, strict=True):
        result = Engine(params).run(w.bars, w.votes)
        want = metrics_of(result.equity, result.worth, result.fills, params.broker.initial_cash)
        assert_same_bits(row, want[0])
        assert row["n_trades"] > 20


def test_rows_do_not_know_of_each_other():
    rng = np.random.default_rng(0)
    rows = [
        PUBLISHED.with_values({**FREE, "arbiter.score_threshold": t, "governor.stop_loss": s})
        for t in (0.05, 0.1, 0.2)
        for s in (0.01, 0.02)
    ]
    market, given_rows = market_of(WORLDS["plain"]), records(rows)
    whole, _ = sweep(market, given_rows)
    order = rng.permutation(len(rows))
    for chunks in (1, 3, len(rows)):
        assert_same_bits(sweep(market, given_rows[order].copy(), chunks)[0], whole[order])
    assert len(np.unique(whole["last_equity"])) > 3


def test_rows_equal_the_naive_twin():
    w, flat = WORLDS["funded"], {}
    rows = [
        PUBLISHED.with_values({**FREE, "arbiter.score_threshold": t, "governor.min_confidence": c}) for t, c in ((0.05, 0.5), (0.2, 0.7))
    ]
    cells = np.random.default_rng(1).integers(0, 9, (N, S)).astype(np.int8)
    got, regimes = sweep(market_of(w, cells), records(rows))
    heads = [
        [[(int(a), float(c)) if a >= 0 else None for a, c in zip(w.votes.action[:, t, s], w.votes.confidence[:, t, s])] for s in range(S)]
        for t in range(N)
    ]
    planes = [[[plane[:, t, s].tolist() for s in range(S)] for t in range(N)] for plane in (w.arbiter, w.regime)]
    names = ("open_time", "close_time", "open", "high", "low", "close")
    flat = {k: getattr(w.bars, k).tolist() for k in names}
    twins = naive.sweep_rows(flat, heads, *planes, [row.flat() for row in rows], w.bars.funding.tolist())
    for (metrics, _), row, by_regime, params in zip(twins, got, regimes, rows, strict=True):
        for name in METRICS.names:
            assert row[name] == metrics[name], name
        result = alone(w, params)
        booked = naive.add_regimes(cells.tolist(), result.governor_reason.tolist(), result.pnl.tolist(), result.equity.tolist(), 10_000.0)
        for slot, want in zip(by_regime, booked, strict=True):
            for name in REGIME_METRICS.names:
                assert slot[name] == want[name], name
        assert by_regime["pnl"][:9].sum() == pytest.approx(row["last_equity"] - row["first_equity"], abs=1e-9 * row["first_equity"])
        assert by_regime["n_approved"][9:12].sum() == by_regime["n_approved"][:9].sum() > 0


def test_equity_at_the_bars_asked_for_is_that_of_the_run():
    w, rows = WORLDS["plain"], [PUBLISHED.with_values({**FREE, "governor.min_confidence": c}) for c in (0.5, 0.65, 0.8)]
    ends = np.array([0, 23, 149, 150, 151, 299, 300, N - 1])  # block edges among them
    got = equity_at(market_of(w), records(rows), ends)
    for params, row in zip(rows, got, strict=True):
        assert_same_bits(row, alone(w, params).equity[ends])
        assert row[0] != row[-1]


@pytest.mark.parametrize("ends", [[], [4], [5, 7, 9], [0, 5, 9, 10, 30]])
def test_ends_equal_the_naive_twin(ends):
    equity, got, want = np.arange(5.0) + 100.0, np.zeros(len(ends)), [0.0] * len(ends)
    note_ends(np.array(ends, np.int64), 5, equity, got)
    naive.note_ends(ends, 5, equity.tolist(), want)
    assert got.tolist() == want


def test_a_holding_time_left_to_the_label_is_refused():
    with pytest.raises(InputError, match=r"broker\.max_holding_bars must be above 0 in a sweep, was 0"):
        sweep(market_of(WORLDS["plain"]), PUBLISHED.record())


def test_no_settings_give_no_rows():
    assert len(sweep(market_of(WORLDS["plain"]), PUBLISHED.record()[:0])[0]) == 0
