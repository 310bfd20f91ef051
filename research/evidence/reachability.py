"""Rule reachability: whether each rule of meta layer, arbiter and governor decided, never happened here, is unreachable, or is off.

*Unreachable* is proven, not observed. The head-count rules are asked about every vote pattern of the models that were present, by the
chain's own pattern table; the arbiter's answers follow from its score, from -1 to 1 and at the edges of every rule; limits of the governor
follow from arithmetic. What cannot be proven is *never here*: it could have happened and did not. With four voters the published policy
never asks its learned model, and the published gate can only turn away an arbiter that says HOLD (`spec` 7.4, 9.3).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.arbiter import settle_rule
from qtcore.chain.patterns import pattern_table
from qtcore.choices import DecideRule, MetaMode, MetaVariant, PolicyBase
from qtcore.params import Meta, Params
from qtcore.reading import is_read
from qtcore.rules import Reason, codes, rules_of
from qtcore.types import MODELS, N_MODELS, NS_PER_DAY, Action, Verdict
from research.evidence.rates import rule_counts
from research.evidence.seats import map_rows
from research.runs.record import RunRecord

DECIDED, NEVER, UNREACHABLE, OFF = "decided", "never here", "unreachable", "off"
FEW = (Reason.NO_VALID_MODELS, Reason.NO_PREDICTIONS, Reason.TOO_FEW_VOTERS)
CONSENSUS = (Reason.STRONG_CONSENSUS_SELL, Reason.STRONG_CONSENSUS_HOLD, Reason.STRONG_CONSENSUS_BUY)
ERRORS = (Reason.FEATURE_EXTRACTION_ERROR, Reason.FEATURE_DIM_MISMATCH, Reason.SCALING_ERROR)
LEARNED = (*ERRORS, Reason.PREDICTION_ERROR, Reason.UNDECIDED_MARKET, Reason.CLEAR_ENSEMBLE)  # answers of a loaded model, in policy mode
BETS = (Reason.BET_TAKEN, Reason.BET_SHRUNK, Reason.BET_SKIPPED)
BIDS = (Reason.NO_SEAT, Reason.DEFER_NO_EDGE)  # answers of an arbiter whose bids have a price
ESCALATES = {Reason.SPLIT_VOTE, Reason.HIGH_DISAGREEMENT, Reason.LOW_ENSEMBLE_CONFIDENCE}
THIRD = 0.333  # the largest of three probabilities is never below, whatever the rounding


@dataclass(frozen=True)
class RuleContext:
    """What a proof may use: the parameters, who voted together, and whether a learned meta model and probabilities were there.

    voters: sets of models that voted together, as bits (1 << slot), with the number of cells. daily: most entries that a UTC day can ask
    for, `symbols` times the bars of a day.
    """

    params: Params
    voters: dict[int, int]
    has_model: bool
    has_probs: bool
    daily: int


def scenes_of(run: RunRecord) -> list[RuleContext]:
    """Read the scenes of a run, one for each stage of its parameters; the first alone where nothing ever voted."""
    votes, bars, meta_action = run.result.votes, run.bars, run.result.decisions.meta_action
    bits = sum((votes.action[m] >= 0).astype(np.int64) << m for m in range(N_MODELS))
    answered = bool((meta_action >= 0).any()) or getattr(run, "meta", None) is not None
    daily = len(bars.symbols) * max(1, -(-NS_PER_DAY // bars.interval))
    out = []
    for rows, params in run.params.spans(bars.close_time):
        present, cells = np.unique(bits[rows][bits[rows] > 0], return_counts=True)
        voters = dict(zip(present.tolist(), cells.tolist()))
        out.append(RuleContext(params, voters, answered, votes.probs is not None, daily))
    return [scene for scene in out if scene.voters] or out[:1]


def patterns(voters: int) -> NDArray[np.int64]:
    """Numbers of all vote patterns of a set of models, 3 to the power of its size; see `qtcore.chain.patterns`."""
    slots = [m for m in range(N_MODELS) if voters >> m & 1]
    votes = np.indices((3,) * len(slots)).reshape(len(slots), -1) + 1
    return np.asarray(np.array([4**m for m in slots], np.int64) @ votes)


def reasons_of(params: Params, voters: int, is_low: bool) -> NDArray[np.int64]:
    """Reason of the policy for every vote pattern of a set of models, in every regime: `[slices, 3^voters]`."""
    table = pattern_table(params.record()).reshape(-1, 1024)[:, patterns(voters)].astype(np.int64)
    return np.asarray(table >> (18 if is_low else 11) & 31)


def possible(scene: RuleContext) -> set[Reason]:
    """Reasons that the policy's head-count rules can give with the voters present; LOW_ENSEMBLE_CONFIDENCE stands for `is low`."""
    meta = scene.params.meta
    floor = THIRD * min(1.0, *scene.params.ensemble.multipliers) if scene.has_probs and meta.policy_base == PolicyBase.SHARED else 0.0
    lows = (False, True) if meta.low_confidence > floor else (False,)
    return {Reason(r) for voters in scene.voters for low in lows for r in np.unique(reasons_of(scene.params, voters, low))}


