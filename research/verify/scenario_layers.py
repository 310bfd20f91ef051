"""Scenario runner of single components: each goes through the chain's own kernels, on one cell (`spec` 15).

Every function takes a case and the profile's parameters and returns what the file calls `expected`; nothing is compared here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from qtcore.arbiter import gate_rule, settle, signal_rule, trend_rule
from qtcore.chain.patterns import look_up, pattern_table
from qtcore.choices import PolicyBase
from qtcore.ensemble import average, weighted_score_rule
from qtcore.meta.override import judge_learned
from qtcore.meta.policy import ask, policy_rule
from qtcore.meta.vectors import VECTORS, one_hot_row, slot_order
from qtcore.params import Params
from qtcore.rules import Reason
from qtcore.slots import most_rule, tally_rule, weigh_rule
from qtcore.types import ARBITER_INPUTS, F8, MODELS, N_MODELS, Action, Code, Consensus, Source, Value, Verdict, Votes
from research.runs.reason_text import arbiter_text, reason_text

Case = Mapping[str, Any]
ALIASES = {"patch": "patchtst"}
NEUTRAL = {"rsi": 50.0, "macd": 0.0, "macd_signal": 0.0, "bb_position": 0.5, "volume_trend": 1.0, "momentum_1h": 0.0}  # spec 9.2
STATISTICS = {  # what the policy's statistics call a deferral
    Reason.CLEAR_ENSEMBLE: "clear_ensemble",
    Reason.CLEAR_ENSEMBLE_NO_MODEL: "model_not_loaded",
    Reason.FEATURE_EXTRACTION_ERROR: "feature_error",
    Reason.FEATURE_DIM_MISMATCH: "dim_mismatch",
    Reason.SCALING_ERROR: "scaling_error",
    Reason.PREDICTION_ERROR: "prediction_error",
    Reason.NO_PREDICTIONS: "no_predictions",
}


def votes_of(predictions: Mapping[str, Any]) -> Votes:
    """Turn a `predictions` mapping into the votes of one cell; a model without enough history does not vote (`spec` 4.2)."""
    action, confidence = np.full((N_MODELS, 1, 1), -1, np.int8), np.full((N_MODELS, 1, 1), np.nan)
    for name, said in predictions.items():
        if "insufficient" not in str(said.get("version", "")):
            m = MODELS.index(ALIASES.get(name, name))
            action[m], confidence[m] = Action[said["action"]], said["confidence"]
    return Votes(action, confidence)


def with_weights(params: Params, config: Mapping[str, Any]) -> Params:
    """Return `params` with the weights of a case's `config`."""
    weights = config.get("weights")
    return params if weights is None else params.with_values({"ensemble.weights": [float(weights.get(m, 0.0)) for m in MODELS]})


def cell(votes: Votes) -> tuple[np.ndarray, F8]:
    """View one cell's votes as the planes [5, 1] that kernels read."""
    return votes.action.reshape(N_MODELS, 1), votes.confidence.reshape(N_MODELS, 1)


def slabs() -> tuple[np.ndarray, F8]:
    """Allocate the decision slabs of one cell."""
    return np.zeros((len(Code), 1), np.int8), np.full((len(Value), 1), np.nan)


def tuples(votes: Votes) -> tuple[tuple[np.int8, ...], tuple[float, ...]]:
    """Return actions and confidences of one cell as the tuples that rules read."""
    return tuple(votes.action[:, 0, 0]), tuple(votes.confidence[:, 0, 0].tolist())


def vote(votes: Votes, params: Params) -> tuple[np.ndarray, F8]:
    """Let the models of one cell vote; returns the slabs with the ensemble's columns."""
    (action, confidence), (codes, values), record = cell(votes), slabs(), params.record()
    look_up(action, np.full((2, 1), np.nan), pattern_table(record), np.empty(1, np.int32), codes, 0, 1)
    average(action, confidence, record, codes, values, 0, 1)
    return codes, values


def ensemble_vote(case: Case, params: Params) -> dict[str, Any]:
    """4.2 and 4.3."""
    params, votes = with_weights(params, case["config"]), votes_of(case["input"]["predictions"])
    codes, values = vote(votes, params)
    label = Consensus(int(codes[Code.CONSENSUS, 0]))
    is_empty = label == Consensus.NO_VALID_MODELS
    weighed = {
        a.name: float(weigh_rule(tuples(votes)[0], params.ensemble.weights, np.int8(a))) for a in (Action.BUY, Action.SELL, Action.HOLD)
    }
    return {
        "action": Action(int(codes[Code.ENSEMBLE_ACTION, 0])).name,
        "confidence": float(values[Value.ENSEMBLE_CONFIDENCE, 0]),
        "consensus": label.name.lower(),
        "consensus_count": None if is_empty else int(codes[Code.CONSENSUS_COUNT, 0]),
        "votes": None if is_empty else weighed,
    }


