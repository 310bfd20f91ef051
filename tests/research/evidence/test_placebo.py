"""Are placebos exact replays with other times or signs alone, is their p fair in noise, and small where something is known?"""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import research
from qtcore import Bars, Params
from qtcore.types import N_MODELS, NS_PER_DAY, NS_PER_HOUR
from research.evidence import placebo as tested
from research.evidence.placebo import Fold, Replay, drawn, memory_of, n_draws, placebo
from research.report import figures
from research.runs import tables
from tests.support import PUBLISHED

FREE = {"governor.min_confidence": 0.0, "meta.enabled": False, "arbiter.enabled": False}
START = 1_704_067_200_000_000_000  # 2024-01-01 UTC
WORLD = "simulated:random_walk?n_bars=1500&n_symbols=3&seed=3"


def knowing(bars: Bars, skill: float, seed: int = 1, n_folds: int = 0) -> research.Predictions:
    """Predictions of one voter that knows the next five bars' return, in a noise of 1, with the weight `skill`."""
    rng, close = np.random.default_rng(seed), np.log(bars.close)
    ahead = np.nan_to_num((np.concatenate([close[5:], np.full((5, close.shape[1]), np.nan)]) - close) / 0.015)
    probs, buy = np.full((N_MODELS, *close.shape, 3), np.nan), 1.0 / (1.0 + np.exp(-(skill * ahead + rng.normal(size=ahead.shape))))
    probs[0] = np.stack([0.6 * (1.0 - buy), np.full_like(buy, 0.4), 0.6 * buy], axis=-1)
    rule = research.Predictions.random(bars, seed=0)
    fold = np.full(bars.n, -1, np.int16) if not n_folds else (np.arange(bars.n) * n_folds // bars.n).astype(np.int16)
    return research.Predictions.from_probs(bars, probs, fold, rule.labels, rule.label, imported=True)


def moved(votes: research.Predictions, at: np.ndarray) -> research.Predictions:
    """The predictions of other rows, -1 for none."""
    planes = {name: getattr(votes, name)[:, at] for name in ("action", "confidence", "probs")}
    for name, absent in (("action", -1), ("confidence", np.nan), ("probs", np.nan)):
        planes[name][:, at < 0] = absent
    return replace(votes, **planes)


@pytest.fixture(scope="module")
def bars() -> Bars:
    return research.load_bars(WORLD)


@pytest.fixture(scope="module")
def priced(bars) -> research.Run:
    """Opinions with a price, funding that the market pays, a drawdown limit, and an arbiter that goes on duty half-way."""
    funding = np.where(np.arange(bars.n)[:, None] % 8 == 0, 4e-4, 0.0) * np.array([1.0, -1.0, 0.5])
    values = {"governor.max_exposure": 0.12, "governor.max_daily_trades": 5, "governor.stop_loss": 0.01, "arbiter.enabled": False}
    stages = [(str(np.datetime64(int(bars.open_time[800]), "ns")), False, True)]
    return research.backtest(replace(bars, funding=funding), knowing(bars, 1.0), Params().with_values(values), stages=stages)


@pytest.fixture(scope="module")
def published(bars) -> research.Run:
    return research.backtest(bars, research.Predictions.random(bars, seed=1), PUBLISHED.with_values({"broker.allow_short": False}))


@pytest.fixture(params=["priced", "published"])
def either(request) -> research.Run:
    return request.getfixturevalue(request.param)


def test_no_shift_and_no_sign_are_the_run_to_the_bit(either):
    replay = Replay(either, tables.tested_rows(either))
    assert len(either.result.fills) > 50
    own = either.result.equity[replay.rows]
    for said in (replay.moved(np.arange(replay.n)), replay.turned(np.ones(replay.n, np.int64))):
        assert np.array_equal(replay.equity(said), own)
    assert replay.is_exact


def test_each_shift_is_the_run_of_shifted_predictions(either):
    replay = Replay(either, tables.tested_rows(either))
    source = np.arange(replay.n)
    (fold,) = replay.folds
    source[fold.rows] = fold.source(9)
    assert -1 in source
    at = np.arange(either.bars.n)
    at[replay.rows] = np.where(source >= 0, source + replay.rows.start, -1)
    again = research.backtest(either.bars, moved(either.predictions, at), either.params)
    assert len(again.result.fills) > 50
    assert np.array_equal(replay.equity(replay.moved(source)), again.result.equity[replay.rows])


def test_turned_signs_are_the_run_of_the_opposite_opinion(bars):
    """Every bar of some blocks turned, an ensemble of votes without a price: the run of the swapped votes."""
    votes = research.Predictions.random(bars, seed=1, models=("xgb",))
    run = research.backtest(bars, votes, PUBLISHED.with_values(FREE))
    replay = Replay(run, tables.tested_rows(run))
    is_turned = replay.day // 5 % 2 == 0
    probs = votes.probs.copy()
    probs[:, is_turned] = probs[:, is_turned][..., ::-1]
    action = np.where(is_turned[None, :, None] & (votes.action >= 0), 2 - votes.action, votes.action).astype(np.int8)
    again = research.backtest(bars, replace(votes, probs=probs, action=action), run.params)
    assert np.array_equal(replay.equity(replay.turned(np.where(is_turned, -1, 1))), again.result.equity[replay.rows])


def test_turned_bids_pay_the_other_side_of_the_funding(priced):
    """With every sign turned, a market that pays the opposite funding wants the same trades."""
    replay, mirrored = Replay(priced, tables.tested_rows(priced)), replace(priced.bars, funding=-priced.bars.funding)
    other = Replay(research.backtest(mirrored, priced.predictions, priced.params), replay.rows)
    action, _, (gross, edge, _) = replay.turned(np.full(replay.n, -1, np.int64))
    theirs = other.run.result.decisions
    known = ~np.isnan(edge) & ~np.isnan(theirs.edge[replay.rows])
    assert np.array_equal(gross, theirs.gross_edge[replay.rows])
    assert np.array_equal(edge[known], theirs.edge[replay.rows][known])
    assert np.array_equal(action, 2 - theirs.raw_action[replay.rows])
    assert np.any(edge[known] != priced.result.decisions.edge[replay.rows][known])


def test_an_own_judge_has_a_direction_and_a_sentence_for_its_timing(bars):
    def judge(votes, planes, params):
        return votes.action[0].clip(0), np.nan_to_num(votes.confidence[0], nan=0.5)

    for params in (PUBLISHED.with_values(FREE), Params()):
        run = research.backtest(bars, knowing(bars, 1.0), params, judge=judge)
        found = placebo(run, 7)
        assert len(run.result.fills) > 20
        assert found["timing"]["refused"].startswith("an own judge would have to answer anew")
        assert len(found["direction"]["draws"]) == 7


def test_the_learned_meta_layer_is_asked_anew(bars):
    votes = research.Predictions.random(bars, seed=1)
    params = PUBLISHED.with_values({"meta.mode": "override", "governor.min_confidence": 0.0})
    run = research.backtest(bars, votes, params, meta=research.train_meta(bars, votes, params))
    replay = Replay(run, tables.tested_rows(run))
    assert (run.result.decisions.meta_action >= 0).any()
    assert replay.asks
    assert replay.is_exact
    source = replay.folds[0].source(4)
    again = research.backtest(bars, moved(votes, source), run.params, meta=run.meta)
    assert np.array_equal(replay.equity(replay.moved(source)), again.result.equity)


def test_days_take_over_days_within_their_fold():
    """A ragged first and last day, and a day that lacks an hour: its neighbours take what has the same hour."""
    hours = np.concatenate([np.arange(13, 24 * 4), np.arange(24 * 4, 24 * 5 + 6)])
    hours = hours[hours != 24 * 2 + 7]
    fold = Fold.of(np.arange(len(hours)), START + NS_PER_HOUR * hours)
    assert (fold.n_days, fold.count.tolist()) == (6, [11, 24, 23, 24, 24, 6])
    assert fold.source(0).tolist() == list(range(len(hours)))
    assert fold.source(fold.n_days).tolist() == list(range(len(hours)))
    source = fold.source(1)
    at = dict(zip(hours.tolist(), source.tolist()))
    assert at[24 * 3 + 7] == -1  # the day before lacks it
    assert hours[at[24 * 3 + 8]] == 24 * 2 + 8
    assert hours[at[24 + 13]] == 13
    assert at[24 + 12] == -1  # before the first bar
    assert hours[at[24 * 5]] == 24 * 4
    assert at[13] == -1  # the last day ends at six
    for name in range(1, 6):
        known = (there := fold.source(name)) >= 0
        assert len(set(there[known])) == known.sum()


def test_sessions_of_other_hours_are_taken_over_bar_by_bar():
    hours = np.concatenate([24 * day + 13 + np.arange(7) + (day >= 10) for day in range(20)])
    fold = Fold.of(np.arange(len(hours)), START + NS_PER_HOUR * hours)
    assert np.array_equal(fold.source(3), np.roll(np.arange(len(hours)), 21))


def test_shifts_are_apart_and_stay_in_their_folds(bars):
    """Three folds of 500 hours; what the model says lasts for two days."""
    rng = np.random.default_rng(4)
    votes = knowing(bars, 1.0, n_folds=3)
    slow = np.repeat(rng.uniform(0.0, 0.6, (-(-bars.n // 48), 3)), 48, axis=0)[: bars.n]
    probs = votes.probs.copy()
    probs[0] = np.stack([0.6 - slow, np.full_like(slow, 0.4), slow], axis=-1)
    made = research.Predictions.from_probs(bars, probs, votes.fold, votes.labels, votes.label, imported=True)
    run = research.backtest(bars, made, PUBLISHED.with_values(FREE))
    replay = Replay(run, tables.tested_rows(run))
    assert [len(fold.rows) for fold in replay.folds] == [500, 500, 500]
    assert memory_of(replay) == 2
    found = placebo(run)["timing"]
    days = [fold.n_days for fold in replay.folds]
    assert (found["memory_days"], found["horizon_days"], found["places"]) == (2, 1, [n // 2 for n in days])
    assert found["n_distinct"] == math.prod(n // 2 for n in days) - 1
    for fold, places in zip(replay.folds, found["places"]):
        step = fold.n_days // places
        assert min(step, fold.n_days - (places - 1) * step) >= 2
        source = fold.source(step)
        assert set(source[source >= 0]) <= set(fold.rows)
    assert memory_of(Replay(research.backtest(bars, votes, PUBLISHED.with_values(FREE)), replay.rows)) == 1


def test_a_fold_of_too_few_days_cannot_be_shifted(bars):
    short = bars[:100]
    run = research.backtest(short, research.Predictions.random(short, seed=1), PUBLISHED.with_values({"broker.max_holding_bars": 70}))
    found = placebo(run)
    assert found["timing"]["p"] is None
    assert found["timing"]["sentence"] == (
        "Not tested: no shift is possible: the longest of 1 fold has 5 days, and places must be 4 days apart "
        "(horizon 4 days, memory of the predictions 1 day)."
    )
    assert found["direction"]["n_distinct"] == 2 ** found["direction"]["n_blocks"] - 1


def test_draws_are_distinct_and_do_not_depend_on_later_folds():
    few = drawn([2, 3], range(2), 1, 99)
    assert few == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    some = drawn([2] * 40, range(40), 1, 99)
    assert len(set(some)) == 99
    assert not any(sum(each) == 0 for each in some)
    more = drawn([2] * 41, range(41), 1, 99)
    assert [each[:40] for each in more] == some
    assert some != drawn([2] * 40, range(40), 2, 99)
    assert 0.4 < np.mean(some) < 0.6
    assert some[0][:12] == drawn([2] * 12, range(12), 1, 1)[0]


def test_the_budget_is_one_of_cells():
    assert n_draws(10**9, 9_000, None) == 99
    assert n_draws(10**9, tested.BUDGET // 30, None) == 30
    assert n_draws(10**9, tested.BUDGET // 19 + 1, None) == 0
    assert n_draws(7, 9_000, None) == 7
    assert n_draws(10**9, tested.BUDGET, 40) == 40


def test_a_run_that_cannot_be_replayed_or_made_no_trade_says_so(published, bars, monkeypatch):
    result = published.result
    altered = replace(published, result=replace(result, equity=result.equity * (1.0 + 1e-15)))
    assert "does not follow from the predictions" in placebo(altered)["direction"]["sentence"]
    assert np.any(altered.result.equity != result.equity)
    idle = research.backtest(bars, knowing(bars, 0.0), Params().with_values({"decide.min_edge": 0.04}))
    assert placebo(idle)["timing"]["sentence"] == "Not tested: the run made no trade, so there is nothing to test."
    monkeypatch.setattr(tested, "BUDGET", 1_000)
    assert "more than the 1,000 cells that every run is given; Run.placebo(draws=19) makes them" in placebo(published)["timing"]["sentence"]


def test_evidence_page_and_table_tell_the_same(priced, tmp_path):
    run = replace(priced)
    folder = run.save(tmp_path / "run", record=False)
    stored = json.loads((folder / "summary.json").read_text())["evidence"]["placebo"]
    assert stored == run.summary["evidence"]["placebo"] == json.loads(json.dumps(placebo(research.load_run(folder))))
    table, page = run.placebo(), run.report(tmp_path / "page.html").read_text()
    for name in ("timing", "direction"):
        one = stored[name]
        reached = sum(each >= stored["mean"] for each in one["draws"])
        assert one["p"] == table.loc[name, "p"] == (1 + reached) / (1 + len(one["draws"]))
        assert one["floor"] == table.loc[name, "below"] == 1 / (1 + len(one["draws"]))
        assert f"so never below {one['floor']:.3f}" in one["sentence"]
        assert one["sentence"] in page
    assert run.placebo(5)["draws"].tolist() == [5, 5]
    equity, day = run.result.equity, run.bars.open_time // NS_PER_DAY
    ends = [equity[day == each][-1] for each in np.unique(day)]
    returns = np.array(ends) / np.append(10_000.0, ends[:-1]) - 1.0
    assert stored["mean"] == pytest.approx(returns.mean(), rel=1e-12)
    assert figures.placebo(None) is None


def test_placebos_do_not_decide(priced):
    told = [replace(priced) for _ in range(2)]
    told[1].placebos = {**told[0].placebos, "timing": tested.refused("it is another"), "direction": tested.refused("it is another")}
    one, other = (run.summary for run in told)
    assert one["evidence"]["placebo"] != other["evidence"]["placebo"]
    assert (one["verdict"], one["evidence"]["sentence"]) == (other["verdict"], other["evidence"]["sentence"])


def test_in_noise_p_is_uniform_and_with_a_skill_small():
    found = {0.0: [], 0.6: []}
    for skill, ps in found.items():
        for seed in range(30 if skill == 0.0 else 6):
            bars = research.load_bars(f"simulated:random_walk?n_bars=1200&n_symbols=2&seed={seed}")
            run = research.backtest(bars, knowing(bars, skill, seed, n_folds=2), PUBLISHED.with_values(FREE))
            both = placebo(run, 39)
            ps.append([both[name]["p"] for name in ("timing", "direction")])
    noise, known = (np.array(ps) for ps in found.values())
    assert np.all(np.abs(noise.mean(axis=0) - 0.5) < 3.0 * math.sqrt(1.0 / 12.0 / len(noise)))
    assert np.all((noise <= 0.1).sum(axis=0) <= 9)  # of 30 at a rate of 0.1: more in one of 2,000 suites
    assert np.all(known <= 0.05)