def voter_table(scenes: list[RuleContext], voters_of: Sequence[str] = MODELS) -> list[dict[str, Any]]:
    """For each set of models that voted together: its cells, its patterns, and how many of them lead to each reason of the policy.

    voters_of: who votes in each of the five slots.
    """
    out = []
    together = sum((Counter(scene.voters) for scene in scenes), Counter[int]())
    for voters, cells in together.most_common():
        reasons, n = np.unique(reasons_of(scenes[0].params, voters, False)[0], return_counts=True)
        names = [slot for m, slot in enumerate(voters_of) if voters >> m & 1]
        leads = {Reason(r).name: int(k) for r, k in zip(reasons, n)}
        out.append({"models": names, "cells": cells, "patterns": 3 ** len(names), "leads_to": leads})
    return out


def meta_limits(scene: RuleContext) -> tuple[dict[Reason, str], set[Reason]]:
    """Name the meta rules that are unreachable, with the reason, and those that are off in this mode."""
    meta, every = scene.params.meta, set(codes(rules_of("meta")))
    off = every - set(codes(rules_of("meta", meta.mode))) if meta.enabled else every - {Reason.NONE}
    dead = declared_limits(scene, "meta")
    sizes = {bin(v).count("1") for v in scene.voters}
    if 1 not in sizes:
        dead[Reason.TOO_FEW_VOTERS] = "at least two models voted on every cell with a vote"
    if meta.mode == MetaMode.POLICY:
        found = possible(scene)
        head = (*CONSENSUS, Reason.SPLIT_VOTE, Reason.HIGH_DISAGREEMENT, Reason.LOW_ENSEMBLE_CONFIDENCE, Reason.CLEAR_ENSEMBLE_NO_MODEL)
        dead |= {r: "no vote pattern of the models present leads here" for r in head if r not in found}
        if not asks_model(meta, found):
            dead |= dict.fromkeys(LEARNED, "no vote pattern of the models present gets past the head-count rules")
        elif not scene.has_model:
            dead |= dict.fromkeys(LEARNED, "no learned meta model in this run")
        elif meta.entropy_threshold >= 1.0:
            dead[Reason.UNDECIDED_MARKET] = "an entropy above 1 does not exist"
    else:
        dead |= _learned_limits(scene, sizes)
    return {r: why for r, why in dead.items() if r not in off}, off


