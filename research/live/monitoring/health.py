"""Health checks: bands of `spec` 13.5, the checks of 13.7, the status of 13.4, for a page, a script and a person."""

from datetime import UTC, datetime
from typing import Any

from qtcore import Params, __version__
from qtcore.choices import DecideRule, MetaMode
from qtcore.rules import Reason, refusals, rule_of
from qtcore.types import Action
from research.errors import several
from research.evidence.envelope import MIN_RATE
from research.live.monitoring.counts import LiveCounts
from research.live.monitoring.self_checks import looked
from research.live.monitoring.status_source import Book, StatusSource, allowed_texts
from research.live.records import iso
from research.runs.meta_words import PRICED

LEVELS = ("healthy", "warning", "critical")
LEVEL_WORDS = {
    "healthy": "no rate warns",
    "unknown": "too few bars to judge the rates",
    "warning": "a rate warns",
    "critical": "a rate is critical",
}
NO_MODEL = "no model"
NO_MODEL_TEXT = "no meta model is served, so the layer says nothing"
LIMITS = {"overrides": 0.40, "escalations": 0.80}  # shares of 13.5 above which the meta layer does not work as it should


def health(tally: LiveCounts, mode: MetaMode = MetaMode.POLICY) -> list[dict[str, Any]]:
    """Judge every rate: name, value, observations, level, band, and `said`: the value and how it lies to the band, in words.

    level: `healthy`, `warning`, `critical`, or `unknown` below 50 observations; a value between two bands of `spec` 13.5 counts as the
    milder one (D-79), so a level of `healthy` does not say that the value is within the band of healthy ones: `said` does. Where opinions
    have a price (mode `bet`), edges and seats say who acts, and how often has no band.
    """
    rates = tally.rates()
    rows: list[tuple[str, float | None, int, str, tuple[float, float] | None]] = [
        ("escalation rate", rates["escalation"], tally.judged, _above(rates["escalation"], 0.50, 0.80), (0.15, 0.35)),
        ("arbiter override rate", rates["arbiter_accept"], tally.called, _arbiter(tally), (0.30, 0.60)),
    ]
    if mode != MetaMode.POLICY:
        rows.append(("override rate", rates["meta_override"], tally.judged, _above(rates["meta_override"], 0.40, 1.0), (0.15, 0.30)))
    if mode == MetaMode.BET:
        names = (PRICED["escalated"], "arbiter accepted", PRICED["overridden"])
        rows = [(name, value, n, LEVELS[0], None) for name, (_, value, n, _, _) in zip(names, rows)]
    rows.append(("feature errors", rates["feature_error"], tally.cells, _above(rates["feature_error"], 0.001, 1.0), (0.0, 0.0)))
    rows.append(("errors", rates["error"], tally.cells, _errors(tally), (0.0, 0.0)))
    out = []
    for name, value, n, judged, band in rows:
        level = judged if n >= MIN_RATE else "unknown"
        out.append({"name": name, "value": value, "n": n, "level": level, "band": _band(band), "said": said(value, band, level)})
    return out


def said(value: float | None, band: tuple[float, float] | None, level: str) -> str:
    """Say a rate and how it lies to its band, if it has one, which is not judged on too few observations.

    >>> said(0.651, (0.30, 0.60), "healthy"), said(0.0, (0.0, 0.0), "healthy")
    ('65.1 %, outside 30-60 %', '0 %, as it should be')
    """
    if value is None:
        return "n/a"
    number = f"{100.0 * value:.3g} %"
    if band is None:
        return number
    low, high = band
    if level == "unknown":
        return f"{number}, too few to judge"
    if low == high:
        return f"{number}, as it should be" if value == low else f"{number}, should be {_band(band)}"
    return f"{number}, {'within' if low <= value <= high else 'outside'} {_band(band)}"


def _band(band: tuple[float, float] | None) -> str:
    if band is None:
        return "none"
    low, high = (f"{100.0 * x:g}" for x in band)
    return f"{low}-{high} %" if low != high else f"{low} %"


def overrides(tally: LiveCounts, mode: MetaMode) -> tuple[str, int]:
    """Return what the published names `meta_overrides` and `override_rate` count, and the count.

    That is overrides, or in policy mode, which never overrides, escalations (`spec` 7.5).
    """
    return ("escalations", tally.escalated) if mode == MetaMode.POLICY else ("overrides", tally.overridden)


