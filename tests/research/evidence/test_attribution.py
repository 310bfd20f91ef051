"""Does attribution add up, are its replays exact, and does it give the known answer where there is one?"""

import numpy as np
import pandas as pd
import pytest

import research
from qtcore import Params
from qtcore.rules import switches
from qtcore.types import MODELS, N_MODELS, Bars
from research.evidence.attribution import attribute
from research.training.regimes import CELLS, SLICES
from tests.conftest import assert_same_bits
from tests.support import PUBLISHED


def made(bars: Bars, probs: np.ndarray, values: dict, **rest) -> research.Run:
    """A run on probabilities [5, n, S, 3] of one's own."""
    rule = research.Predictions.random(bars, seed=0)
    fold = np.full(bars.n, -1, np.int16)
    predictions = research.Predictions.from_probs(bars, probs, fold, rule.labels, rule.label, imported=True)
    return research.backtest(bars, predictions, PUBLISHED.with_values(values), **rest)


@pytest.fixture(scope="module")
def bars() -> Bars:
    return research.simulate("gaps", seed=3, n_bars=1_500, n_symbols=4)


@pytest.fixture(scope="module")
def run(bars) -> research.Run:
    """Random votes; every rule of the governor acts at least once."""
    values = {
        "governor.min_confidence": 0.55, "governor.max_daily_trades": 5, "governor.max_drawdown": 0.10, "governor.max_exposure": 0.12,
        "governor.stop_loss": 0.01, "broker.allow_short": False,
    }  # fmt: skip
    return research.backtest(bars, research.Predictions.random(bars, seed=1), PUBLISHED.with_values(values))


@pytest.fixture(scope="module")
def priced() -> research.Run:
    """Opinions with a price: one voter knows something of the next five bars, the arbiter has no seat, and rules of the governor act."""
    bars = research.load_bars("simulated:random_walk?n_bars=2500&n_symbols=4&seed=3")
    rng, close = np.random.default_rng(1), np.log(bars.close)
    ahead = np.nan_to_num((np.concatenate([close[5:], np.full((5, 4), np.nan)]) - close) / 0.015)
    probs, buy = np.full((N_MODELS, *close.shape, 3), np.nan), 1.0 / (1.0 + np.exp(-(ahead + rng.normal(size=ahead.shape))))
    probs[0] = np.stack([0.6 * (1.0 - buy), np.full_like(buy, 0.4), 0.6 * buy], axis=-1)
    rule = research.Predictions.random(bars, seed=0)
    predictions = research.Predictions.from_probs(bars, probs, np.full(bars.n, -1, np.int16), rule.labels, rule.label, imported=True)
    values = {"governor.max_daily_trades": 5, "governor.max_exposure": 0.12, "governor.stop_loss": 0.01, "governor.max_drawdown": 0.05}
    return research.backtest(bars, predictions, Params().with_values(values))


@pytest.fixture(params=["run", "priced"])
def either(request) -> research.Run:
    return request.getfixturevalue(request.param)


def test_contributions_add_up_in_total_and_in_every_regime(either):
    run = either
    table, initial = run.attribution(regimes=True), run.params.broker.initial_cash
    total = run.result.equity[-1] - initial
    steps = table["contribution"].unstack("layer").dropna(axis=1, how="all")
    assert steps.columns.size >= 8
    assert steps.loc["total"].sum() == pytest.approx(total, abs=1e-9 * initial)
    for name in SLICES[1:]:
        assert steps.loc[name].sum() == pytest.approx(run.summary["regimes"][name]["pnl"], abs=1e-9 * initial)
    for layer in steps:  # the nine cells are the whole
        assert steps.loc[list(CELLS), layer].sum() == pytest.approx(steps.loc["total", layer], abs=1e-9 * initial)
    assert run.attribution()["contribution"].sum() == pytest.approx(total, abs=1e-9 * initial)


def test_the_last_step_is_the_run_and_each_step_is_its_own_backtest(either):
    run = either
    total = run.attribution()
    last = total.dropna(subset="pnl").iloc[-1]
    assert last["pnl"] == pytest.approx(run.result.equity[-1] - run.params.broker.initial_cash, abs=1e-6)
    assert last["fees"] == pytest.approx(run.result.fills["fee"].sum())
    assert last["n_trades"] == (run.result.fills["is_entry"] == 1).sum()
    assert last["max_drawdown"] == pytest.approx(run.summary["pnl"]["max_drawdown"], abs=1e-12)
    rules = switches(in_ladder=True)
    free = {key: value for off in rules.values() for key, value in off.items()}
    base = run._again(free | {"meta.enabled": False, "arbiter.enabled": False})
    assert total.loc["ensemble", "pnl"] == pytest.approx(base.equity[-1] - run.params.broker.initial_cash, abs=1e-6)
    for name in ("stop_loss", "max_daily_trades", "cooldown"):
        other = run._again(rules[name])
        assert total.loc[name, "effect"] == pytest.approx(run.result.equity[-1] - other.equity[-1], abs=1e-6)


def test_replays_of_the_account_are_those_of_the_engine(either):
    from research.evidence.attribution import _trade

    run = either
    again, _ = _trade(run, run.result.decisions, {})
    for name in ("equity", "pnl", "governor_reason", "fills"):
        assert_same_bits(getattr(again, name), getattr(run.result, name), name)