def _learned_limits(scene: RuleContext, sizes: set[int]) -> dict[Reason, str]:
    """Override and v5: what a class probability between a third and one can reach."""
    meta, dead = scene.params.meta, {}
    is_v5 = meta.mode == MetaMode.V5
    acts = (Reason.META_V5_OVERRIDE,) if is_v5 else (Reason.META_OVERRIDE_SELL, Reason.META_OVERRIDE_HOLD, Reason.META_OVERRIDE_BUY)
    threshold = meta.v5_threshold if is_v5 else meta.override_threshold
    if not scene.has_model:
        before = (*FEW, Reason.MODEL_NOT_LOADED, Reason.NONE)
        return dict.fromkeys((r for r in codes(rules_of("meta", meta.mode)) if r not in before), "no learned meta model in this run")
    if threshold < THIRD:
        dead[Reason.META_LOW_CONFIDENCE] = "the largest of three probabilities is never below one third"
    if is_v5 and threshold >= 1.0:
        dead |= dict.fromkeys((*acts, Reason.CONSENSUS_GUARD), "no probability lies above 1")
    shares = {k / n for n in sizes if n >= 2 for k in range(-(-n // 3), n + 1)}
    if not is_v5 and shares and min(shares) >= meta.consensus_threshold:
        after = (*ERRORS, Reason.PREDICTION_ERROR, Reason.INVALID_CONFIDENCE, Reason.META_LOW_CONFIDENCE, *acts)
        dead |= dict.fromkeys(after, "every vote pattern is a consensus")
    if not is_v5 and shares and max(shares) < meta.consensus_threshold:
        dead |= dict.fromkeys(CONSENSUS, "no vote pattern of the models present is a consensus")
    return dead


def arbiter_answers(threshold: float, gate: float) -> set[Reason]:
    """Reasons that the arbiter can give for known indicators: its own rule, asked at scores from -1 to 1 and at the edges."""
    rule: Callable[..., Any] = getattr(settle_rule, "py_func", settle_rule)
    edges = [0.0, 0.1, threshold, np.nextafter(threshold, 0.0), max(0.0, threshold - 1e-9), 0.5, 1.0]
    found = set()
    for size in np.unique(np.clip([*edges, *np.linspace(0.0, 1.0, 201)], 0.0, 1.0)):
        for score in (size, -size):
            action, confidence = rule(score, threshold)
            if confidence < gate:
                found.add(Reason.DEFER_LOW_CONFIDENCE)
            elif action == Action.HOLD:
                found.add(Reason.DEFER_ACTION_IS_HOLD)
            else:
                found.add(Reason.BUY_SIGNAL if action == Action.BUY else Reason.SELL_SIGNAL)
    return found


def arbiter_limits(scene: RuleContext) -> dict[Reason, str]:
    """Name the arbiter rules that are unreachable, with the reason."""
    arbiter = scene.params.arbiter
    every = codes(rules_of("arbiter"))
    if scene.params.decide.rule == DecideRule.EDGE and arbiter.enabled:
        unread = [rule.reason for rule in rules_of("arbiter") if rule.parameter and not is_read(scene.params, rule.parameter)]
        return declared_limits(scene, "arbiter") | dict.fromkeys(unread, "its parameter is not read where decide.rule is edge")
    if not may_escalate(scene):
        return dict.fromkeys(every, "nothing is ever escalated")
    if not arbiter.enabled:
        return {r: "arbiter.enabled is off" for r in every if r != Reason.NOT_AVAILABLE}
    found = arbiter_answers(arbiter.score_threshold, arbiter.gate_confidence)
    asked = (Reason.DEFER_LOW_CONFIDENCE, Reason.DEFER_ACTION_IS_HOLD, Reason.BUY_SIGNAL, Reason.SELL_SIGNAL)
    dead = {r: "no score leads here" for r in asked if r not in found}
    return declared_limits(scene, "arbiter") | dict.fromkeys(BIDS, "asked only where decide.rule is edge") | dead


def may_escalate(scene: RuleContext) -> bool:
    """Whether any cell can be escalated."""
    meta = scene.params.meta
    if not meta.enabled or meta.mode != MetaMode.POLICY:
        return False
    found = possible(scene)
    learned = scene.has_model and meta.entropy_threshold < 1.0 and asks_model(meta, found)
    return learned or bool(found & ESCALATES)


def asks_model(meta: Meta, found: set[Reason]) -> bool:
    """Whether a reason in `found` asks the policy's learned model. The variant `learned` asks it about what would escalate too."""
    return Reason.CLEAR_ENSEMBLE_NO_MODEL in found or (meta.variant == MetaVariant.LEARNED and bool(found & ESCALATES))


def declared_limits(scene: RuleContext, layer: str) -> dict[Reason, str]:
    """Name the rules of a layer that are switched off, or that the table says never decide a cell, with the reason."""
    values = scene.params.flat()
    return {rule.reason: why for rule in rules_of(layer) if (why := rule.why_never(values))}


def governor_limits(scene: RuleContext) -> dict[Reason, str]:
    """Name the governor rules that are unreachable, with the reason."""
    dead, limit = declared_limits(scene, "governor"), scene.params.governor.max_daily_trades
    if limit >= scene.daily:
        dead[Reason.DAILY_TRADE_LIMIT_REACHED] = f"a day holds {scene.daily:,} decisions at most, the limit is {limit:,}"
    return dead


def rules(run: RunRecord) -> dict[str, list[dict[str, Any]]]:
    """Tell of every rule, in the order of asking: cells that `reached` it, cells it `decided`, its `status`, and `why` it is dead.

    Of the answers to a bet also how many were `advised`: the layer had no seat, and the bet was made as if it had not been asked.
    """
    scenes = scenes_of(run)
    d, voted = run.result.decisions, run.result.decisions.n_voters > 0
    dead, off = _everywhere([meta_limits(scene) for scene in scenes])
    silent, _ = _everywhere([(arbiter_limits(scene), set()) for scene in scenes])
    asked = codes(rules_of("meta", scenes[0].params.meta.mode))
    order = (*asked, *(r for r in codes(rules_of("meta")) if r not in asked))
    called = voted & (d.verdict == Verdict.ESCALATE)
    wished = voted & (d.raw_action != Action.HOLD)
    judged = _marked(rule_counts(d.meta_reason[voted], order), dead, off)
    if scenes[0].params.meta.mode == MetaMode.BET:
        heard = voted & (map_rows(run, slice(None))[0]["is_seated"] == 0)[:, None]
        for row in judged:
            if Reason[row["rule"]] in BETS:
                row["advised"] = int(np.count_nonzero(heard & (d.meta_reason == Reason[row["rule"]])))
    return {
        "meta": judged,
        "arbiter": _marked(rule_counts(d.arbiter_reason[called], codes(rules_of("arbiter"))), silent, set()),
        "governor": _marked(
            rule_counts(run.result.governor_reason[wished], codes(rules_of("governor"))), governor_limits(scenes[0]), set()
        ),
    }


def _everywhere(limits: list[tuple[dict[Reason, str], set[Reason]]]) -> tuple[dict[Reason, str], set[Reason]]:
    """Combine stages: off where off in all, dead where no stage lets a rule live."""
    off = set.intersection(*(idle for _, idle in limits))
    known = {r: why for dead, _ in limits for r, why in dead.items()}
    return {r: why for r, why in known.items() if all(r in dead or r in idle for dead, idle in limits)}, off


def _marked(rows: list[dict[str, Any]], dead: dict[Reason, str], off: Iterable[Reason]) -> list[dict[str, Any]]:
    """Give each rule its status; what decided is alive whatever was proven, so a wrong proof shows."""
    idle = {r.name for r in off}
    for row in rows:
        why = dead.get(Reason[row["rule"]], "")
        status = UNREACHABLE if why else (OFF if row["rule"] in idle else NEVER)
        row["status"] = DECIDED if row["decided"] else status
        row["why"] = "" if row["decided"] else why
    return rows
