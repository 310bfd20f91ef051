"""Profiles: named values of the parameters.

`default` is what the fields of `qtcore.params` declare, and may change with a version. The others are fixed, so each names every parameter.

- `default`: opinions in money; a trade needs an edge that its evidence bears out and that exceeds its costs.
- `published`: the thresholds that were published, the original system's documented defects mended; `default` of the versions before 0.3.
- `original`: every switch at the original system's value (`spec` 0.3).

What a profile trains stands in `research.training.plan`.
"""

from collections.abc import Mapping
from typing import Any

from qtcore.types import InputError

PUBLISHED: dict[str, Any] = {
    "features.feature_set": "v5_rel",
    "features.rsi_variant": "sma",
    "features.bb_ddof": 1,
    "features.warmup": 50,
    "features.benchmark": "",
    "ensemble.weights": [0.25, 0.25, 0.3, 0.2, 0.0],
    "ensemble.tie_break": "hold",
    "ensemble.multipliers": [1.0, 1.0, 1.0, 1.0],
    "ensemble.regime_factors": [1.0] * 45,
    "meta.enabled": True,
    "meta.mode": "policy",
    "meta.variant": "published",
    "meta.consensus_threshold": 0.75,
    "meta.disagreement_threshold": 0.5,
    "meta.low_confidence": 0.55,
    "meta.entropy_threshold": 0.8,
    "meta.override_threshold": 0.65,
    "meta.v5_threshold": 0.6,
    "meta.consensus_guard": True,
    "meta.fail_open": True,
    "meta.policy_base": "shared",
    "meta.missing_fill": "omit",
    "arbiter.enabled": True,
    "arbiter.gate_confidence": 0.7,
    "arbiter.score_threshold": 0.15,
    "arbiter.macd_units": "percent",
    "governor.max_position": 0.1,
    "governor.max_exposure": 0.5,
    "governor.max_drawdown": 0.15,
    "governor.min_confidence": 0.65,
    "governor.kelly_fraction": 0.25,
    "governor.win_rate": 0.55,
    "governor.payoff": 1.5,
    "governor.reference_confidence": 0.7,
    "governor.kelly_trades": 30,
    "governor.sizing_mode": "kelly_win_rate",
    "governor.cooldown_minutes": 60,
    "governor.cooldown_scope": "symbol_last_loss",
    "governor.max_daily_trades": 20,
    "governor.exposure_mode": "projected",
    "governor.drawdown_basis": "equity",
    "governor.drawdown_reset": "none",
    "governor.emergency_stop": False,
    "governor.flatten_on_kill": False,
    "governor.stop_loss": 0.02,
    "governor.order": "symbols",
    "broker.initial_cash": 10_000.0,
    "broker.fee_rate": 0.0004,
    "broker.slippage_rate": 0.0001,
    "broker.fill": "next_open",
    "broker.allow_short": True,
    "broker.max_holding_bars": 0,
    "broker.delist_after": 24,
}
# Of these the parameters that 0.2 did not have: what they are without effect, and so in both.
LATER: dict[str, Any] = {"ensemble.rule": "vote", "decide.rule": "confidence", "decide.min_edge": 0.0, "broker.impact": 0.0}
LATER |= {"features.sets": []}
LATER |= {"governor.book": "symbols", "governor.neutral": "none", "governor.target_volatility": 0.0}
LATER |= {"governor.band": 1.0, "governor.rebalance_bars": 1}
PUBLISHED |= LATER
ORIGINAL: dict[str, Any] = PUBLISHED | {
    "ensemble.tie_break": "order",
    "meta.policy_base": "score",
    "meta.missing_fill": "hold_half",
    "arbiter.macd_units": "price",
    "governor.sizing_mode": "kelly_confidence",
    "governor.cooldown_scope": "last_50",
    "governor.exposure_mode": "existing",
    "governor.drawdown_basis": "balance",
    "features.feature_set": "v5_trained",
    "meta.consensus_guard": False,
    "features.warmup": 20,
    "meta.enabled": False,
    "arbiter.enabled": False,
}
PROFILES: dict[str, Mapping[str, Any]] = {"default": {}, "published": PUBLISHED, "original": ORIGINAL}


def values_of(name: str, tables: Mapping[str, Mapping[str, Any]] = PROFILES) -> Mapping[str, Any]:
    """Return what a profile sets, of parameters or of another table by profile. Raises InputError on an unknown name."""
    if name not in tables:
        raise InputError(f"profile (--profile) must be one of {', '.join(tables)}, was {name!r}")
    return tables[name]
