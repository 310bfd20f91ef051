"""Scenario runner of cases that need more than an opinion layer: features, governor and the whole chain (`spec` 15)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from qtcore.chain.decide import decide
from qtcore.choices import MissingFill
from qtcore.declare import time_ns
from qtcore.features import FEATURE_SETS, FeatureBank, Planes
from qtcore.meta.vectors import VECTORS, probable_row, slot_order, spread
from qtcore.params import Params
from qtcore.rules import Reason
from qtcore.types import (
    ADVANCED,
    ARBITER_INPUTS,
    F8,
    MODELS,
    N_MODELS,
    NS_PER_HOUR,
    REGIME_INPUTS,
    Action,
    Bars,
    Decisions,
    Source,
    Verdict,
)
from research.runs.governor_state import GovernorState, position_pct, with_risk
from research.runs.reason_text import reason_text
from research.training.labels import Label, make_labels
from research.verify.scenario_layers import Case, analyse, ensemble_vote, is_accepted, market, policy_result, votes_of

NOW, SYMBOL = "2026-01-12T12:00:00", "BTCUSDT"  # of the chain cases


def bars_of(*series: Mapping[str, Any]) -> Bars:
    """Turn OHLCV series of one start and interval into bars; the first is the benchmark."""
    start, n = time_ns("start", series[0]["start"]), len(series[0]["close"])
    open_time = start + NS_PER_HOUR * np.arange(n, dtype=np.int64)
    planes: dict[str, Any] = {
        name: np.array([s[name] for s in series], np.float64).T.copy() for name in ("open", "high", "low", "close", "volume")
    }
    symbols = ("BTCUSDT", "ETHUSDT")[: len(series)]
    return Bars(open_time, open_time + NS_PER_HOUR, **planes, symbols=symbols, interval=NS_PER_HOUR)


def planes_of(bars: Bars, params: Params, names: tuple[str, ...] | None = None) -> Planes:
    """Compute the features of a whole series."""
    return FeatureBank(params, bars.symbols, bars.interval, names).compute(bars)


def arbiter_from_ohlcv(case: Case, params: Params) -> dict[str, Any]:
    """1.8, then 9."""
    params = params.with_values({"arbiter.macd_units": case["config"]["macd_units"]})
    inputs = planes_of(bars_of(case["input"]["ohlcv"]), params).arbiter[:, -1, 0]
    given = dict(zip(ARBITER_INPUTS, inputs.tolist(), strict=True))
    result = analyse(*market({"indicators": given, "regime": case["input"]["regime"]}), params)
    return {"indicators": given, "result": result, "should_override": is_accepted(result, params)}


def kelly(case: Case, params: Params) -> dict[str, Any]:
    """10.4."""
    return {"position_pct": position_pct(case["input"]["confidence"], with_risk(params, case["config"]))}


def governor(case: Case, params: Params) -> dict[str, Any]:
    """10.3 and 10.5, step by step."""
    state = GovernorState.load(case["input"]["state"], with_risk(params, case["config"]))
    steps, recorded = [], False
    for step in case["input"]["steps"]:
        done: dict[str, Any] = {"op": step["op"]}
        if step["op"] == "stats":
            steps.append({**done, "stats": state.stats()})
            continue
        if step["op"] == "allocate":
            arguments = (step["symbol"], step["action"], step["confidence"], step["now"], step.get("balance"))
            done |= {"allocation": state.allocate(*arguments), "daily_trade_count": int(state.account[0]["trades_today"])}
        else:
            done["trade"] = state.record_trade_result(step, step["now"])
            recorded = True
        balances = {"current_balance": float(state.account[0]["balance"]), "peak_balance": float(state.account[0]["peak"])}
        steps.append({**done, **balances})
    if not recorded:
        return {"steps": steps}
    saved = state.saved_state()
    names = ("initial_balance", "current_balance", "peak_balance", "trade_history", "last_trade_date", "active_positions", "last_updated")
    return {"steps": steps, "saved_state": {name: saved[name] for name in names}}


def _governed(case: Case, decisions: Decisions, params: Params) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let the governor see a BUY or SELL. Returns final action and confidence, and its entry of the decision record."""
    action, confidence = Action(int(decisions.raw_action[0, 0])), float(decisions.raw_confidence[0, 0])
    if action == Action.HOLD:
        return {"action": "HOLD", "confidence": confidence}, {}
    state = GovernorState.load(case["input"]["governor_state"], params)
    allocation = state.allocate(SYMBOL, action.name, confidence, NOW)
    names = ("approved", "position_size_usd", "position_size_pct", "risk_amount_usd", "reason", "kelly_optimal")
    record = {"governer": {name: allocation[name] for name in names}}
    return ({"action": action.name, "confidence": confidence} if allocation["approved"] else {"action": "HOLD", "confidence": 0.0}), record


def _voted(case: Case, params: Params) -> dict[str, Any]:
    """Return the vote's entries of the decision record; only the label when nobody voted."""
    voted = ensemble_vote(case, params)
    del voted["action"], voted["confidence"]
    return voted if voted["votes"] is not None else {"consensus": voted["consensus"]}


def chain_v5(case: Case, params: Params) -> dict[str, Any]:
    """11.1."""
    params = with_risk(params.with_values({"meta.enabled": True, "meta.mode": "v5"}), case["config"].get("risk", {}))
    probs, said = np.full((3, 1, 1), np.nan), case["input"]["meta_output"]
    if said is not None:  # three probabilities whose largest is what the stub says
        probs[:] = (1.0 - said["confidence"]) / 2.0
        probs[Action[said["action"]]] = said["confidence"]
    unknown = np.full((6, 1, 1), np.nan)
    decisions = decide(votes_of(case["input"]["predictions"]), unknown, unknown[:2], params, probs)
    final, record = _governed(case, decisions, params)
    info = {**_voted(case, params), **record}
    if decisions.meta_action[0, 0] != Action.ABSENT:
        info["meta_override"] = bool(decisions.verdict[0, 0] == Verdict.OVERRIDE)
        info["meta_confidence"] = float(decisions.meta_confidence[0, 0])
    return {**final, "info": info}


