"""How long does money take? ns per bar and symbol for 19 symbols x 4,380 bars, and against vectorbt on the same fills.

Run with `pytest tests/bench/bench_trade.py --benchmark-enable`. What is timed is checked against the naive chain in
tests/qtcore/test_trade.py, and against vectorbt here.
"""

import time

import numpy as np
import pytest

from qtcore.chain.decide import decide
from qtcore.chain.flow import flow, flows
from qtcore.chain.trade import UNASKED, UNPRICED, TradeState, fill_capacity, run_trade, trade
from qtcore.features import Planes
from qtcore.jit import kernel
from qtcore.types import FILL, NS_PER_HOUR, Bars, Decisions, Votes
from tests.conftest import START
from tests.research.runs.test_vectorbt import as_orders
from tests.support import PUBLISHED

N, S = 4_380, 19
BUSY = {"broker.max_holding_bars": 5, "governor.max_drawdown": 1.0}  # the daily limit binds all year: 9 % of cells fill
CALM = {**BUSY, "governor.max_daily_trades": 7}  # 3 %
TARGETS = {"busy": 8.0, "calm": 4.0}  # ns per bar and symbol, votes to equity


def market(seed: int = 0) -> Bars:
    """Random-walk candles with 0.6 % an hour."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.006, (N, S)), axis=0))
    open_ = np.vstack([close[:1], close[:-1]])
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0.0, 0.003, (N, S))))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0.0, 0.003, (N, S))))
    open_time = START + NS_PER_HOUR * np.arange(N)
    symbols = tuple(f"S{s}" for s in range(S))
    return Bars(open_time, open_time + NS_PER_HOUR, open_, high, low, close, np.ones((N, S)), symbols, NS_PER_HOUR)


def four_voters(seed: int = 1) -> tuple[Votes, np.ndarray, np.ndarray]:
    """Votes that agree as often as real models do (each follows a common opinion two times in three), arbiter and regime inputs."""
    rng = np.random.default_rng(seed)
    common = rng.choice(np.array([0, 1, 2], np.int8), (N, S), p=[0.2, 0.6, 0.2])
    own = rng.choice(np.array([0, 1, 2], np.int8), (5, N, S), p=[0.2, 0.6, 0.2])
    action = np.where(rng.random((5, N, S)) < 0.67, common, own).astype(np.int8)
    confidence = rng.uniform(0.5, 0.95, (5, N, S))
    action[4], confidence[4] = -1, np.nan
    arbiter = rng.normal(0.0, 0.05, (6, N, S)) + np.array([50.0, 0.0, 0.0, 0.5, 1.0, 0.0])[:, None, None]
    return Votes(action, confidence), arbiter, rng.random((2, N, S))


class Loop:
    """Reused buffers around the kernel, as a caller that runs block after block has them."""

    def __init__(self, values, bars, action, confidence):
        self.params, self.bars = PUBLISHED.with_values(values), bars
        codes, planes, lines = np.empty((2, N, S), np.int8), np.empty((2, N, S)), np.empty((4, N))
        self.ledger = np.empty(fill_capacity(self.params, bars.close_time, S), FILL)
        self.prices = (bars.open, bars.high, bars.low, bars.close, np.empty((0, 0)), UNASKED, bars.open_time, bars.close_time)
        self.votes, self.record, self.scratch = (action, confidence), self.params.record(), np.empty((2, S), np.uintp)
        self.out = (codes[0], codes[1].view(np.uint8), planes[0], planes[1], *lines, self.ledger)

    def run(self) -> int:
        state = TradeState.fresh(self.params, S)
        arrays = state.account, state.positions, state.closed, state.lasts
        return trade(*self.prices, *self.votes, *UNPRICED, self.record, *arrays, self.scratch, *self.out)


def best_of(function, n: int = 30) -> float:
    """Shortest of n calls, seconds; the first compiles."""
    function()
    times = []
    for _ in range(n):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def report(benchmark, function, unit_count: int, unit: str) -> float:
    """Let pytest-benchmark time `function`; note and return ns per unit."""
    benchmark.pedantic(function, rounds=50 if benchmark.enabled else 1, warmup_rounds=1)
    ns = benchmark.stats.stats.min / unit_count * 1e9 if benchmark.enabled else np.nan
    benchmark.extra_info[unit] = ns
    return ns


@pytest.fixture(scope="module")
def opinion():
    votes, arbiter, regime = four_voters()
    return votes, arbiter, regime, decide(votes, arbiter, regime, PUBLISHED)


@pytest.mark.parametrize(("name", "values", "share"), [("busy", BUSY, 0.08), ("calm", CALM, 0.025)])
def test_trade(benchmark, opinion, name, values, share):
    decisions = opinion[3]
    loop = Loop(values, market(), decisions.raw_action, decisions.raw_confidence)
    assert share <= loop.run() / (N * S) <= 0.1
    report(benchmark, loop.run, N * S, "ns per bar and symbol")


@pytest.mark.parametrize(("name", "values"), [("busy", BUSY), ("calm", CALM)])
def test_votes_to_equity(benchmark, opinion, name, values):
    """As `Engine.run` does it: fresh outputs, no decisions written down."""
    votes, arbiter, regime, _ = opinion
    bars, params = market(), PUBLISHED.with_values(values)
    planes = Planes(np.concatenate([arbiter, regime]), {}, np.ones((N, S), np.bool_))
    assert flows(params, N * S)
    benchmark.extra_info["target"] = TARGETS[name]
    report(benchmark, lambda: flow(bars, votes, planes, params, TradeState.fresh(params, S)), N * S, "ns per bar and symbol")


@pytest.mark.parametrize(("name", "values"), [("busy", BUSY), ("calm", CALM)])
def test_votes_to_equity_with_every_decision(benchmark, opinion, name, values):
    votes, arbiter, regime, _ = opinion
    out, params = Decisions.empty(N, S), PUBLISHED.with_values(values)
    loop = Loop(values, market(), out.raw_action, out.raw_confidence)

    def chain():
        decide(votes, arbiter, regime, params, out=out)
        return loop.run()

    report(benchmark, chain, N * S, "ns per bar and symbol")


def test_one_bar_from_a_kernel(benchmark, opinion):
    decisions, bars = opinion[3], market()
    loop = Loop(BUSY, bars, decisions.raw_action, decisions.raw_confidence)

    def bar_by_bar():
        state = TradeState.fresh(loop.params, S)
        arrays = state.account, state.positions, state.closed, state.lasts
        return one_by_one(*loop.prices, *loop.votes, *UNPRICED, loop.record, *arrays, loop.scratch, *loop.out)

    assert bar_by_bar() == loop.run()
    report(benchmark, bar_by_bar, N, "ns per bar of 19 symbols")


@kernel
def one_by_one(
    open_, high, low, close, funding, traded, open_time, close_time, action, confidence, gross, edge, risk, forecast, beta, holding, params,
    account, positions, closed, lasts, scratch, final_action, reasons, size, pnl, equity, balance, exposure, worth, fills,
):  # fmt: skip
    """Call `trade` with one bar at a time."""
    k = 0
    for t in range(close.shape[0]):
        i = slice(t, t + 1)
        k += trade(
            open_[i], high[i], low[i], close[i], funding, traded, open_time[i], close_time[i], action[i], confidence[i], gross, edge, risk,
            forecast, beta, holding, params, account, positions, closed, lasts, scratch,
            final_action[i], reasons[i], size[i], pnl[i], equity[i], balance[i], exposure[i], worth[i], fills,
        )  # fmt: skip
    return k


def test_against_vectorbt(benchmark, opinion):
    """The same fills to an equity curve: vectorbt's public call on sub-rows against votes to equity, both in this run."""
    vbt = pytest.importorskip("vectorbt", reason="vectorbt is not installed; it is the extra `vectorbt`")
    votes, arbiter, regime, decisions = opinion
    bars, params = market(), PUBLISHED.with_values(BUSY)
    result = run_trade(bars, decisions.raw_action, decisions.raw_confidence, params, TradeState.fresh(params, S))
    size, price, value = as_orders(bars, result.fills)
    options = {"fees": params.broker.fee_rate, "init_cash": params.broker.initial_cash, "cash_sharing": True, "group_by": True}

    def theirs():
        return vbt.Portfolio.from_orders(value, size, price=price, size_type="amount", direction="both", freq="15min", **options).value()

    def ours():
        out = decide(votes, arbiter, regime, params)
        return run_trade(bars, out.raw_action, out.raw_confidence, params, TradeState.fresh(params, S))

    np.testing.assert_allclose(theirs().to_numpy()[3::4], result.equity, rtol=1e-9)
    ns = report(benchmark, ours, N * S, "ns per bar and symbol")
    if benchmark.enabled:
        ratio = best_of(theirs, 5) / (N * S) * 1e9 / ns
        benchmark.extra_info["times faster than vectorbt on 4 sub-rows a bar"] = ratio
        benchmark.extra_info["times faster than vectorbt per row"] = ratio / 4.0
        assert ratio >= 22.0
