"""Live envelope view: every figure beside its band, what left it first, and whether a training is due and why."""

from typing import Any

from research.live.records import iso
from research.runs.meta_words import PRICED

DRIFTS = 5  # features shown by name: those that are nearest to leaving their band
CAUSES = {  # of a training that is due (`spec` 12.4)
    "weekly": "when the last training is a week old",
    "base_retrained": "when the meta layer was trained on other models than those that vote",
    "accuracy": "when accuracy leaves its band by more than 5 points",
    "drift": "when a feature leaves what the backtest saw",
}
NAMES = {
    "rate.escalation": "escalation rate",
    "rate.defer": "defer rate",
    "rate.override": "override rate",
    "rate.arbiter_accept": "arbiter acceptance",
    "rate.rejection": "governor's rejection rate",
}
PRICED_NAMES = {"rate.escalation": PRICED["escalated"], "rate.defer": PRICED["deferred"], "rate.override": PRICED["overridden"]}
KINDS = {"accuracy": "accuracy of {}", "calibration": "{}: confidence above accuracy", "drift": "drift of {} (PSI)"}


def bands_of(status: dict[str, Any], is_live: bool) -> dict[str, Any]:
    """Return what a page and a terminal show of `health.status`.

    `text` in one sentence; `rows` of figures: name, kind (`share`, `gap` or `drift`), value, low, high, usual, is_out, those out first;
    `inside`: drifting features that are left out as they are well inside; `due`: cause, rule, text and since, empty where not due.
    """
    known = status["envelope"] or {}
    names = NAMES | (PRICED_NAMES if status["meta_mode"] == "bet" else {})
    rows = sorted((_row(row, names) for row in known.get("rows", [])), key=lambda row: not row["is_out"])
    quiet = sorted((row for row in rows if row["kind"] == "drift" and not row["is_out"]), key=lambda row: row["value"] / row["high"])
    left_out = [row["name"] for row in quiet[: max(0, len(quiet) - DRIFTS)]]
    due = {row["cause"]: row for row in status["retrain_due"]}
    return {
        "text": _text(known, rows, is_live),
        "rows": [row for row in rows if row["name"] not in left_out],
        "inside": len(left_out),
        "due": [_due(cause, rule, due.get(cause)) for cause, rule in CAUSES.items()] if is_live else [],
    }


def _row(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    kind, _, rest = row["name"].partition(".")
    name = names.get(row["name"]) or KINDS.get(kind, "{}").format(rest.replace("_", " "))
    shown = {"calibration": "gap", "drift": "drift"}.get(kind, "share")
    return {"name": name, "kind": shown, **{key: row[key] for key in ("value", "low", "high", "usual", "is_out")}}


def _text(known: dict[str, Any], rows: list[dict[str, Any]], is_live: bool) -> str:
    if not is_live:
        return "a finished run is what a live journal is compared with"
    if not known:
        return "not looked yet: the first look comes after 24 bars, in a replay after 168"
    if known["window"] is None:
        return "nothing to compare with: beside models or predictions lies no envelope.json, which a backtest of 192 voting bars writes"
    if not rows:
        return f"a look compares {known['window']} bars, which are not there yet"
    n_out = sum(row["is_out"] for row in rows)
    state = f"{n_out} of {len(rows)} figures are out of their bands" if n_out else f"all {len(rows)} figures are in their bands"
    return f"last {known['window']} bars until {iso(known['time'])[:16].replace('T', ' ')}: {state}"


def _due(cause: str, rule: str, found: dict[str, Any] | None) -> dict[str, str]:
    name = cause.replace("_", " ")
    if found is None:
        return {"cause": name, "rule": rule, "text": "", "since": ""}
    return {"cause": name, "rule": rule, "text": found["text"], "since": iso(found["since"])}


def written(row: dict[str, Any], key: str) -> str:
    """Write a figure of a row.

    >>> written({"kind": "share", "value": 0.2312}, "value")
    '23.1 %'
    """
    value = row[key]
    return f"{value:.3f}" if row["kind"] == "drift" else f"{100.0 * value:{'+' if row['kind'] == 'gap' else ''}.1f} %"
