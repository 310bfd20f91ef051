"""Is a rule called unreachable only where it is? Against every vote pattern, written from the specification, and against whole runs."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from qtcore import Params
from qtcore.chain.decide import decide
from qtcore.rules import Reason, codes, rules_of
from qtcore.types import MODELS, NS_PER_DAY, NS_PER_HOUR, Votes
from research.evidence.reachability import (
    DECIDED,
    NEVER,
    OFF,
    UNREACHABLE,
    RuleContext,
    arbiter_answers,
    arbiter_limits,
    governor_limits,
    may_escalate,
    meta_limits,
    patterns,
    possible,
    reasons_of,
    rules,
    scenes_of,
    voter_table,
)
from research.evidence.thresholds import SHARES, same_shares, thresholds
from tests.naive.evidence import policy_reason, vote_counts
from tests.support import PUBLISHED
from tests.support.fake_run import fake_run

FOUR, THREE, TWO, FIVE = 0b01111, 0b00111, 0b00011, 0b11111


def scene(*voters, has_model=True, has_probs=False, daily=24, **values):
    params = PUBLISHED.with_values({name.replace("__", "."): value for name, value in values.items()})
    return RuleContext(params, dict.fromkeys(voters, 100), has_model, has_probs, daily)


def names(found):
    return {r.name for r in found}


# head counts


@pytest.mark.parametrize("voters", [TWO, 0b01010, THREE, 0b10110, FOUR, FIVE])
@pytest.mark.parametrize("is_low", [False, True])
def test_every_vote_pattern_gets_the_reason_of_the_specification(voters, is_low):
    got = Counter(Reason(r).name for r in reasons_of(PUBLISHED, voters, is_low)[0])
    assert got == Counter(policy_reason(*counts, is_low) for counts in vote_counts(bin(voters).count("1")))


def test_patterns_are_all_different_and_of_the_voters_alone():
    for voters in (TWO, 0b10100, FOUR, FIVE):
        found = patterns(voters)
        assert len(set(found.tolist())) == 3 ** bin(voters).count("1")
        for m in range(len(MODELS)):
            digits = set((found // 4**m % 4).tolist())
            assert digits == ({1, 2, 3} if voters >> m & 1 else {0})


def test_four_voters_lead_27_6_and_48_ways_and_never_to_the_learned_model():
    row = voter_table([scene(FOUR)])[0]
    assert (row["patterns"], row["models"]) == (81, list(MODELS[:4]))
    assert row["leads_to"] == {
        "STRONG_CONSENSUS_SELL": 9, "STRONG_CONSENSUS_HOLD": 9, "STRONG_CONSENSUS_BUY": 9, "SPLIT_VOTE": 6, "HIGH_DISAGREEMENT": 48,
    }  # fmt: skip
    dead, _ = meta_limits(scene(FOUR))
    learned = {
        "LOW_ENSEMBLE_CONFIDENCE",
        "CLEAR_ENSEMBLE_NO_MODEL",
        "UNDECIDED_MARKET",
        "CLEAR_ENSEMBLE",
        "PREDICTION_ERROR",
        "SCALING_ERROR",
    }
    assert learned <= names(dead)
    assert not {"SPLIT_VOTE", "HIGH_DISAGREEMENT", "STRONG_CONSENSUS_BUY"} & names(dead)


def test_three_or_five_voters_reach_it_and_one_cell_of_them_is_enough():
    for others in ((THREE,), (FIVE,), (FOUR, THREE)):
        dead, _ = meta_limits(scene(*others))
        assert not {"LOW_ENSEMBLE_CONFIDENCE", "CLEAR_ENSEMBLE_NO_MODEL", "UNDECIDED_MARKET"} & names(dead)
    assert "SPLIT_VOTE" in names(meta_limits(scene(THREE))[0])
    assert "SPLIT_VOTE" not in names(meta_limits(scene(FIVE))[0])  # 2 : 2 : 1
    assert "UNDECIDED_MARKET" in names(meta_limits(scene(THREE, has_model=False))[0])
    assert "UNDECIDED_MARKET" in names(meta_limits(scene(THREE, meta__entropy_threshold=1.0))[0])


def test_absent_models_that_count_as_hold_change_what_is_reachable():
    assert "HIGH_DISAGREEMENT" in names(possible(scene(TWO, meta__missing_fill="hold_half")))
    assert "SPLIT_VOTE" not in names(possible(scene(TWO, meta__missing_fill="hold_half")))


def test_a_low_confidence_that_no_probability_can_have_is_not_asked():
    assert "LOW_ENSEMBLE_CONFIDENCE" in names(meta_limits(scene(THREE, has_probs=True, meta__low_confidence=0.3))[0])
    assert "LOW_ENSEMBLE_CONFIDENCE" not in names(meta_limits(scene(THREE, has_probs=False, meta__low_confidence=0.3))[0])
    assert "LOW_ENSEMBLE_CONFIDENCE" in names(meta_limits(scene(THREE, meta__low_confidence=0.0))[0])


@pytest.mark.parametrize(("mode", "act"), [("override", "META_OVERRIDE_BUY"), ("v5", "META_V5_OVERRIDE")])
def test_the_other_modes_have_rules_of_their_own(mode, act):
    dead, off = meta_limits(scene(FOUR, meta__mode=mode))
    assert act not in names(dead) | names(off)
    assert {"SPLIT_VOTE", "UNDECIDED_MARKET"} <= names(off)
    assert act in names(meta_limits(scene(FOUR, meta__mode=mode, has_model=False))[0])
    threshold = {"meta.override_threshold" if mode == "override" else "meta.v5_threshold": 0.3}
    assert "META_LOW_CONFIDENCE" in names(
        meta_limits(scene(FOUR, meta__mode=mode, **{k.replace(".", "__"): v for k, v in threshold.items()}))[0]
    )


def test_what_the_chain_decides_is_never_called_unreachable():
    """Random votes of random voters through the real chain, in every mode, with and without a model."""
    rng = np.random.default_rng(0)
    seen = set()
    modes = ("policy", "learned", "override", "v5")
    for mode, voters, has_model in itertools.product(modes, (TWO, THREE, FOUR, FIVE), (False, True)):
        params = PUBLISHED.with_values({"meta.variant": mode} if mode == "learned" else {"meta.mode": mode})
        action = np.full((5, 400, 1), -1, np.int8)
        for m in range(5):
            if voters >> m & 1:
                action[m] = rng.integers(0, 3, (400, 1))
        confidence = np.where(action >= 0, rng.uniform(0.34, 1.0, action.shape), np.nan)
        probs = rng.dirichlet((1.0, 1.0, 1.0), (400, 1)).transpose(2, 0, 1).copy() if has_model else None
        d = decide(Votes(action, confidence), rng.normal(0, 1, (6, 400, 1)), rng.random((2, 400, 1)), params, probs)
        case = RuleContext(params, {voters: 400}, has_model, False, 24)
        dead, off = meta_limits(case)
        decided = {Reason(r) for r in np.unique(d.meta_reason)}
        assert decided <= set(codes(rules_of("meta", params.meta.mode)))
        assert not decided & (set(dead) | off), (mode, voters, has_model)
        asked = {Reason(r) for r in np.unique(d.arbiter_reason[d.verdict == 3])}
        assert not asked & set(arbiter_limits(case))
        seen |= decided
    assert {Reason.UNDECIDED_MARKET, Reason.META_OVERRIDE_SELL, Reason.META_V5_OVERRIDE, Reason.CONSENSUS_GUARD} <= seen


# arbiter and governor


def test_the_published_gate_can_only_turn_away_hold():
    published = arbiter_answers(0.15, 0.70)
    assert names(published) == {"BUY_SIGNAL", "SELL_SIGNAL", "DEFER_LOW_CONFIDENCE", "DEFER_ACTION_IS_HOLD"}
    assert names(arbiter_answers(0.15, 0.775)) == {"BUY_SIGNAL", "SELL_SIGNAL", "DEFER_LOW_CONFIDENCE"}
    assert "BUY_SIGNAL" not in names(arbiter_answers(0.15, 0.96))
    assert names(arbiter_answers(0.15, 0.0)) == {"BUY_SIGNAL", "SELL_SIGNAL", "DEFER_ACTION_IS_HOLD"}


def test_the_arbiter_is_not_asked_where_nothing_escalates():
    assert may_escalate(scene(FOUR))
    assert not may_escalate(scene(FOUR, meta__enabled=False))
    assert not may_escalate(scene(FOUR, meta__mode="override"))
    assert not may_escalate(scene(TWO, meta__consensus_threshold=0.5))
    assert "BUY_SIGNAL" in names(arbiter_limits(scene(TWO, meta__consensus_threshold=0.5)))
    assert "BUY_SIGNAL" in names(arbiter_limits(scene(FOUR, arbiter__enabled=False)))


def test_a_seat_and_an_edge_are_asked_for_only_where_opinions_have_a_price():
    priced = replace(scene(FOUR), params=Params())
    assert {"NO_SEAT", "DEFER_NO_EDGE"} <= names(arbiter_limits(scene(FOUR)))
    assert not {"NO_SEAT", "DEFER_NO_EDGE"} & names(arbiter_limits(priced))


def test_limits_of_the_governor_follow_from_arithmetic():
    assert "DAILY_TRADE_LIMIT_REACHED" in names(governor_limits(scene(FOUR, daily=20)))
    assert "DAILY_TRADE_LIMIT_REACHED" not in names(governor_limits(scene(FOUR, daily=21)))
    assert "SHORTS_DISABLED" not in names(governor_limits(scene(FOUR, broker__allow_short=False)))
    assert "COOLDOWN_ACTIVE" in names(governor_limits(scene(FOUR, governor__cooldown_minutes=0)))


# thresholds


def test_equal_values_of_a_threshold_are_those_between_shares():
    assert same_shares([scene(FOUR)], "meta.consensus_threshold") == {"same": [0.5, 0.75], "same_text": "above 0.5 to 0.75"}
    assert same_shares([scene(FOUR)], "meta.disagreement_threshold") == {"same": [0.0, 0.5], "same_text": "from 0 to 0.5"}
    three = same_shares([scene(THREE)], "meta.consensus_threshold")["same"]
    assert three == pytest.approx([2 / 3, 1.0])


@pytest.mark.parametrize("voters", [TWO, THREE, FOUR, FIVE])
@pytest.mark.parametrize("name", ["meta.consensus_threshold", "meta.disagreement_threshold"])
def test_inside_the_span_nothing_differs_and_outside_something_does(voters, name):
    case = scene(voters)
    found = same_shares([case], name)
    low, high = found["same"]

    def answers(value):
        share = {"consensus" if "consensus" in name else "disagreement": value}
        return [policy_reason(*counts, False, **share) for counts in vote_counts(bin(voters).count("1"))]

    here = answers(PUBLISHED.flat()[name])
    inside = [v for v in np.linspace(0.0, 1.0, 401) if low + 1e-9 < v < high - 1e-9]
    assert all(answers(v) == here for v in inside)
    for beyond in (low - 1e-6, high + 1e-6):
        if 0.0 <= beyond <= 1.0:
            assert answers(beyond) != here
    assert SHARES[0] == 0.0


def test_a_whole_run_names_what_was_dead():
    run = fake_run(n=600, seed=1)
    table = rules(run)
    assert {r["rule"] for r in table["meta"]} == {r.name for r in codes(rules_of("meta"))}
    for layer in table.values():
        for row in layer:
            assert row["status"] in {DECIDED, NEVER, UNREACHABLE, OFF}
            assert (row["status"] == DECIDED) == (row["decided"] > 0)
            assert bool(row["why"]) == (row["status"] == UNREACHABLE)
    by_name = {r["parameter"]: r for r in thresholds(run, table)}
    assert by_name["meta.low_confidence"]["status"] == UNREACHABLE
    assert by_name["meta.low_confidence"]["same_text"] == "any value"
    assert by_name["governor.min_confidence"]["status"] == DECIDED
    gate = by_name["arbiter.gate_confidence"]
    assert gate["status"] == UNREACHABLE
    assert gate["same"] == pytest.approx([0.0, 0.775])
    assert scenes_of(run)[0].daily == 4 * NS_PER_DAY // NS_PER_HOUR


def test_a_rule_that_lives_in_one_stage_is_not_dead():
    run = fake_run(n=600, seed=1)
    start = np.datetime_as_string(np.datetime64(int(run.bars.close_time[300]), "ns"), unit="m")
    run.params = run.params.with_values({"meta.enabled": False, "stages": [(start, True, True)]})
    assert [s.params.meta.enabled for s in scenes_of(run)] == [False, True]
    status = {r["rule"]: r["status"] for layer in rules(run).values() for r in layer}
    assert status["SPLIT_VOTE"] == UNREACHABLE
    assert status["HIGH_DISAGREEMENT"] == DECIDED
    assert status["BUY_SIGNAL"] == DECIDED
    run.params = run.params.with_values({"stages": []})
    status = {r["rule"]: r["status"] for layer in rules(run).values() for r in layer}
    assert status["SPLIT_VOTE"] == OFF


def test_the_learned_variant_asks_its_model_about_four_votes():
    dead, _ = meta_limits(scene(FOUR, meta__variant="learned"))
    assert not {"UNDECIDED_MARKET", "CLEAR_ENSEMBLE"} & names(dead)
    assert "CLEAR_ENSEMBLE_NO_MODEL" in names(dead)
    assert "UNDECIDED_MARKET" in names(meta_limits(scene(FOUR, meta__variant="learned", has_model=False))[0])


def test_a_gate_above_every_confidence_is_told():
    run = fake_run(n=300, seed=1)
    run.params = run.params.with_values({"arbiter.gate_confidence": 0.99})
    run.result.decisions.arbiter_reason[run.result.decisions.arbiter_reason == Reason.BUY_SIGNAL] = Reason.DEFER_LOW_CONFIDENCE
    gate = next(r for r in thresholds(run, rules(run)) if r["parameter"] == "arbiter.gate_confidence")
    assert "no answer of the arbiter is as confident" in gate["why"]
    assert gate["status"] == DECIDED
