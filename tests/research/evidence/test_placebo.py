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
from research.evidence.placebo import Part, Replay, drawn, memory_of, n_draws, placebo
from research.report import figures
from research.runs import tables
from tests.support import PUBLISHED

FREE = {"governor.min_confidence": 0.0, "meta.enabled": False, "arbiter.enabled": False}
OFTEN = {"governor.cooldown_minutes": 0, "governor.max_daily_trades": 10_000, "governor.max_drawdown": 1.0, "governor.stop_loss": 1.0}
OFTEN |= {"broker.fee_rate": 0.0, "broker.slippage_rate": 0.0}
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
    """The predictions of other rows, [n, S]."""
    columns = np.arange(at.shape[1])
    return replace(votes, **{name: getattr(votes, name)[:, at, columns] for name in ("action", "confidence", "probs")})


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
    for said in (replay.moved(replay.unmoved), replay.turned(np.ones(replay.n, np.int64))):
        assert np.array_equal(replay.equity(said), own)
    assert replay.is_exact


def test_a_run_that_fills_at_the_close_meets_the_volume_before_its_first_vote(bars):
    votes = research.Predictions.random(bars, seed=1)
    late = replace(votes, action=np.where(np.arange(bars.n)[:, None] < 200, -1, votes.action).astype(np.int8))
    run = research.backtest(bars, late, PUBLISHED.with_values(FREE | {"broker.fill": "close", "broker.impact": 0.05}))
    replay = Replay(run, tables.tested_rows(run))
    assert replay.rows.start == 200
    assert len(run.result.fills) > 50
    assert replay.is_exact


def test_each_shift_is_the_run_of_shifted_predictions(either):
    replay = Replay(either, tables.tested_rows(either))
    source = replay.unmoved
    (fold,) = replay.folds
    fold.move(source, 9)
    at = np.repeat(np.arange(either.bars.n)[:, None], replay.n_symbols, axis=1)
    at[replay.rows] = source + replay.rows.start
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
    action, _, (gross, edge, *_) = replay.turned(np.full(replay.n, -1, np.int64))
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
    source = replay.unmoved
    replay.folds[0].move(source, 4)
    again = research.backtest(bars, moved(votes, source), run.params, meta=run.meta)
    assert np.array_equal(replay.equity(replay.moved(source)), again.result.equity)


def part_of(hours: np.ndarray) -> Part:
    """One symbol with bars at these hours."""
    return Part.of(np.arange(len(hours)), np.arange(1), START + NS_PER_HOUR * hours)


def test_days_take_over_days_within_their_fold():
    """A ragged first and last day stay; of a day that lacks an hour its neighbour takes what was said before it."""
    hours = np.arange(13, 24 * 5 + 6)
    hours = hours[hours != 24 * 2 + 7]
    part = part_of(hours)
    assert (part.n_days, part.count.tolist()) == (4, [24, 23, 24, 24])
    assert hours[part.rows].tolist() == [hour for hour in range(24, 24 * 5) if hour != 24 * 2 + 7]
    for shift in (0, part.n_days):
        assert np.array_equal(part.source(shift), part.rows)
    at = dict(zip(hours[part.rows].tolist(), hours[part.source(1)].tolist()))
    assert (at[24 * 3 + 7], at[24 * 3 + 8], at[24 * 3]) == (24 * 2 + 6, 24 * 2 + 8, 24 * 2)
    assert (at[24 * 2 + 6], at[24 * 2 + 8]) == (24 + 6, 24 + 8)
    assert (at[24], at[24 + 23]) == (24 * 4, 24 * 4 + 23)


def test_sessions_of_other_hours_are_taken_over_bar_by_bar():
    hours = np.concatenate([24 * day + 13 + np.arange(7) + (day >= 10) for day in range(20)])
    assert np.array_equal(part_of(hours).source(3), np.roll(np.arange(len(hours)), 21))