def worst(rows: list[dict[str, Any]]) -> str:
    """Return the worst level of all that are known, `unknown` where none is."""
    known = [LEVELS.index(row["level"]) for row in rows if row["level"] in LEVELS]
    return LEVELS[max(known)] if known else "unknown"


def _above(value: float | None, warning: float, critical: float) -> str:
    if value is None or value <= warning:
        return "healthy"
    return "critical" if value > critical else "warning"


def _arbiter(tally: LiveCounts) -> str:
    if tally.called and tally.arbiter_holds == tally.called:
        return "critical"
    share = tally.rates()["arbiter_accept"]
    return "warning" if share is not None and share < 0.10 else "healthy"


def _errors(tally: LiveCounts) -> str:
    """Errors are healthy at 0 and critical above 1 % of the cells; what lies between is the milder neighbour of the critical band."""
    if tally.errors == 0:
        return "healthy"
    return "critical" if tally.errors > 0.01 * tally.cells else "warning"


def status(source: StatusSource) -> dict[str, Any]:
    """Return what `GET /api/ai/meta/status` and `qt status` say (`spec` 6.4, 7.5, 13.4): one JSON object.

    A finished run's verdict stands first. `total_predictions` counts what the meta layer judged, `decisions` every cell with a vote.
    `advice` counts what the meta layer would have done with a bet, had it a seat. `meta_overrides` and `override_rate` count what
    `meta_overrides_count` names (7.5). `last_decision` is the newest that was no plain HOLD, every layer's reason with its numbers.
    `alarms` are what a person should look at: level, name, text.
    """
    tally, params, counts = source.tally(), source.params(), source.tally().counts()
    rates, latency, book = tally.rates(), source.latency(), source.book()
    rows = health(tally, params.meta.mode)
    counted, n_counted = overrides(tally, params.meta.mode)
    return {
        **source.verdict(),
        "version": __version__,
        "source": source.name,
        "is_live": source.is_live,
        "last_bar": iso(book.time) if book.time else None,
        "runner": source.runner(),
        "model_ready": source.has_meta_model(),
        "active_models": source.active(),
        "decisions": tally.cells,
        "total_predictions": tally.judged,
        "meta_enabled": params.meta.enabled,
        "arbiter_enabled": params.arbiter.enabled,
        "layers": layers(source),
        "emergency_stop": params.governor.emergency_stop,
        "meta_mode": params.meta.mode.name.lower(),
        **({} if params.meta.mode == MetaMode.BET else _thresholds(params)),
        "meta_overrides": n_counted,
        "meta_overrides_count": counted,
        "override_rate": n_counted / tally.judged if tally.judged else 0.0,
        "meta_failed_closed": tally.failed_closed,
        "escalations": tally.escalated,
        "escalation_rate": rates["escalation"] or 0.0,
        "fallback_reasons": counts["defer_reasons"],
        "defer_reasons": counts["defer_reasons"],
        "advice": counts["advice"],
        "escalation_reasons": counts["escalation_reasons"],
        "arbiter": _arbiter_counts(tally, params),
        "governor": _governor(book, params) | {"approved": tally.approved, "refusals": counts["refusals"], "rules": rules(tally, params)},
        "last_decision": next(iter(source.last(1)), None),
        "latency_seconds": None if latency is None else {"median": latency[0], "p99": latency[1]},
        "health": {"level": worst(rows), "said": LEVEL_WORDS[worst(rows)], "rows": rows},
        **looked(source),
        "alarms": alarms(source, rows),
    }


def _thresholds(params: Params) -> dict[str, float]:
    """Return the published thresholds of the meta layer, which none reads where opinions have a price."""
    return {"meta_threshold": params.meta.override_threshold, "consensus_threshold": params.meta.consensus_threshold}