def test_a_layer_that_changes_no_trade_is_worth_nothing(priced):
    table = priced.attribution()
    assert table.loc["ensemble", "n_trades"] > 100
    assert table.loc["ensemble", "pnl"] > table.loc["max_exposure", "pnl"] > 0.0
    for layer in ("meta", "arbiter"):
        assert table.loc[layer, ["contribution", "effect", "effect_low", "effect_high"]].tolist() == [0.0] * 4


def test_the_policy_alone_changes_nothing(run):
    """O-4: without the arbiter, escalated cells keep the ensemble's action."""
    table = run.attribution()
    assert table.loc["meta", ["contribution", "low", "high"]].tolist() == [0.0, 0.0, 0.0]
    assert table.loc["meta", "pnl"] == table.loc["ensemble", "pnl"]


def test_rules_that_are_off_have_no_row(bars):
    run = research.backtest(bars, research.Predictions.random(bars, seed=2), PUBLISHED.with_values({"governor.cooldown_minutes": 0}))
    rows = run.attribution().index
    assert "cooldown" not in rows
    assert "no_shorts" not in rows  # shorts are allowed by default
    assert "emergency_stop" not in rows
    assert {"ensemble", "meta", "arbiter", "min_confidence", "max_exposure", "stop_loss", "max_holding_bars"} <= set(rows)


def sure_votes(action: np.ndarray, confidence: float = 0.9) -> np.ndarray:
    """Probabilities with which the first four models all say `action` [n, S]."""
    probs = np.full((N_MODELS, *action.shape, 3), (1.0 - confidence) / 2.0)
    for m in range(len(MODELS) - 1):
        np.put_along_axis(probs[m], action[..., None].astype(np.int64), confidence, axis=-1)
    probs[len(MODELS) - 1] = np.nan
    return probs


def test_known_answer_in_a_market_that_only_rises():
    """Unanimous BUY in a straight trend: no rule but size and confidence acts, nothing is escalated, and the votes earn everything."""
    bars = research.simulate("trend", n_bars=600, n_symbols=1)
    run = made(bars, sure_votes(np.full((600, 1), 2, np.int8)), {"broker.max_holding_bars": 20})
    table = run.attribution()
    assert table.loc["ensemble", "contribution"] > 0.0
    rest = table["contribution"].drop("ensemble").dropna()
    assert rest.abs().max() == 0.0
    assert run.layers.never_worse["answer"] == "supported"
    assert "changed no bar" in run.layers.never_worse["sentence"]


def test_known_answer_of_a_stop_that_saves_and_one_that_costs():
    """Falling market, unanimous BUY: the stop saves money. The same fall that comes back within the holding time: it costs."""
    n, time = 400, 3_600_000_000_000 * np.arange(400)
    fall = np.where(np.arange(n) % 40 < 20, 100.0 - (np.arange(n) % 40) * 0.5, 90.0 + (np.arange(n) % 40 - 20) * 0.5)
    for path, sign in ((fall, -1.0), (np.concatenate([np.full(100, 100.0), np.linspace(100.0, 60.0, 300)]), 1.0)):
        price = np.ascontiguousarray(path.reshape(-1, 1))
        bars = Bars(time, time + 3_600_000_000_000, price, price, price, price, np.ones((n, 1)), ("A",), 3_600_000_000_000)
        action = np.ones((n, 1), np.int8)
        action[120::40] = 2
        run = made(bars, sure_votes(action), {"broker.max_holding_bars": 38, "governor.cooldown_minutes": 0, "governor.stop_loss": 0.02})
        assert np.sign(run.attribution().loc["stop_loss", "effect"]) == sign
        assert run.layers.never_worse["answer"] == "supported"  # unanimous votes never reach the arbiter


def test_never_worse_is_answered_in_three_ways(monkeypatch, run, bars):
    from research.evidence import attribution

    answer = run.layers.never_worse
    assert answer["answer"] in ("supported", "not supported")
    low, high = answer["ci95"]
    assert low <= answer["per_year"] <= high
    assert (answer["answer"] == "supported") == (low >= 0.0)
    monkeypatch.setattr(attribution, "independent_trades", lambda *rest: (29, 29.0))
    assert attribute(run).never_worse["answer"] == "not enough data"
    monkeypatch.setattr(attribution, "independent_trades", lambda *rest: (99, 99.0))
    monkeypatch.setattr(attribution, "_bounds", lambda *rest: np.array([0.5, 1.0]))
    assert attribute(run).never_worse["answer"] == "supported"


def test_the_summary_holds_the_ladder(run):
    held = run.summary["attribution"]
    assert held["layers"][0]["layer"] == "ensemble"
    assert held["never_worse"]["answer"] == run.layers.never_worse["answer"]
    assert sum(row["contribution"] or 0.0 for row in held["layers"]) == pytest.approx(run.summary["pnl"]["net_pnl"], abs=1e-5)
    assert isinstance(run.attribution(), pd.DataFrame)


def test_a_run_with_layers_of_ones_own_is_not_replayed(bars):
    def judge(votes, planes, params):
        return np.full(bars.close.shape, 2, np.int8), np.full(bars.close.shape, 0.9)

    run = research.backtest(bars, research.Predictions.random(bars, seed=1), PUBLISHED, judge=judge)
    assert run.layers is None
    assert run.summary["attribution"]["layers"] is None
    with pytest.raises(research.UserError, match="was a run with an own judge"):
        run.attribution()
