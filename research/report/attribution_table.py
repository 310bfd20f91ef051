"""Attribution table: what each layer and each rule earned, in words of the page."""

from collections.abc import Mapping
from typing import Any

from qtcore.rules import step_words
from research.report.rows import Table
from research.report.words import DASH, count, number, percent, signed

LAYERS = {"ensemble": "ensemble alone, no rules", "meta": "+ meta layer", "arbiter": "+ arbiter"}


def step_text(row: Mapping[str, Any]) -> str:
    """Name a step of the ladder; a rule without a PnL of its own is in every step."""
    name = row["layer"]
    words = LAYERS.get(name) or step_words(name)
    if words is None or name in LAYERS:
        return words or name
    return f"{words} (in every step)" if row["pnl"] is None else f"+ {words}"


def earned_table(rows: list[dict[str, Any]]) -> Table:
    """List the steps of the ladder; `rows` are those of `summary["attribution"]["layers"]`."""
    headers = [
        "step",
        "PnL so far",
        "contribution",
        "95 % interval",
        "marginal effect",
        "accuracy of trades",
        "trades",
        "drawdown",
        "fees",
    ]
    out = []
    for row in rows:
        between = DASH if row["low"] is None else f"{signed(row['low'])} to {signed(row['high'])}"
        money = [signed(row[name]) for name in ("pnl", "contribution")]
        rest = [signed(row["effect"]), percent(row["accuracy"]), count(row["n_trades"]), percent(row["max_drawdown"]), number(row["fees"])]
        out.append([step_text(row), *money, between, *rest])
    return Table(headers, out)
