"""How fast is a sweep? ns per setting, bar and symbol, and against vectorbt's Rust engine in chunks of 50 settings.

1,000 settings x 19 symbols x 4,380 bars, shared cash. `pytest tests/bench/bench_sweep.py --benchmark-enable`. That a row is its own
backtest is checked in tests/qtcore/test_sweep.py, and for some rows here. Time of the processor is told beside the clock's: a machine that
does other work stretches the second more than the first.
"""

import time
import tracemalloc

import numpy as np
import pytest

from qtcore.chain.decide import decide
from qtcore.chain.trade import TradeState, run_trade
from qtcore.metrics import metrics_of
from qtcore.sweep import Driver, Market, drivers, sweep
from qtcore.sweep import rows as rows_module
from tests.bench.bench_trade import N, S, four_voters, market
from tests.support import PUBLISHED

P, CHUNK = 1_000, 50  # settings; of one call of vectorbt, which keeps [n, settings * S] arrays
CELLS = P * N * S
CHAIN = {"broker.max_holding_bars": 24}
FREE = {  # thresholds alone: no rule of the governor ever hits
    "broker.max_holding_bars": 1_000_000,
    "governor.max_drawdown": 1.0,
    "governor.max_exposure": 10.0,
    "governor.max_position": 0.01,
    "governor.cooldown_minutes": 0,
    "governor.max_daily_trades": 1_000_000,
    "governor.stop_loss": 1.0,
}


def settings(kind: str) -> np.ndarray:
    """1,000 rows: drawn at random, or the sorted grid of 40 x 25 thresholds."""
    rng = np.random.default_rng(0)
    rows = np.repeat(PUBLISHED.with_values(FREE if kind == "thresholds" else CHAIN).record(), P)
    grid = np.linspace(0.05, 0.30, 25)[:, None], np.linspace(0.50, 0.80, 40)[None, :]
    score, confidence = (np.broadcast_to(axis, (25, 40)).ravel() for axis in grid)
    if kind == "random":
        score, confidence = rng.uniform(0.05, 0.30, P), rng.uniform(0.50, 0.80, P)
        rows["governor"]["stop_loss"] = rng.uniform(0.005, 0.05, P)
        rows["governor"]["max_daily_trades"] = rng.integers(2, 40, P)
    rows["arbiter"]["score_threshold"], rows["governor"]["min_confidence"] = score, confidence
    return rows


@pytest.fixture(scope="module")
def world():
    return market(), *four_voters()


@pytest.fixture(scope="module")
def vectorbt_ns(world):
    """Measure vectorbt, ns by the clock and of processor time.

    The ensemble's action enters above a confidence and leaves on the opposite signal, cash shared by 19 symbols.
    """
    vbt = pytest.importorskip("vectorbt", reason="vectorbt is not installed; it is the extra `vectorbt`")
    bars, votes, arbiter, regime = world
    decisions = decide(votes, arbiter, regime, PUBLISHED)
    action, confidence = decisions.raw_action, decisions.raw_confidence
    limits = settings("sorted")["governor"]["min_confidence"][:CHUNK]

    def run() -> tuple[float, float]:
        strong = confidence[:, None, :] >= limits[None, :, None]
        long = (strong & (action == 2)[:, None, :]).reshape(N, -1)
        short = (strong & (action == 0)[:, None, :]).reshape(N, -1)
        close = np.tile(bars.close, (1, CHUNK))
        options = {"size": 500.0, "size_type": "value", "fees": 0.0004, "slippage": 0.0001, "init_cash": 10_000.0, "freq": "1h"}
        shared = {"group_by": np.repeat(np.arange(CHUNK), S), "cash_sharing": True, "upon_opposite_entry": "close", "engine": "rust"}
        start, spent = time.perf_counter(), time.process_time()
        done = vbt.Portfolio.from_signals(close, long, short, short_entries=short, short_exits=long, **options, **shared)
        done.value()
        done.max_drawdown()
        return time.perf_counter() - start, time.process_time() - spent

    run()
    return np.min([run() for _ in range(3)], axis=0) / (CHUNK * N * S) * 1e9


@pytest.mark.parametrize("driver", ["lanes", "plain"])
@pytest.mark.parametrize("kind", ["random", "sorted", "thresholds"])
def test_sweep(benchmark, monkeypatch, world, vectorbt_ns, kind, driver):
    bars, votes, arbiter, regime = world
    case, rows = Market.of(bars, votes, arbiter, regime), settings(kind)
    if driver == "plain":
        monkeypatch.setattr(rows_module, "suited", lambda bars, records: np.full(len(records), Driver.FEW))
    assert set(drivers(case, rows)) == {Driver.LANES if driver == "lanes" else Driver.FEW}
    got, _ = sweep(case, rows[:32])
    params = PUBLISHED.with_values(FREE if kind == "thresholds" else CHAIN)
    for i in (0, 7):
        values = {f"governor.{name}": rows[i]["governor"][name].item() for name in ("min_confidence", "stop_loss", "max_daily_trades")}
        values["arbiter.score_threshold"] = rows[i]["arbiter"]["score_threshold"].item()
        own = params.with_values(values)
        decisions = decide(votes, arbiter, regime, own)
        result = run_trade(bars, decisions.raw_action, decisions.raw_confidence, own, TradeState.fresh(own, S))
        assert metrics_of(result.equity, result.worth, result.fills, 10_000.0).tobytes() == got[i : i + 1].tobytes()
    if not benchmark.enabled:
        benchmark(lambda: None)
        return
    spent = []

    def run():
        start = time.process_time()
        sweep(case, rows)
        spent.append(time.process_time() - start)

    benchmark.pedantic(run, rounds=5)
    ns = benchmark.stats.stats.min / CELLS * 1e9
    benchmark.extra_info["ns per setting, bar and symbol, all threads"] = ns
    own = min(spent) / CELLS * 1e9
    benchmark.extra_info["ns of processor time per setting, bar and symbol"] = own
    benchmark.extra_info["times faster than vectorbt's Rust engine in chunks of 50"] = float(vectorbt_ns[0] / ns)
    benchmark.extra_info["times less processor time than vectorbt"] = float(vectorbt_ns[1] / own)


@pytest.mark.parametrize("n_rows", [100, P])
def test_memory_of_a_sweep(benchmark, world, n_rows):
    bars, votes, arbiter, regime = world
    case, rows = Market.of(bars, votes, arbiter, regime), settings("sorted")[:n_rows]
    benchmark.pedantic(sweep, (case, rows[:20]), rounds=1)
    tracemalloc.start()
    sweep(case, rows)
    benchmark.extra_info["MB beyond the shared arrays, seen from Python"] = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
