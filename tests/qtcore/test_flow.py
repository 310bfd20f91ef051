"""Is a long backtest, which keeps no decisions, the one that writes them down? The same bits, whatever the parameters and the cuts."""

from dataclasses import replace

import numpy as np
import pytest

import qtcore as qt
from qtcore import engine as engine_module
from qtcore.chain import flow as flow_module
from qtcore.chain.flow import flows
from qtcore.governor import govern_step
from qtcore.jit import rebind
from tests.conftest import assert_same_bits, awkward_bars
from tests.qtcore.test_naive_chain import random_votes
from tests.support import PUBLISHED

N, S = 1_500, 4
FREE = {"broker.max_holding_bars": 5, "governor.max_drawdown": 1.0}
CASES = {
    "default": {},
    "a low score is enough": {"arbiter.score_threshold": 0.02, "arbiter.gate_confidence": 0.5},
    "every confidence is low": {"meta.low_confidence": 0.95, "meta.consensus_threshold": 1.0},
    "without arbiter": {"arbiter.enabled": False},
    "without meta layer": {"meta.enabled": False, "ensemble.weights": [0.6, 0.1, 0.2, 0.1]},
    "absent models hold": {"meta.missing_fill": "hold_half"},
    "weights by regime": {"ensemble.regime_factors": np.random.default_rng(3).uniform(0.9, 1.1, 45).tolist()},
    "fills at the close": {"broker.fill": "close", "governor.order": "by_confidence"},
}
COLUMNS = ("final_action", "governor_reason", "size", "pnl", "equity", "balance", "exposure", "worth")


@pytest.fixture(scope="module")
def world():
    bars = awkward_bars(N, 3, S)
    bars = replace(bars, funding=np.where((np.arange(N) % 8 == 0)[:, None], 1e-4, np.zeros((N, S))))
    return bars, random_votes(np.random.default_rng(0), N, S)


def parts(result):
    return [*(getattr(result, name) for name in COLUMNS), result.fills, *result.decisions.slabs]


@pytest.mark.parametrize("block", [flow_module.BLOCK, 40])
@pytest.mark.parametrize("name", CASES)
def test_what_flows_has_the_bits_of_what_is_written_down(world, monkeypatch, name, block):
    bars, votes = world
    params = PUBLISHED.with_values(FREE | CASES[name])
    assert flows(params, bars.close.size)
    monkeypatch.setattr(flow_module, "BLOCK", block)
    flowing, written = qt.Engine(params), qt.Engine(params)
    got = flowing.run(bars, votes)
    assert "decisions" not in vars(got)
    monkeypatch.setattr(engine_module, "flows", lambda params, n_cells: False)
    want = written.run(bars, votes)
    assert len(want.fills) > 50
    for a, b in zip(parts(got), parts(want), strict=True):
        assert_same_bits(a, b)
    assert got.orders == want.orders
    assert {key: array.tobytes() for key, array in flowing.state.items()} == {key: a.tobytes() for key, a in written.state.items()}


def test_a_long_block_then_a_short_one_are_the_whole(world):
    bars, votes = world
    whole, cut = qt.Engine(PUBLISHED.with_values(FREE)), qt.Engine(PUBLISHED.with_values(FREE))
    want = whole.run(bars, votes)
    got = [cut.run(bars[rows], votes[rows]) for rows in (slice(0, 1_100), slice(1_100, N))]
    assert_same_bits(np.concatenate([r.equity for r in got]), want.equity)
    assert_same_bits(np.concatenate([r.decisions.source for r in got]), want.decisions.source)


@pytest.mark.parametrize(
    "values",
    [
        {"meta.mode": "override"},
        {"meta.mode": "v5"},
        {"meta.variant": "learned"},
        {"meta.policy_base": "score"},
        {"ensemble.weights": [0.6, 0.1, 0.2, 0.1], "meta.consensus_threshold": 0.75},
    ],
)
def test_what_needs_more_than_the_rules_of_the_policy_does_not_flow(values):
    assert not flows(PUBLISHED.with_values(values), 1_000_000)


def test_an_own_trade_loop_flows_too(world):
    bars, votes = world
    params = PUBLISHED.with_values(FREE)
    result = qt.Engine(params, trade=rebind(qt.chain.trade.trade, govern_step=refuse)).run(bars, votes)
    assert len(result.fills) == 0
    assert "decisions" not in vars(result)


@qt.kernel
def refuse(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params):
    """Refuse everything; an array made on the way is allowed in a kernel of one's own."""
    room = np.zeros(2)
    return room[0], govern_step(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params)[
        1
    ] * 0 + 66
