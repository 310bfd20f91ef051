"""Threshold sensitivity: the rule that each steers, how often that rule was reached and decided, and the values that change nothing.

Head counts take few values (four votes agree to a half, three quarters or whole), so many values of a threshold are one and the same. The
span of equal values is found by asking the chain's own pattern table at every share of up to five votes and between them.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from qtcore.choices import MetaMode
from qtcore.params import NUMBERS
from qtcore.reading import is_read
from qtcore.rules import Reason, Rule, rules_of
from qtcore.types import Action, Verdict
from research.evidence.reachability import (
    DECIDED,
    NEVER,
    UNREACHABLE,
    RuleContext,
    arbiter_answers,
    asks_model,
    may_escalate,
    possible,
    reasons_of,
    scenes_of,
)
from research.runs.record import RunRecord

SHARES = sorted({k / n for n in range(1, 6) for k in range(n + 1)} | {1.0 - k / n for n in range(1, 6) for k in range(n + 1)})
TOP = 0.95  # the arbiter's highest confidence (`spec` 9.3)


@dataclass(frozen=True)
class ThresholdRule:
    """A threshold and the rules it decides by; layer: which table of rules they stand in."""

    name: str
    layer: str
    rules: tuple[Reason, ...]


def steered(scenes: list[RuleContext]) -> list[ThresholdRule]:
    """List the thresholds that the mode asks and the parameters let it read, in the order in which their rules are asked."""
    mode, judges = scenes[0].params.meta.mode, any(scene.params.meta.enabled for scene in scenes)
    asked = [*(rules_of("meta", mode) if judges else ()), *rules_of("arbiter"), *rules_of("governor")]
    by_name: dict[str, list[Rule]] = {}
    for rule in asked:
        if rule.parameter in NUMBERS and any(is_read(scene.params, rule.parameter) for scene in scenes):
            by_name.setdefault(rule.parameter, []).append(rule)
    return [ThresholdRule(name, rules[0].layer, tuple(rule.reason for rule in rules)) for name, rules in by_name.items()]


def thresholds(run: RunRecord, rules: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Describe every threshold; `rules` is what `reachability.rules` gave.

    One row: `parameter`, `value`, `rules`, `reached`, `decided`, `status`, `why`, and `same` [low, high], values between which nothing
    differs (`same_text` says which ends belong to it); None where that is not known.
    """
    scenes = scenes_of(run)
    flat = run.params.flat()
    out = []
    for item in steered(scenes):
        rows = [r for r in rules[item.layer] if r["rule"] in {rule.name for rule in item.rules}]
        decided = sum(r["decided"] for r in rows)
        row: dict[str, Any] = {"parameter": item.name, "value": flat[item.name], "rules": [r["rule"] for r in rows]}
        row |= {"reached": max((r["reached"] for r in rows), default=0), "decided": decided}
        dead = all(r["status"] == UNREACHABLE for r in rows)
        row |= {"status": DECIDED if decided else (UNREACHABLE if dead else NEVER), "why": rows[0]["why"] if dead and rows else ""}
        row |= {"same": None, "same_text": ""}
        out.append(row | _same(item.name, scenes, run))
    return out


def _same(name: str, scenes: list[RuleContext], run: RunRecord) -> dict[str, Any]:
    """Span of equal values, where it can be proven."""
    policy = scenes[0].params.meta.mode == MetaMode.POLICY
    judged = [scene for scene in scenes if scene.params.meta.enabled]
    if name in ("meta.consensus_threshold", "meta.disagreement_threshold") and policy:
        return same_shares(judged, name)
    if name == "meta.low_confidence" and not any(Reason.LOW_ENSEMBLE_CONFIDENCE in low_reasons(scene) for scene in judged):
        return {"same": [0.0, 1.0], "same_text": "any value"}
    if name == "meta.entropy_threshold" and not any(asks_model(scene.params.meta, possible(scene)) for scene in judged):
        return {"same": [0.0, 1.0], "same_text": "any value"}
    if name == "arbiter.gate_confidence":
        return gate_row(scenes, run)
    return edge_row(run) if name == "decide.min_edge" else {}


def edge_row(run: RunRecord) -> dict[str, Any]:
    """Count the cells that an edge above costs brought to the least edge, and those that it turned away."""
    edge = run.result.decisions.edge
    if edge is None:
        return {}
    decided = int(np.count_nonzero((edge > 0.0) & (edge <= run.params.decide.min_edge)))
    return {"reached": int(np.count_nonzero(edge > 0.0)), "decided": decided, "status": DECIDED if decided else NEVER, "why": ""}


def low_reasons(scene: RuleContext) -> set[Reason]:
    """Reasons that the head-count rules can give where the base confidence is low."""
    return {Reason(r) for voters in scene.voters for r in np.unique(reasons_of(scene.params, voters, True))}