def test_a_symbol_that_is_listed_late_moves_within_its_own_days(bars):
    """What was said of it keeps falling on its own bars, all of it, and its gaps stay where they are."""
    late, gap, first = 700, slice(1_000, 1_100), 100
    close = bars.close.copy()
    close[:late, 1] = close[gap, 2] = np.nan
    planes = {name: np.where(np.isnan(close), np.nan, getattr(bars, name)) for name in ("open", "high", "low", "close", "volume")}
    holed = replace(bars, **planes)
    votes = research.Predictions.random(holed, seed=1)
    action = np.where((np.arange(bars.n)[:, None] < first) | np.isnan(close), -1, votes.action).astype(np.int8)
    run = research.backtest(holed, replace(votes, action=action), PUBLISHED.with_values(FREE))
    replay = Replay(run, tables.tested_rows(run))
    source, (fold,) = replay.unmoved, replay.folds
    fold.move(source, 9)
    has_vote = (replay.votes.action >= 0).any(axis=0)
    assert len(fold.parts) == 3
    assert np.array_equal(np.take_along_axis(has_vote, source, axis=0), has_vote)
    assert all(np.array_equal(np.sort(column), np.arange(replay.n)) for column in source.T[:2])
    assert (source != replay.unmoved)[has_vote].mean() > 0.9


def test_noise_that_leans_long_in_a_rising_market_of_listings_is_no_find():
    """Predictions without content of symbols that come later: p of the timing is fair, as nothing that was said is lost."""
    ps = []
    for seed in range(24):
        world = research.load_bars(f"simulated:random_walk?n_bars=1200&n_symbols=3&seed={seed}")
        rise = np.exp(0.002 * np.arange(world.n))[:, None]
        planes = {name: getattr(world, name) * rise for name in ("open", "high", "low", "close")} | {"volume": world.volume.copy()}
        for plane in planes.values():
            plane[:800, 1:] = np.nan
        rising = replace(world, **planes)
        votes = knowing(rising, 0.0, seed)
        probs = votes.probs + np.array([-0.2, 0.0, 0.2])
        probs[:, np.isnan(rising.close)] = np.nan
        leaning = research.Predictions.from_probs(rising, np.clip(probs, 0.0, 1.0), votes.fold, votes.labels, votes.label, imported=True)
        run = research.backtest(rising, leaning, PUBLISHED.with_values(FREE | OFTEN))
        ps.append(placebo(run, 19)["timing"]["p"])
    assert sum(p <= 0.05 for p in ps) <= 5  # of 24 at a rate of 0.05: more in one of 1,000 suites; where what was moved got lost it was 16


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
    assert [[len(part.rows) for part in fold.parts] for fold in replay.folds] == [[480], [480], [480]]  # of 500, by whole days
    assert memory_of(replay) == 2
    found = placebo(run)["timing"]
    days = [fold.n_days for fold in replay.folds]
    assert (found["memory_days"], found["horizon_days"], found["places"]) == (2, 1, [n // 2 for n in days])
    assert found["n_distinct"] == math.prod(n // 2 for n in days) - 1
    for fold, places in zip(replay.folds, found["places"]):
        step = fold.n_days // places
        assert min(step, fold.n_days - (places - 1) * step) >= 2
        (part,) = fold.parts
        assert set(part.source(step)) == set(part.rows)
    assert memory_of(Replay(research.backtest(bars, votes, PUBLISHED.with_values(FREE)), replay.rows)) == 1


def test_a_fold_of_too_few_days_cannot_be_shifted(bars):
    short = bars[:100]
    run = research.backtest(short, research.Predictions.random(short, seed=1), PUBLISHED.with_values({"broker.max_holding_bars": 70}))
    found = placebo(run)
    assert found["timing"]["p"] is None
    assert found["timing"]["sentence"] == (
        "Not tested: no shift is possible: the longest of 1 fold has 4 whole days, and places must be 3 days apart "
        "(horizon 3 days, memory of the predictions 1 day)."
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