def layers(source: StatusSource) -> dict[str, dict[str, str]]:
    """Say of each layer in a `word` whether it acts now, and in a `text`, where opinions have a price, why; there of each voter too.

    A layer whose answers trade only with a seat `acts` or `advises`; another is `on`, and each may be `off` or without the model it asks.
    """
    params, seats = source.params(), source.seats()
    is_priced = params.decide.rule == DecideRule.EDGE

    def of(layer: str, is_on: bool, is_mute: bool = False) -> dict[str, str]:
        if not is_on or is_mute:
            return {"word": NO_MODEL if is_on else "off", "text": NO_MODEL_TEXT if is_on else ""}
        acts, text = seats.get(layer, (False, "no seat: no map is known yet"))
        return {"word": "acts" if acts else "advises", "text": text} if is_priced else {"word": "on", "text": ""}

    is_mute = params.meta.mode != MetaMode.POLICY and not source.has_meta_model()
    always = {"arbiter": of("arbiter", params.arbiter.enabled), "meta": of("meta", params.meta.enabled, is_mute)}
    return {layer: of(layer, True) for layer in seats if is_priced and layer not in always} | always


def rules(tally: LiveCounts, params: Params) -> list[dict[str, Any]]:
    """Tell of every rule that can refuse a trade, in the order of asking: code, label, parameter and its value, and trades refused."""
    values = params.flat()
    return [
        {
            "reason": rule.name,
            "label": rule.words,
            "parameter": rule.parameter or None,
            "value": values.get(rule.parameter),
            "refused": tally.refusals[rule.reason],
        }
        for rule in refusals()
    ]


def _arbiter_counts(tally: LiveCounts, params: Params) -> dict[str, Any]:
    """Return the arbiter's statistics, 9.7 with D-57: `accepted`, the rejections and `errors` are disjoint and sum to the calls."""
    reasons = tally.arbiter_reasons
    errors = sum(n for code, n in reasons.items() if rule_of(code).fails)
    calls = tally.escalated - reasons[Reason.NOT_AVAILABLE]
    made = tally.called - tally.arbiter_holds
    return {
        "total_calls": calls,
        "decisions_made": made,
        "holds_returned": tally.arbiter_holds,
        "low_confidence_rejects": reasons[Reason.DEFER_LOW_CONFIDENCE],
        "decision_rate": made / calls if calls else 0.0,
        **({} if params.decide.rule == DecideRule.EDGE else {"confidence_threshold": params.arbiter.gate_confidence}),
        "accepted": tally.accepted,
        "rejected_hold": reasons[Reason.DEFER_ACTION_IS_HOLD],
        "rejected_low_confidence": reasons[Reason.DEFER_LOW_CONFIDENCE],
        "errors": errors,
        "override_rate": tally.rates()["arbiter_accept"] or 0.0,
    }


def _governor(book: Book, params: Params) -> dict[str, Any]:
    """Return the governor's statistics, 10.5."""
    return {
        "balance": book.balance,
        "equity": book.equity,
        "peak_balance": book.peak,
        "drawdown_pct": book.drawdown,
        "total_exposure_usd": book.exposure,
        "exposure_pct": book.exposure / book.balance if book.balance > 0.0 else 0.0,
        "daily_trades": book.trades_today,
        "max_daily_trades": params.governor.max_daily_trades,
        "recent_win_rate": book.win_rate,
        "total_trades": book.total_trades,
        "active_positions": len(book.positions),
        "is_halted": book.is_halted,
    }