def chain_v2(case: Case, params: Params) -> dict[str, Any]:
    """11.2."""
    config, features, predictions = case["config"], case["input"]["features"], case["input"]["predictions"]
    switches = {"meta.enabled": config.get("META_AGENT_ENABLED", True), "arbiter.enabled": config.get("ARBITER_ENABLED", True)}
    gate = config.get("ARBITER_THRESHOLD", params.arbiter.gate_confidence)
    params = with_risk(params.with_values({**switches, "arbiter.gate_confidence": gate}), config.get("risk", {}))
    inputs, trend = market({"indicators": {k: v for k, v in features.items() if k != "regime"}, "regime": features.get("regime")})
    regime = np.array([(features.get("regime") or {}).get(name, np.nan) for name in REGIME_INPUTS])
    decisions = decide(votes_of(predictions), inputs.reshape(6, 1, 1), regime.reshape(2, 1, 1), params)
    final, record = _governed(case, decisions, params)
    info = {**_voted(case, params), **record}
    verdict, reason = Verdict(int(decisions.verdict[0, 0])), Reason(int(decisions.meta_reason[0, 0]))
    if verdict != Verdict.NONE:
        info |= {"meta_enabled": True, "meta_reason": ("escalate_" if verdict == Verdict.ESCALATE else "") + reason_text(reason)}
        info |= {"base_ensemble_action": Action(int(decisions.ensemble_action[0, 0])).name}
        info |= {"base_ensemble_confidence": float(decisions.ensemble_confidence[0, 0])}
        absent = {m: {"action": "HOLD", "confidence": 0.5} for m in MODELS[:4]} if params.meta.missing_fill == MissingFill.HOLD_HALF else {}
        counted = {m: predictions.get(m, absent.get(m)) for m in MODELS if m in predictions or m in absent}
        info["meta_result"] = policy_result(counted, params, config)
    if decisions.arbiter_action[0, 0] != Action.ABSENT:
        info |= {"arbiter_invoked": True, **_answered(decisions, analyse(inputs, trend, params), params)}
    return {**final, "info": info}


def _answered(decisions: Decisions, analysis: dict[str, Any], params: Params) -> dict[str, Any]:
    """Return the arbiter's entries of the decision record."""
    confidence, reason = float(decisions.arbiter_confidence[0, 0]), Reason(int(decisions.arbiter_reason[0, 0]))
    accepted = decisions.source[0, 0] == Source.ARBITER
    return {
        "arbiter_override": bool(accepted),
        "arbiter_action": Action(int(decisions.arbiter_action[0, 0])).name,
        "arbiter_confidence": confidence,
        "arbiter_reason": analysis["reason"] if accepted else reason_text(reason, params, {"arbiter_confidence": confidence}),
        "arbiter_result": analysis,
    }


def features_v5_original(case: Case, params: Params) -> dict[str, Any]:
    """1.1 to 1.4 with `v5_trained`, and the label of 2 on the rows that have one."""
    bars, config = bars_of(case["input"]["ohlcv"]), case["config"]
    planes = planes_of(bars, params)
    valid = np.flatnonzero(planes.valid[:, 0])
    label = Label("L1", config["label_horizon"], -config["label_threshold"], config["label_threshold"])
    labels = make_labels(bars, label)[0][valid[0] :, 0]
    rows = {str(t): {name: float(planes[name][t, 0]) for name in FEATURE_SETS["v5_trained"]} for t in valid[-3:]}
    return {
        "first_valid_row": int(valid[0]),
        "n_valid_rows": len(valid),
        "rows": rows,
        "labels_first_row": int(valid[0]),
        "labels": labels[labels >= 0].tolist(),
    }


def meta_features_32_original(case: Case, params: Params) -> dict[str, Any]:
    """1.6 and 8; the original's correlation ends at the bar before the current one (D-19)."""
    vector, index = "meta32_original", case["config"]["index"]
    bars = bars_of(case["input"]["btc"], case["input"]["symbol"])
    planes = planes_of(bars, params, ADVANCED)
    values = {name: float(planes[name][index, 1]) for name in ADVANCED}
    values["btc_correlation"] = float(planes["btc_correlation"][index - 1, 1])
    probs, earlier = _probs(case["input"]["predictions"]), case["input"].get("previous_predictions") or {}
    order, row = slot_order(vector), np.empty(len(VECTORS[vector]))
    confidences = np.array([earlier[MODELS[m]]["confidence"] for m in order if MODELS[m] in earlier])
    before = spread(confidences, len(confidences))[0] if len(confidences) else np.nan  # NaN: there was no bar before, the change is 0
    advanced = np.array(list(values.values())).reshape(-1, 1)
    probable_row(probs, 0, order, advanced, before, np.empty(N_MODELS), np.empty(N_MODELS), row)
    return {"advanced": values, "feature_names": list(VECTORS[vector]), "vector": row.tolist()}


def _probs(predictions: Mapping[str, Any]) -> F8:
    """Return the class probabilities of one cell [5, 1, 3]."""
    probs = np.full((N_MODELS, 1, 3), np.nan)
    for name, said in predictions.items():
        probs[MODELS.index(name), 0] = said["is_sell"], said["is_hold"], said["is_buy"]
    return probs