def same_shares(scenes: list[RuleContext], name: str) -> dict[str, Any]:
    """Find the span around a share's value in which every vote pattern of the models present gets the same answer."""
    value = float(scenes[0].params.flat()[name])
    points = sorted({*SHARES, value, *((a + b) / 2.0 for a, b in pairwise(SHARES))})
    answers = [_answers(scenes, name, point) for point in points]
    here = points.index(value)
    low, high = here, here
    while low > 0 and answers[low - 1] == answers[here]:
        low -= 1
    while high + 1 < len(points) and answers[high + 1] == answers[here]:
        high += 1
    start, stop = points[low], points[high]
    opens = low > 0 and start not in SHARES  # a point between shares stands for all that lie there: the share below is the open end
    ends = high + 1 < len(points) and stop not in SHARES
    start = max(s for s in SHARES if s < start) if opens else start
    stop = min(s for s in SHARES if s > stop) if ends else stop
    if (low, high) == (0, len(points) - 1):
        return {"same": [0.0, 1.0], "same_text": "any value"}
    text = f"{'above' if opens else 'from'} {start:.3g} {'to below' if ends else 'to'} {stop:.3g}"
    return {"same": [start, stop], "same_text": text}


def _answers(scenes: list[RuleContext], name: str, value: float) -> bytes:
    out = []
    for scene in scenes:
        params = scene.params.with_values({name: value})
        out += [reasons_of(params, voters, low).tobytes() for voters in scene.voters for low in (False, True)]
    return b"".join(out)


def gate_row(scenes: list[RuleContext], run: RunRecord) -> dict[str, Any]:
    """Say what the gate can do: below the least confidence of a BUY or SELL it turns away HOLD alone, above the highest everything."""
    arbiter = run.params.arbiter
    least = min(TOP, 0.70 + 0.5 * arbiter.score_threshold)
    d = run.result.decisions
    called = (d.n_voters > 0) & (d.verdict == Verdict.ESCALATE) & (d.arbiter_action >= 0)
    refused = called & (d.arbiter_action != Action.HOLD) & (d.arbiter_reason == Reason.DEFER_LOW_CONFIDENCE)
    decided = int(np.count_nonzero(refused))
    out: dict[str, Any] = {"reached": int(np.count_nonzero(called)), "decided": decided}
    if not any(may_escalate(scene) and scene.params.arbiter.enabled for scene in scenes):
        return {"same": [0.0, 1.0], "same_text": "any value", "status": UNREACHABLE, "why": "the arbiter is never asked"}
    signals = {Reason.BUY_SIGNAL, Reason.SELL_SIGNAL}
    if arbiter.gate_confidence <= least and not decided:
        why = "the arbiter's BUY and SELL are never less confident; it can turn away HOLD alone, which changes nothing"
        return out | {"same": [0.0, least], "same_text": f"from 0 to {least:.4g}", "status": UNREACHABLE, "why": why}
    if not signals & arbiter_answers(arbiter.score_threshold, arbiter.gate_confidence):
        why = "no answer of the arbiter is as confident: it changes nothing"
        return out | {"same": [TOP, 1.0], "same_text": f"above {TOP:.4g} to 1", "why": why, "status": DECIDED if decided else NEVER}
    return out | {"status": DECIDED if decided else NEVER, "why": ""}


def sentences(rules: dict[str, list[dict[str, Any]]], rows: list[dict[str, Any]], voters: list[dict[str, Any]]) -> list[str]:
    """Say in words which parts of the chain were dead in this run."""
    out = []
    for layer, name in (("meta", "Meta layer"), ("arbiter", "Arbiter"), ("governor", "Governor")):
        n = Counter(r["status"] for r in rules[layer] if not r["why"].startswith("counted on"))
        if n[UNREACHABLE] or n[NEVER]:
            dead = f"{n[UNREACHABLE]} rule{'' if n[UNREACHABLE] == 1 else 's'} out of reach with the voters and settings of this run"
            out.append(f"{name}: {dead}, {n[NEVER]} could have acted and never did")
    out += [f"`{r['parameter']}` = {r['value']:g} changes nothing ({r['why']})" for r in rows if r["status"] == UNREACHABLE]
    for v in [v for v in voters if len(v["models"]) >= 2][:1]:
        ways = sorted(v["leads_to"].items(), key=lambda item: -item[1])
        leads = ", ".join(f"{n} to {reason.replace('_', ' ').lower()}" for reason, n in ways)
        out.append(f"{len(v['models'])} models voted together on {v['cells']:,} cells; of their {v['patterns']} vote patterns lead {leads}")
    return out