def alarms(source: StatusSource, rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Say what a person should look at, the worst first: `level`, `name`, `text`."""
    found: list[tuple[str, str, str]] = []
    runner, book, counts = source.runner(), source.book(), source.event_counts()
    if runner is not None and runner["is_running"] is False and not runner["is_replay"]:
        found.append(("critical", "runner", "no process decides: start `qt live` again, it continues"))
    if runner is not None and runner["late_seconds"] > 0.0:
        found.append(("critical", "feed", f"the next bar is overdue since {_long(runner['late_seconds'])}"))
    if book.equity <= 0.0:
        found.append(("critical", "liquidated", "no equity is left: every position was closed, nothing is traded any more; see the notes"))
    if source.params().governor.emergency_stop:
        found.append(("critical", "kill switch", "no entries until it is lifted; exits go on"))
    elif book.is_halted and book.equity > 0.0:
        found.append(("critical", "drawdown", f"{book.drawdown:.1%} below the peak: no entries"))
    if n := counts["quality"]:
        found.append(("critical", "candles", f"{several(n, 'times')} a symbol had more bad candles than a backtest accepts; see the notes"))
    if n := counts["bad"]:
        found.append(("warning", "candles", f"{several(n, 'bad candles')} became holes; see the notes"))
    if n := counts["jump"]:
        found.append(("warning", "jumps", f"{several(n, 'closes')} far from the one before, such as a split leaves; see the notes"))
    if n := counts["mismatch"]:
        found.append(("critical", "broker", f"{several(n, 'bars')} on which the broker's fills were not the engine's; see the notes"))
    if len(source.active()) < 2 and source.tally().newest >= 0:
        found.append(("critical", "models", f"models that vote: {len(source.active())}; meta layer and arbiter need two"))
    found += [("warning", "models", text) for text in allowed_texts(source.allowed())]
    if n := source.tally().failed_closed:
        found.append(
            (
                "warning",
                "meta layer",
                f"{several(n, 'decisions')} held because it had no answer (META_FAIL_OPEN=false); see `fallback_reasons`",
            )
        )
    seen = looked(source)
    found += [("warning", "retrain", due["text"]) for due in seen["retrain_due"]]
    found += [("warning", name, text) for name, text in (seen["envelope"] or {}).get("out", {}).items()]
    found += [(row["level"], row["name"], row["said"]) for row in rows if row["level"] in LEVELS[1:]]
    return [dict(zip(("level", "name", "text"), alarm)) for alarm in sorted(found, key=lambda alarm: -LEVELS.index(alarm[0]))]


def _long(seconds: float) -> str:
    """Say a time as a person would."""
    minutes = seconds / 60.0
    return f"{minutes:.0f} min" if minutes < 120.0 else f"{minutes / 60.0:.0f} h" if minutes < 2_880.0 else f"{minutes / 1440.0:.0f} days"


def validate(source: StatusSource) -> dict[str, Any]:
    """Run the checks of `spec` 13.7; the report's `validation.verdict` is PASSED, PARTIAL (one missing) or FAILED."""
    tally, params, book = source.tally(), source.params(), source.book()
    active, n_errors = source.active(), tally.errors
    counted, n_counted = overrides(tally, params.meta.mode)
    rate, limit = n_counted / tally.judged if tally.judged else None, LIMITS[counted]
    is_priced = params.meta.mode == MetaMode.BET  # how often it overrides has no limit there, and an honest ensemble may always say HOLD
    heard = tally.leans.keys() - {0} if is_priced else tally.ensemble
    checks: dict[str, dict[str, Any]] = {
        "active_models": {"passed": len(active) >= 3, "warning": len(active) == 2, "value": len(active), "rule": "at least 3, 2 warns"},
        "signal_variety": {
            "passed": len(heard) >= 2,
            "value": len(heard),
            "rule": "leans to both sides" if is_priced else "at least 2 ensemble actions",
        },
        "confidence_spread": {
            "passed": tally.confidence_std > 0.02,
            "value": tally.confidence_std,
            "rule": "standard deviation above 0.02",
        },
        "meta": {
            "passed": params.meta.enabled and (is_priced or (not tally.is_mute and rate is not None and rate <= limit)),
            "warning": params.meta.enabled and is_priced and tally.is_mute,  # bets are made as the map has them: nothing is wrong
            "value": NO_MODEL if tally.is_mute else rate,
            "rule": "on; warns without a model"
            if is_priced
            else f"on, answers, and {counted} at most {_band((limit, limit))} of what it judged",
        },
        "governor": {"passed": book.equity > 0.0 and not book.is_halted, "value": book.drawdown, "rule": "an account that is not halted"},
        "errors": {"passed": n_errors == 0, "value": n_errors, "rule": "none"},
    }
    missing = sum(not check["passed"] for check in checks.values())
    return {
        **source.verdict(),
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": source.name,
        "active_agents": len(active),
        "agent_status": {model: "active" if model in active else "inactive" for model in tally.models},
        "predictions": tally.cells,
        "allowed": allowed_texts(source.allowed()),
        "validation": {"verdict": ("PASSED", "PARTIAL")[missing] if missing < 2 and len(active) >= 2 else "FAILED", "checks": checks},
        "metrics": {
            "unique_actions": sorted(Action(code).name for code in tally.ensemble),
            "confidence_mean": tally.confidence_sum / tally.cells if tally.cells else None,
            "confidence_std": tally.confidence_std,
            "error_count": n_errors,
        },
    }
