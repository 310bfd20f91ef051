"""Activity rates of layers: how often each acted (`spec` D-95), and the count of every rule, in total and per regime slice."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.params import MetaMode
from qtcore.types import Action, Decisions, Reason, Source, Verdict
from research.training.regimes import N_CELLS, SLICES, slice_sums

# The order in which the rules are asked; what one decides, the next never sees.
FEW = (Reason.NO_VALID_MODELS, Reason.NO_PREDICTIONS, Reason.TOO_FEW_VOTERS)
CONSENSUS = (Reason.STRONG_CONSENSUS_SELL, Reason.STRONG_CONSENSUS_HOLD, Reason.STRONG_CONSENSUS_BUY)
ERRORS = (Reason.FEATURE_EXTRACTION_ERROR, Reason.FEATURE_DIM_MISMATCH, Reason.SCALING_ERROR)
META_ORDER = {
    MetaMode.POLICY: (
        *FEW, *CONSENSUS, Reason.SPLIT_VOTE, Reason.HIGH_DISAGREEMENT, Reason.LOW_ENSEMBLE_CONFIDENCE, Reason.CLEAR_ENSEMBLE_NO_MODEL,
        *ERRORS, Reason.PREDICTION_ERROR, Reason.UNDECIDED_MARKET, Reason.CLEAR_ENSEMBLE, Reason.NONE,
    ),
    MetaMode.OVERRIDE: (
        *FEW, Reason.MODEL_NOT_LOADED, *CONSENSUS, *ERRORS, Reason.PREDICTION_ERROR, Reason.INVALID_CONFIDENCE, Reason.META_LOW_CONFIDENCE,
        Reason.META_OVERRIDE_SELL, Reason.META_OVERRIDE_HOLD, Reason.META_OVERRIDE_BUY, Reason.NONE,
    ),
    MetaMode.V5: (
        *FEW, Reason.MODEL_NOT_LOADED, *ERRORS, Reason.PREDICTION_ERROR, Reason.META_LOW_CONFIDENCE, Reason.CONSENSUS_GUARD,
        Reason.META_V5_OVERRIDE, Reason.NONE,
    ),
}  # fmt: skip
META_RULES = (*dict.fromkeys(r for order in META_ORDER.values() for r in order), Reason.HIERARCHY_ERROR)
ARBITER_RULES = (
    Reason.NOT_AVAILABLE, Reason.NO_MARKET_DATA, Reason.ANALYSIS_ERROR, Reason.DEFER_LOW_CONFIDENCE, Reason.DEFER_ACTION_IS_HOLD,
    Reason.BUY_SIGNAL, Reason.SELL_SIGNAL,
)  # fmt: skip
GOVERNOR_RULES = (
    Reason.NO_BAR, Reason.HOLD_SIGNAL, Reason.EXIT_SIGNAL, Reason.LOW_CONFIDENCE, Reason.POSITION_ALREADY_OPEN, Reason.SHORTS_DISABLED,
    Reason.EMERGENCY_STOP_ACTIVE, Reason.LIQUIDATED, Reason.MAX_DRAWDOWN_EXCEEDED, Reason.DAILY_TRADE_LIMIT_REACHED,
    Reason.MAX_EXPOSURE_EXCEEDED, Reason.COOLDOWN_ACTIVE, Reason.ZERO_SIZE, Reason.GOVERNOR_ERROR, Reason.APPROVED,
)  # fmt: skip
VETOES = tuple(r for r in GOVERNOR_RULES if r not in (Reason.HOLD_SIGNAL, Reason.EXIT_SIGNAL, Reason.APPROVED))


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
        **{f"veto.{r.name}": wished & (governor_reason == r) for r in VETOES},
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
        "veto": {r.name: per(f"veto.{r.name}", "wished") for r in VETOES},
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
