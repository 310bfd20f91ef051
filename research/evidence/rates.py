"""Activity rates of layers: how often each acted (`spec` D-95), and the count of every rule, in total and per regime slice."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.rules import Reason, refusals
from qtcore.types import Action, Decisions, Source, Verdict
from research.training.regimes import N_CELLS, SLICES, slice_sums


def layer_rates(decisions: Decisions, source: NDArray[np.int8], governor_reason: NDArray, regime: NDArray) -> dict[str, dict[str, Any]]:
    """Rates and counts per slice, `{"total": {"escalation": ..., ...}, ...}`; NaN where the denominator is 0.

    source: `Source` of the final action. Denominators: escalation and meta_override of cells with at least two voters, arbiter_accept of
    the arbiter's calls, final_source of cells with a voter, approved, exit_signal and veto of BUY and SELL decisions.
    """
    voted = decisions.n_voters > 0
    judged = decisions.n_voters >= 2
    called = decisions.arbiter_action >= 0
    wished = voted & (decisions.raw_action != Action.HOLD)
    masks = {
        "cells": voted,
        "judged": judged,
        "deferred": judged & (decisions.verdict == Verdict.DEFER),
        "overridden": judged & (decisions.verdict == Verdict.OVERRIDE),
        "escalated": judged & (decisions.verdict == Verdict.ESCALATE),
        "called": called,
        "accepted": called & (decisions.source == Source.ARBITER),
        "wished": wished,
        "approved": wished & (governor_reason == Reason.APPROVED),
        "exit_signal": wished & (governor_reason == Reason.EXIT_SIGNAL),
        **{f"source.{s.name.lower()}": voted & (source == s) for s in Source},
        **{f"veto.{r.reason.name}": wished & (governor_reason == r.reason) for r in refusals()},
    }
    counts = {name: slice_sums(np.bincount(regime[mask], minlength=N_CELLS)) for name, mask in masks.items()}
    return {name: _slice_rates({key: float(value[i]) for key, value in counts.items()}) for i, name in enumerate(SLICES)}


def _slice_rates(count: dict[str, float]) -> dict[str, Any]:
    def per(name: str, of: str) -> float:
        return count[name] / count[of] if count[of] else float("nan")

    return {
        "escalation": per("escalated", "judged"),
        "arbiter_accept": per("accepted", "called"),
        "meta_override": per("overridden", "judged"),
        "final_source": {s.name.lower(): per(f"source.{s.name.lower()}", "cells") for s in Source},
        "approved": per("approved", "wished"),
        "exit_signal": per("exit_signal", "wished"),
        "veto": {r.reason.name: per(f"veto.{r.reason.name}", "wished") for r in refusals()},
        "counts": {name: int(value) for name, value in count.items()},
    }


def rule_counts(reasons: NDArray, rules: tuple[Reason, ...]) -> list[dict[str, Any]]:
    """For each rule in the order of asking: how many cells reached it and how many it decided. reasons: codes of the cells asked."""
    counts = np.bincount(reasons.astype(np.int64), minlength=256)
    left, out = int(counts[list(rules)].sum()), []
    for rule in rules:
        decided = int(counts[rule])
        out.append({"rule": rule.name, "reached": left, "decided": decided})
        left -= decided
    return out
