"""How long does an opinion in money take, beside the published decision? ns per cell and setting; seconds for maps and seats.

19 symbols x 4,380 bars, four voters with probabilities. Run with `pytest tests/bench/bench_price.py --benchmark-enable`. What is timed is
checked in tests/qtcore/test_price.py and tests/research/training/test_maps.py. `published` runs beside, on the same votes.
"""

import time
from collections.abc import Callable

import numpy as np
import pytest

from qtcore.chain.decide import CHUNK, decide_block
from qtcore.chain.patterns import pattern_table
from qtcore.chain.price import N_BIDS, N_PRICING, maps_on, price, pricing_of, told, value
from qtcore.choices import DecideRule
from qtcore.params import Params
from qtcore.sweep import Driver, Market, drivers, sweep
from qtcore.sweep import rows as rows_module
from qtcore.types import N_ALONE, Decisions, Value, Votes
from research.training.labels import make_labels
from research.training.map_fit import price_predictions, usual
from tests.bench.bench_decide import best_of
from tests.bench.bench_trade import N, S, four_voters, market
from tests.support import PUBLISHED
from tests.support.priced import random_maps

CELLS, P = N * S, 1_000
CHAIN = {"broker.max_holding_bars": 24}
OURS = Params().with_values(CHAIN)


@pytest.fixture(scope="module")
def world():
    """Votes of four models with probabilities, indicators, pricing, and three maps of which the last has a seat for everybody."""
    said, arbiter, regime = four_voters()
    probs = np.random.default_rng(5).dirichlet((2.0, 5.0, 2.0), said.action.shape)
    probs[4] = np.nan
    votes, bars = Votes.from_probs(probs), market()
    maps = random_maps(np.random.default_rng(6), [0, CELLS // 3, CELLS // 2])
    maps["start"] = bars.close_time[maps["first"] // S]
    pricing = pricing_of(np.full((N, S), 0.006))
    return bars, votes, arbiter, regime, pricing, maps


def decision(world: tuple, params: Params) -> Callable[[], None]:
    """Return the decision on reused buffers; of an opinion in money from the voters' probabilities on."""
    _, votes, arbiter, regime, pricing, maps = world
    is_priced = params.decide.rule == DecideRule.EDGE
    flat = (*told(votes), *(a.reshape(len(a), -1) for a in (arbiter, regime)))
    codes, values = (a.reshape(len(a), -1) for a in Decisions.empty(N, S, is_priced).slabs)
    record, prices = params.record(), pricing.reshape(N_PRICING, -1)
    scratch = np.empty(CHUNK, np.int32), np.empty((5, 3 * CHUNK)), np.empty((N_BIDS, CHUNK))
    rest = prices, maps, 0, record, codes, values, pattern_table(record), *scratch
    return lambda: decide_block(*flat, np.full((3, 1), np.nan), np.array([6]), *rest)


def test_a_decision_from_probabilities(benchmark, world):
    ours, published = decision(world, OURS), decision(world, PUBLISHED)
    benchmark.pedantic(ours, rounds=1)
    if benchmark.enabled:
        ns = [best_of(run, 50) / CELLS * 1e9 for run in (ours, published)]
        benchmark.extra_info["ns per cell"], benchmark.extra_info["ns per cell, `published`"] = ns
        benchmark.extra_info["ns per cell more (10 allowed)"] = ns[0] - ns[1]


def test_a_decision_from_finished_bids(benchmark, world):
    """Costs, order of the bids, action and edge: what a setting of a sweep does anew for every cell."""
    *_, pricing, maps = world
    lean, score = np.random.default_rng(7).normal(0.0, 0.3, (2, CELLS))
    bids, record = np.empty((N_BIDS, CHUNK)), OURS.record()
    value(lean, pricing.reshape(N_PRICING, -1), score, np.full(1, np.nan), maps[-1:], 0, record, bids, 0, CHUNK, 0)
    action, confidence, money = np.empty(CELLS, np.int8), np.empty(CELLS), np.empty((N_ALONE - Value.GROSS_EDGE, CELLS))

    def run() -> None:
        for start in range(0, CELLS, CHUNK):
            price(lean, bids, pricing.reshape(N_PRICING, -1), record, action, confidence, money, start, min(start + CHUNK, CELLS), 0)

    benchmark.pedantic(run, rounds=1)
    assert 0.1 < np.mean(action != 1) < 0.9
    if benchmark.enabled:
        benchmark.extra_info["ns per cell (2 allowed)"] = best_of(run, 50) / CELLS * 1e9


def test_settings_in_lanes(benchmark, world):
    bars, votes, arbiter, regime, pricing, maps = world
    rng, rows = np.random.default_rng(0), np.repeat(OURS.record(), P)
    rows["decide"]["min_edge"] = rng.uniform(0.0, 0.002, P)
    rows["governor"]["kelly_fraction"], rows["governor"]["max_position"] = rng.uniform(0.05, 0.5, P), rng.uniform(0.01, 0.1, P)
    rows["broker"]["fee_rate"] = rng.uniform(0.0, 0.001, P)
    case = Market.of(bars, votes, arbiter, regime, pricing=pricing, maps=maps_on(maps, bars.close_time, S))
    assert set(drivers(case, rows)) == {Driver.LANES}
    spent = []

    def run() -> None:
        start = time.process_time()
        sweep(case, rows)
        spent.append(time.process_time() - start)

    benchmark.pedantic(run, rounds=5 if benchmark.enabled else 1)
    if benchmark.enabled:
        benchmark.extra_info["ns per setting, bar and symbol, all threads (1.5 allowed)"] = benchmark.stats.stats.min / (P * CELLS) * 1e9
        benchmark.extra_info["ns of processor time per setting, bar and symbol"] = min(spent) / (P * CELLS) * 1e9


def books() -> np.ndarray:
    """Draw 1,000 settings of a cross-sectional book."""
    rng, values = np.random.default_rng(0), {"governor.book": "cross_section", "governor.neutral": "dollar", "governor.max_drawdown": 1.0}
    rows = np.repeat(OURS.with_values(values).record(), P)
    drawn = {"band": (0.5, 2.0), "kelly_fraction": (0.05, 0.5), "max_position": (0.05, 0.2), "max_exposure": (0.5, 2.0)}
    for name, (low, high) in drawn.items():
        rows["governor"][name] = rng.uniform(low, high, P)
    rows["governor"]["max_daily_trades"] = rng.integers(10, 200, P)
    rows["broker"]["fee_rate"] = rng.uniform(0.0, 0.0004, P)
    return rows


def test_books_in_lanes(benchmark, monkeypatch, world):
    """Lanes beside the plain driver, whose rows are the first few."""
    bars, votes, arbiter, regime, pricing, maps = world
    rows, few, spent = books(), slice(0, 40), []
    case = Market.of(bars, votes, arbiter, regime, pricing=pricing, maps=maps_on(maps, bars.close_time, S))
    assert set(drivers(case, rows)) == {Driver.LANES}

    def run() -> None:
        start = time.process_time()
        sweep(case, rows)
        spent.append(time.process_time() - start)

    got = sweep(case, rows[few])[0]
    assert got["n_fills"].min() > 1_000
    benchmark.pedantic(run, rounds=5 if benchmark.enabled else 1)
    monkeypatch.setattr(rows_module, "suited", lambda bars, records: np.full(len(records), Driver.FEW))
    assert sweep(case, rows[few])[0].tobytes() == got.tobytes()
    if benchmark.enabled:
        start = time.process_time()
        sweep(case, rows[few])
        plain = (time.process_time() - start) / (40 * CELLS) * 1e9
        ns = benchmark.stats.stats.min / (P * CELLS) * 1e9, min(spent) / (P * CELLS) * 1e9
        benchmark.extra_info["ns per setting, bar and symbol, all threads"] = ns[0]
        benchmark.extra_info["ns of processor time per setting, bar and symbol (30 allowed)"] = ns[1]
        benchmark.extra_info["ns of processor time, plain driver"] = plain
        benchmark.extra_info["times less processor time than the plain driver"] = plain / ns[1]


def test_maps_and_seats(benchmark, world):
    """What a study fits for 24 periods: factors, maps and places of four voters, arbiter's maps and seat."""
    bars, votes, *_ = world
    labels, spent, horizon = make_labels(bars, "L1")[0], [], OURS.broker.max_holding_bars

    def run() -> None:
        start = time.process_time()
        price_predictions(bars, votes, labels, horizon, usual(OURS).with_values(CHAIN))
        spent.append(time.process_time() - start)

    benchmark.pedantic(run, rounds=3 if benchmark.enabled else 1)
    if benchmark.enabled:
        benchmark.extra_info["s of processor time (15 allowed)"] = min(spent)
