"""Attribution table: what each layer and each rule earned, in words of the page."""

from typing import Any

from research.report.rows import Table
from research.report.words import DASH, count, number, percent, signed

STEPS = {
    "ensemble": "ensemble alone, no rules",
    "meta": "+ meta layer",
    "arbiter": "+ arbiter",
    "min_confidence": "+ least confidence",
    "no_shorts": "+ no shorts",
    "emergency_stop": "+ kill switch",
    "max_drawdown": "+ drawdown limit",
    "max_daily_trades": "+ daily limit",
    "max_exposure": "+ exposure limit",
    "cooldown": "+ cooldown",
    "stop_loss": "+ stop loss",
    "max_holding_bars": "holding time (in every step)",
}


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
        out.append([STEPS.get(row["layer"], row["layer"]), *money, between, *rest])
    return Table(headers, out)