def scored(votes: Votes, params: Params) -> tuple[Action, float]:
    """Return action and score of the confidence-weighted ensemble of one cell."""
    weights, tie_break = np.array(params.ensemble.weights), int(params.ensemble.tie_break)
    action, score = weighted_score_rule(*cell(votes), 0, weights, tie_break, False)
    return Action(int(action)), float(score)


def weighted_score(case: Case, params: Params) -> dict[str, Any]:
    """4.5."""
    action, score = scored(votes_of(case["input"]["predictions"]), params)
    return {"action": action.name, "confidence": score}


def one_hot(votes: Votes, regime: Mapping[str, float] | None, vector: str) -> F8:
    """Features of override mode (6.1) of one cell."""
    regime, row = regime or {}, np.empty(len(VECTORS[vector]))
    known = regime.get("volatility", np.nan), regime.get("trend_strength", np.nan)
    one_hot_row(*cell(votes), 0, slot_order(vector), *known, np.empty(N_MODELS), row)
    return row


def disagreement(case: Case, params: Params) -> dict[str, Any]:
    """7.3: counts from the tally, the ratio as the meta models see it, the split as the policy sees it."""
    votes = votes_of(case["input"]["predictions"])
    sell, hold, buy, _ = tally_rule(tuples(votes)[0])
    reason = policy_rule(sell, hold, buy, False, 2.0, 2.0)  # no share is large enough for another reason
    counts = {"BUY": buy, "SELL": sell, "HOLD": hold}
    return {
        "num_buy": buy,
        "num_sell": sell,
        "num_hold": hold,
        "is_split_vote": int(reason) == Reason.SPLIT_VOTE,
        "disagreement_ratio": float(one_hot(votes, None, "meta30")[VECTORS["meta30"].index("disagreement")]),
        "action_distribution": {name: count for name, count in counts.items() if count},
    }


def meta_features_26(case: Case, params: Params) -> dict[str, Any]:
    """6.1."""
    return {"vector": one_hot(votes_of(case["input"]["predictions"]), case["input"]["regime"], "meta26").tolist()}


def _stub_model(config: Mapping[str, Any]) -> tuple[F8, Reason]:
    """Return probabilities [3, 1] and problem of a case's stub model; NaN without a model or with other features."""
    model = config.get("model")
    if model is None:
        return np.full((3, 1), np.nan), Reason.MODEL_NOT_LOADED
    if model.get("feature_dim", 26) != len(VECTORS["meta26"]):
        return np.full((3, 1), np.nan), Reason.FEATURE_DIM_MISMATCH
    return np.array(model["proba"], np.float64).reshape(3, 1), Reason.MODEL_NOT_LOADED


def _with_thresholds(params: Params, config: Mapping[str, Any]) -> Params:
    names = {"consensus_threshold": "meta.consensus_threshold", "meta_threshold": "meta.override_threshold", "fail_open": "meta.fail_open"}
    return params.with_values({names[key]: value for key, value in config.items() if key in names})


