"""Basis of a report: the verdict first, and what the figures rest on. Data, label, fills, costs, limits."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from qtcore.params import NUMBERS
from qtcore.rules import refusals
from qtcore.types import NS_PER_HOUR
from research.data.clock import iso
from research.errors import ordinal, several
from research.evidence.waterfall import FILLS
from research.report.rows import changed_params, stage_texts
from research.report.words import count, layer_name, percent, signed_percent
from research.training.targets import BARRIER, RANK, RETURN, VOLATILITY

COSTS = ("broker.fee_rate", "broker.slippage_rate", "broker.impact")  # what the market sets


def verdict_parts(evidence: Mapping[str, Any]) -> dict[str, str]:
    """Split a verdict for the head of a page: `kind`, its style; `opening` and `reason`, its sentence before and after the colon."""
    opening, _, reason = evidence["sentence"].partition(":")
    return {"kind": evidence["verdict"].replace(" ", "-"), "opening": opening, "reason": reason}


def assumptions(s: Mapping[str, Any]) -> list[tuple[str, str]]:
    """State what the figures rest on, term by term. s: `data` and `assumptions` of a summary."""
    a, d, p = s["assumptions"], s["data"], s["assumptions"]["params"]
    weights = a.get("weights", {})  # a run of an earlier version said none
    voting = (
        ", ".join(f"{layer_name(m)} (weight {weights[m]:.3g})" if m in weights else layer_name(m) for m in a["models_voting"]) or "none"
    )
    moves = "; each period moves the weights by what it knew" if p.get("decide.rule") == "edge" and p.get("ensemble.rule") == "mean" else ""
    changed = len(changed_params(a))
    is_brief = a["cooldown_blocks_after_stops_only"]
    shorts = "" if a["allow_short"] else ", no shorts"
    stages = stage_texts(p)
    return [
        ("Models", f"{len(a['models_voting'])} of {a['models_expected']} voted: {voting}{moves}"),
        ("Data", f"{count(d['n_candles'])} candles of {several(d['n_symbols'], 'symbols')}, {d['start'][:10]} to {d['end'][:10]}"),
        ("Label", label_text(a)),
        (
            "Fills",
            f"{fills_text(a)}; stop {percent(a['stop_loss'])} from entry; out after {several(a['max_holding_bars'], 'bars')}{shorts}",
        ),
        ("Costs a side", costs_text(a)),
        ("Limits", "; ".join((f"{percent(p['governor.max_position'], 0)} a position", *limits(p)))),
        *([("Cooldown", "on bars of this length only a stop blocks, and one decision")] if is_brief else []),
        (
            "Profile",
            f"{a['profile']}, {several(changed, 'parameters')} changed; start {count(a['initial_cash'])} quote",
        ),
        *([("Stages", "; ".join(stages))] if stages else []),
    ]


def limits(params: Mapping[str, Any]) -> list[str]:
    """Say the limits within which the governor lets a trade through, but for those that are off or that the run did not know."""
    rules = [rule for rule in refusals() if rule.parameter in NUMBERS and params.get(rule.parameter, rule.off) != rule.off]
    return [rule.limit_text(params[rule.parameter]) for rule in rules]


def label_text(a: Mapping[str, Any]) -> str:
    """Write the label's rule."""
    label = a["label"]
    hours_ahead = a["label_span_hours"]
    length = f"{hours_ahead:g} h" if hours_ahead < 24.0 else f"{hours_ahead / 24.0:g} d"
    ahead = f"{label['id']}, {label['horizon']} bar{'' if label['horizon'] == 1 else 's'} ({length}) ahead"
    _, *later = label["id"].partition("@")[2].partition(":")[0].split("+")
    ahead += f" (models also look {' and '.join(later)} ahead)" if later else ""
    unit, low, high = label.get("unit", RETURN), label["sell"], label["buy"]
    if label.get("is_percentile"):
        of = {RETURN: "", VOLATILITY: ", each move over its volatility", RANK: " of ranks among the symbols"}[unit]
        return f"{ahead}: BUY above the {ordinal(100 * high)}, SELL below the {ordinal(100 * low)} percentile of training{of}"
    if unit == RANK:
        upper, lower = percent(0.5 - high, 0), percent(0.5 + low, 0)
        return f"{ahead}: BUY in the upper {upper} of the symbols by their moves, SELL in the lower {lower}"
    if unit == BARRIER:
        return f"{ahead} at most: BUY where {high:+g} standard deviations come first, SELL where {low:+g}"
    if unit == VOLATILITY:
        return f"{ahead}: BUY above {high:+g}, SELL below {low:+g} standard deviations"
    return f"{ahead}: BUY above {signed_percent(high)}, SELL below {signed_percent(low)}"


def fills_text(a: Mapping[str, Any]) -> str:
    """Say where orders are filled."""
    return FILLS[a["fill"]]


def costs_text(a: Mapping[str, Any]) -> str:
    """Say what a fill costs."""
    impact = a["params"].get("broker.impact", 0.0)
    moved = f" and {percent(impact, 3)} times the root of an order's share in the volume before it" if impact else ""
    return f"fee {percent(a['fee_rate'], 3)}, slippage {percent(a['slippage_rate'], 3)}{moved}; funding {funding_text(a)}"


def swept_costs(names: Iterable[str]) -> str | None:
    """Say that a sweep chose what the market sets; None where it did not. names: of its axes.

    >>> swept_costs(["decide.min_edge", "broker.fee_rate"])
    'broker.fee_rate was swept: the terms are those of the best trial; a cost is set by the market, so compare settings at one value of it.'
    """
    costs = [name for name in names if name in COSTS]
    said = f"{' and '.join(costs)} {'was' if len(costs) == 1 else 'were'} swept: the terms are those of the best trial"
    return f"{said}; a cost is set by the market, so compare settings at one value of it." if costs else None


def funding_text(a: Mapping[str, Any]) -> str:
    """Say how often funding was charged; a run of an earlier version does not know."""
    if not a["funding"]:
        return "none"
    if "funding_payments" not in a:
        return "rates given"
    n = a["funding_payments"]
    return f"charged {count(n)} time{'' if n == 1 else 's'}" if n else "never charged: no position was open when a rate was due"


def training_basis(predictions: Any) -> str:
    """Say in one sentence what a training rests on, for a terminal."""
    opens, closes, label = predictions.open_time, predictions.close_time, predictions.label
    plan = predictions.models.config["plan"]
    hours = label.horizon * float(np.median(closes - opens)) / NS_PER_HOUR
    rule = label_text({"label": label.to_dict(), "label_span_hours": hours})
    taken = {"L1": "auto took it", "L4": "auto took it, as a class of L1 is too rare"} if plan["label"] == "auto" else {}
    rule += f" ({taken[label.id]})" if label.id in taken else ""
    size = f"{several(len(opens), 'bars')} of {several(len(predictions.symbols), 'symbols')}"
    return f"{size}, {iso(int(opens[0]))[:10]} to {iso(int(closes[-1]))[:10]}; label {rule}"


def basis(s: Mapping[str, Any]) -> str:
    """Say in one sentence what the figures rest on, for a terminal."""
    a, d = s["assumptions"], s["data"]
    data = f"{count(d['n_candles'])} candles of {several(d['n_symbols'], 'symbols')}, {d['start'][:10]} to {d['end'][:10]}"
    return f"{data}; label {label_text(a)}; fills {fills_text(a)}; a side: {costs_text(a)}"
