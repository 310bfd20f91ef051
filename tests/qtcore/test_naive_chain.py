"""Does the naive chain of `tests/naive/chain.py` say the same as the kernels, bit by bit, on 2,000 random bars?

Votes, indicators and confidences sit on a coarse grid, so that ties and thresholds are hit exactly and often; prices have every hole,
gap and jump of the awkward bars. One variant per switch.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from qtcore.chain.decide import decide
from qtcore.chain.trade import TradeState, cell_pnl, run_trade
from qtcore.params import Params
from qtcore.rules import RULES, Reason
from qtcore.types import DECISION_COLUMNS, Bars, Votes
from tests.conftest import assert_same_bits, awkward_bars
from tests.naive import chain
from tests.qtcore.test_trade import RUINED, assert_same_as_naive, run_naive
from tests.support import PUBLISHED

N, S = 2_000, 5
FREE = {"governor.max_drawdown": 1.0, "broker.max_holding_bars": 5}


def random_votes(rng: np.random.Generator, n: int, n_symbols: int) -> Votes:
    """Votes that lean on each other, a fifth of them absent, confidences on a grid of 1/40."""
    shape = (5, n, n_symbols)
    common = rng.integers(0, 3, (n, n_symbols))
    action = np.where(rng.random(shape) < 0.55, common, rng.integers(0, 3, shape)).astype(np.int8)
    confidence = np.round(0.4 + 0.6 * rng.random(shape), 3)
    confidence = np.where(rng.random(shape) < 0.7, np.round(confidence * 40.0) / 40.0, confidence)
    absent = rng.random(shape) < rng.choice([0.02, 0.2, 0.6, 1.0], (n, n_symbols), p=[0.6, 0.25, 0.1, 0.05])
    absent[4] |= rng.random((n, n_symbols)) < 0.5
    return Votes(np.where(absent, -1, action).astype(np.int8), np.where(absent, np.nan, confidence))


def random_market(rng: np.random.Generator, n: int, n_symbols: int) -> tuple[np.ndarray, np.ndarray]:
    """Arbiter inputs [6, n, S] and regime [2, n, S] around their thresholds, some unknown, some cells without any."""

    def draw(low, high, edges):
        free = rng.uniform(low, high, (n, n_symbols))
        return np.where(rng.random(free.shape) < 0.3, rng.choice(edges, free.shape), free)

    macd = draw(-0.2, 0.2, [0.0, 0.06, -0.06])
    planes = [
        draw(0, 100, [30.0, 70.0, 7.5, 92.5]),
        macd,
        np.where(rng.random(macd.shape) < 0.2, macd, draw(-0.1, 0.1, [0.0])),
        draw(-0.1, 1.1, [0.2, 0.8]),
        draw(0.2, 4, [1.5]),
        draw(-0.08, 0.08, [0.02, -0.02]),
    ]
    arbiter = np.stack(planes)
    arbiter[rng.random(arbiter.shape) < 0.05] = np.nan
    arbiter[:, rng.random((n, n_symbols)) < 0.03] = np.nan
    regime = np.stack([draw(0, 1, [0.4, 0.6]), draw(-1, 1, [0.2, -0.2, 0.3])])
    regime[:, rng.random((n, n_symbols)) < 0.03] = np.nan
    return arbiter, regime


def random_meta(rng: np.random.Generator, n: int, n_symbols: int) -> np.ndarray:
    """Probabilities [3, n, S] of a meta model, from undecided to certain, not ready in a tenth of the cells."""
    probs = rng.dirichlet((0.4, 0.4, 0.4), (n, n_symbols)).transpose(2, 0, 1).copy()
    probs[:, rng.random((n, n_symbols)) < 0.2] = 1.0 / 3.0
    probs[:, rng.random((n, n_symbols)) < 0.1] = np.nan
    return probs


def naive_opinion(votes: Votes, arbiter: np.ndarray, regime: np.ndarray, params: dict, meta: np.ndarray | None) -> dict[str, np.ndarray]:
    n, n_symbols = votes.action.shape[1:]
    out = {name: np.zeros((n, n_symbols), dtype) for name, dtype in DECISION_COLUMNS.items()}
    for t in range(n):
        for s in range(n_symbols):
            heads = [(int(a), float(c)) if a >= 0 else None for a, c in zip(votes.action[:, t, s], votes.confidence[:, t, s])]
            answer = None if meta is None or np.isnan(meta[0, t, s]) else meta[:, t, s].tolist()
            cell = chain.decide(heads, arbiter[:, t, s].tolist(), regime[:, t, s].tolist(), params, answer)
            for name, value in cell.items():
                out[name][t, s] = value
    return out


@dataclass(frozen=True)
class World:
    """What both chains are given."""

    bars: Bars
    votes: Votes
    arbiter: np.ndarray
    regime: np.ndarray
    meta: np.ndarray | None
    params: Params


def random_world(values: dict, seed: int, n: int = N, funding: bool = False, meta: bool = False, quiet: float = 0.0) -> World:
    """Draw a world; quiet: share of cells without any vote, so that few positions let the other limits speak."""
    rng = np.random.default_rng(seed)
    bars = awkward_bars(n, seed, S)
    if funding:
        due = (np.arange(n) % 8 == 0)[:, None]
        bars = replace(bars, funding=np.where(due, rng.normal(0.0, 3e-4, (n, S)), 0.0))
    votes, (arbiter, regime) = random_votes(rng, n, S), random_market(rng, n, S)
    votes.action[:, rng.random((n, S)) < quiet] = -1
    votes.confidence[votes.action < 0] = np.nan
    probs = random_meta(rng, n, S) if meta else None
    return World(bars, votes, arbiter, regime, probs, PUBLISHED.with_values({**FREE, **values}))


def kernels(world: World):
    """Decisions, trading result and final state of the compiled chain."""
    decisions = decide(world.votes, world.arbiter, world.regime, world.params, world.meta)
    state = TradeState.fresh(world.params, S)
    return decisions, run_trade(world.bars, decisions.raw_action, decisions.raw_confidence, world.params, state), state


ORIGINAL = {k: v for k, v in Params.profile("original").flat().items() if k not in ("features.feature_set", "features.warmup")}
VARIANTS = {
    "default": ({"governor.max_drawdown": 0.15}, {}),
    "free": ({}, {"funding": True}),
    "original": ({**ORIGINAL, "meta.enabled": True, "arbiter.enabled": True, "governor.max_drawdown": 0.5}, {"meta": True}),
    "policy with a model": (
        {"meta.low_confidence": 0.3, "meta.disagreement_threshold": 0.7, "meta.consensus_threshold": 0.9},
        {"meta": True},
    ),
    "override": ({"meta.mode": "override"}, {"meta": True}),
    "override, fail closed": (
        {"meta.mode": "override", "meta.fail_open": False, "ensemble.weights": [0.6, 0.1, 0.2, 0.1, 0.0]},
        {"meta": True},
    ),
    "v5": ({"meta.mode": "v5"}, {"meta": True}),
    "v5 without guard": ({"meta.mode": "v5", "meta.consensus_guard": False}, {"meta": True}),
    "heavy weight": ({"ensemble.weights": [0.05, 0.7, 0.1, 0.1, 0.05], "arbiter.enabled": False}, {}),
    "no arbiter gate": ({"arbiter.gate_confidence": 0.0, "arbiter.score_threshold": 0.1}, {}),
    "regime weights": (
        {
            "ensemble.regime_factors": [1.0 + 0.25 * (i % 5) - 0.1 * (i // 15) for i in range(45)],
            "ensemble.multipliers": [0.6, 1.0, 1.1, 1.2],
        },
        {},
    ),
    "by confidence": ({"governor.order": "by_confidence", "governor.max_exposure": 0.12, "governor.max_daily_trades": 9}, {}),
    "cooldown of everyone": ({"governor.cooldown_scope": "last_50", "governor.cooldown_minutes": 600}, {}),
    "empirical sizes": ({"governor.sizing_mode": "kelly_empirical"}, {}),
    "halts daily": ({"governor.max_drawdown": 0.02, "governor.drawdown_reset": "daily"}, {"quiet": 0.5}),
    "balance halts": ({"governor.max_drawdown": 0.03, "governor.drawdown_basis": "balance"}, {}),
    "long only": ({"broker.allow_short": False, "broker.fee_rate": 0.002, "broker.slippage_rate": 0.003}, {"quiet": 0.3}),
    "one bar": ({"broker.max_holding_bars": 1, "governor.min_confidence": 0.5}, {"funding": True}),
    "late, and dear": ({"broker.fill": "one_bar_later", "broker.impact": 0.2, "broker.max_holding_bars": 3}, {"funding": True}),
    "at the worst": ({"broker.fill": "worst", "broker.max_holding_bars": 3}, {"quiet": 0.3}),
    "no horizon": ({"broker.max_holding_bars": 0, "governor.stop_loss": 0.3, "broker.delist_after": 3}, {"funding": True, "quiet": 0.9}),
    "killed": ({"governor.emergency_stop": True}, {}),
    "nothing to buy": ({"governor.max_position": 0.0}, {}),
    "ruined": (RUINED, {"funding": True, "quiet": 0.5}),
}


def variant(name: str) -> World:
    values, rest = VARIANTS[name]
    return random_world(values, seed=len(name), n=N if name in ("default", "free", "original") else N // 4, **rest)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_naive_chain_equals_the_kernels(name):
    world = variant(name)
    decisions, result, state = kernels(world)
    flat = world.params.flat()
    opinion = naive_opinion(world.votes, world.arbiter, world.regime, flat, world.meta)
    for column in DECISION_COLUMNS:
        assert_same_bits(opinion[column], getattr(decisions, column), column)
    book, out = run_naive(world.bars, opinion["raw_action"], opinion["raw_confidence"], world.params)
    assert_same_as_naive(result, state, book, out)
    assert_same_bits(np.array(out["pnl"])[1:], cell_pnl(result.pnl)[:-1], "cell_pnl")


def test_the_random_world_reaches_every_branch():
    """A comparison proves what it visits: every code occurs in some variant; rules off by default do in `test_trade.OPTIONS`."""
    seen: set[int] = set()
    for name in VARIANTS:
        decisions, result, _ = kernels(variant(name))
        for plane in (decisions.meta_reason, decisions.arbiter_reason, result.governor_reason, result.fills["reason"]):
            seen |= set(np.unique(plane).tolist())
    unreachable = {
        *range(7, 12),  # errors of feature building and prediction: tested where they arise
        Reason.TIE,  # a consensus label, not a reason
        Reason.NEUTRAL_MARKET,  # the arbiter's HOLD is recorded as why it was rejected
        Reason.INVALID_CONFIDENCE,
        Reason.ANALYSIS_ERROR,
        Reason.HIERARCHY_ERROR,
        Reason.END_OF_DATA,
        Reason.GOVERNOR_ERROR,
        *(Reason.IN_BAND, Reason.REDUCED, Reason.ADDED),  # of a book, which needs them too
        *(Reason.BET_TAKEN, Reason.BET_SHRUNK, Reason.BET_SKIPPED, Reason.NO_SEAT, Reason.DEFER_NO_EDGE),  # of opinions with a price
        *(rule.reason for rule in RULES if rule.parameter and rule.layer == "governor" and rule.why_never(PUBLISHED.flat())),
    }
    assert sorted(set(map(int, Reason)) - seen - set(map(int, unreachable))) == []