def policy_result(predictions: Mapping[str, Any], params: Params, config: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the policy on its own about the predictions given (7.2, 7.3)."""
    votes, record = votes_of(predictions), params.record()
    base, base_confidence = scored(votes, params)
    if params.meta.policy_base == PolicyBase.SHARED:
        codes, values = vote(votes, params)
        base, base_confidence = codes[Code.ENSEMBLE_ACTION, 0], values[Value.ENSEMBLE_CONFIDENCE, 0]
    tally = tally_rule(tuples(votes)[0])
    is_low = bool(base_confidence < params.meta.low_confidence)
    thresholds = params.meta.consensus_threshold, params.meta.disagreement_threshold
    codes, values = slabs()
    codes[Code.META_REASON], codes[Code.VERDICT] = policy_rule(*tally[:3], is_low, *thresholds), Verdict.DEFER
    probs, problem = _stub_model(config)
    ask(probs, np.array([problem], np.int64), record, codes, values, 0, 1)
    reason = Reason(int(codes[Code.META_REASON, 0]))
    escalates = reason >= Reason.SPLIT_VOTE
    result = {"use_meta": escalates, "action": Action(int(base)).name, "confidence": float(base_confidence), "reason": reason_text(reason)}
    result |= {"base_ensemble_action": result["action"], "base_ensemble_confidence": result["confidence"]}
    if reason <= Reason.STRONG_CONSENSUS_BUY:
        most, winner = most_rule(*tally[:3])
        share = float(most / tally[3])
        result |= {"action": Action(int(winner)).name, "confidence": share, "consensus_strength": share}
    if escalates:
        result["disagreement_metrics"] = disagreement({"input": {"predictions": predictions}}, params)
    if reason in (Reason.CLEAR_ENSEMBLE, Reason.UNDECIDED_MARKET):
        result["entropy"] = float(values[Value.META_CONFIDENCE, 0])
    return result


def meta_policy(case: Case, params: Params) -> dict[str, Any]:
    """7."""
    params = _with_thresholds(params, case["config"])
    result = policy_result(case["input"]["predictions"], params, case["config"])
    escalated = int(result["use_meta"])
    reason = Reason[result["reason"].upper()]
    deferred = {} if escalated else {STATISTICS.get(reason, "strong_consensus"): 1}
    counts = {"total_predictions": 1, "meta_overrides": escalated, "override_rate": float(escalated), "fallback_reasons": deferred}
    return {"result": result, "statistics": counts}


def meta_override(case: Case, params: Params) -> dict[str, Any]:
    """6.3; what it falls back to is the weighted score (4.5)."""
    params, votes = _with_thresholds(params, case["config"]), votes_of(case["input"]["predictions"])
    base, base_score = scored(votes, params)
    codes, values = slabs()
    probs, problem = _stub_model(case["config"])
    judge_learned(cell(votes)[0], probs, np.array([problem], np.int64), params.record(), codes, values, 0, 1)
    reason, confidence = Reason(int(codes[Code.META_REASON, 0])), float(values[Value.META_CONFIDENCE, 0])
    is_known = confidence == confidence
    result = {"action": Action(int(base)).name, "confidence": float(base_score)}
    result |= {"base_ensemble_action": result["action"], "base_ensemble_confidence": result["confidence"]}
    if codes[Code.SOURCE, 0] == Source.META:
        result |= {"action": Action(int(codes[Code.RAW_ACTION, 0])).name, "confidence": float(values[Value.RAW_CONFIDENCE, 0])}
    if reason <= Reason.STRONG_CONSENSUS_BUY:
        sell, hold, buy, n = tally_rule(tuples(votes)[0])
        most, winner = most_rule(sell, hold, buy)
        result |= {"action": Action(int(winner)).name, "confidence": float(most / n), "consensus_strength": float(most / n)}
    return {
        **result,
        "use_meta": Reason.META_OVERRIDE_SELL <= reason <= Reason.META_OVERRIDE_BUY,
        "reason": reason_text(reason, params, {"meta_confidence": confidence}),
        "meta_confidence": confidence if is_known else None,
    }


def market(data: Mapping[str, Any] | None) -> tuple[F8, float]:
    """Return the six arbiter inputs and the trend; a missing one takes its neutral default (9.2), no data at all is NaN."""
    if not data:
        return np.full(6, np.nan), np.nan
    given = {**NEUTRAL, **data.get("indicators", {})}
    return np.array([given[name] for name in ARBITER_INPUTS], np.float64), (data.get("regime") or {}).get("trend_strength", 0.0)


def analyse(inputs: F8, trend: float, params: Params) -> dict[str, Any]:
    """Let the arbiter settle one cell and name what it used (9.5)."""
    codes, values = slabs()
    codes[Code.VERDICT] = Verdict.ESCALATE
    settle(np.ascontiguousarray(inputs.reshape(6, 1)), params.record(), codes, values, 0, 1)
    action, score = Action(int(codes[Code.ARBITER_ACTION, 0])), float(values[Value.ARBITER_SCORE, 0])
    used: dict[str, float] = {}
    if score == score:
        signals = (*signal_rule(*inputs.tolist()), trend_rule(float(trend)))
        for name, signal in zip(("rsi", "macd", "bb", "volume", "momentum", "regime"), signals, strict=True):
            used |= {f"{name}_signal": int(np.sign(signal)), f"{name}_strength": abs(float(signal))}
        used["total_score"] = score
    confidence, reason = float(values[Value.ARBITER_CONFIDENCE, 0]), arbiter_text(inputs.tolist(), action, score)
    return {"action": action.name, "confidence": confidence, "reason": reason, "indicators_used": used, "arbiter_invoked": True}


def is_accepted(result: Mapping[str, Any], params: Params) -> bool:
    """Pass an answer {action, confidence} through the gate (9.6)."""
    return bool(gate_rule(int(Action[result["action"]]), float(result["confidence"]), params.arbiter.gate_confidence))


def arbiter(case: Case, params: Params) -> dict[str, Any]:
    """9, with the statistics of one call on a fresh arbiter."""
    config = case["config"]
    values = {"arbiter.gate_confidence": config.get("confidence_threshold", params.arbiter.gate_confidence)}
    params = params.with_values({**values, "arbiter.score_threshold": 0.15 if config.get("conservative", True) else 0.10})
    result = analyse(*market(case["input"]["market_data"]), params)
    is_analysed, decided = bool(result["indicators_used"]), int(result["action"] != "HOLD")
    statistics = {
        "total_calls": 1,
        "decisions_made": decided,
        "holds_returned": int(is_analysed and not decided),
        "low_confidence_rejects": int(is_analysed and result["confidence"] < params.arbiter.gate_confidence),
        "decision_rate": float(decided),
        "confidence_threshold": params.arbiter.gate_confidence,
    }
    return {"result": result, "should_override": is_accepted(result, params), "statistics": statistics}


def gate(case: Case, params: Params) -> dict[str, Any]:
    """9.6."""
    params = params.with_values({"arbiter.gate_confidence": case["config"]["confidence_threshold"]})
    return {"should_override": is_accepted(case["input"], params)}
