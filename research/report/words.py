"""Text formatting: codes and numbers as they are written for people. None and NaN are a dash, never a zero."""

import math
from collections.abc import Mapping
from typing import Any

from research.errors import several
from research.runs.meta_words import PRICED, VERDICTS

LAYERS = {
    "xgb": "XGBoost",
    "lgbm": "LightGBM",
    "nhits": "N-HiTS",
    "patchtst": "PatchTST",
    "tft": "TFT",
    "linear": "linear model",
    "meta_policy": "meta model (policy)",
    "meta_override": "meta model (override)",
    "meta_v5": "meta model (v5)",
    "ensemble": "ensemble",
    "meta": "after meta",
    "arbiter": "after arbiter",
    "arbiter_calls": "arbiter, own calls",
    "final": "approved trades",
}
DASH = "-"
NOT_ENOUGH = "not enough data"


def layer_name(name: str) -> str:
    """Name of a model or layer."""
    return LAYERS.get(name, name)


ASSUMPTIONS = {
    "close": "same close",
    "next_open": "next open",
    "next_close": "next close",
    "one_bar_later": "one bar later",
    "worst": "worst price of the bar",
    "fees_twice": "fees twice",
    "impact": "slippage by volume",
    "no_funding": "no funding",
}


def assumption_name(column: Mapping[str, Any]) -> str:
    """Name of a column of the assumption waterfall."""
    return ASSUMPTIONS[column["name"]]


def row_name(s: Mapping[str, Any], name: str) -> str:
    """Name of a row of accuracies in a summary: of a model or a layer, or what is scored of it where opinions have a price."""
    return layer_name(s.get("scored", {}).get(name, name))  # runs before 0.3 have none


def scored(s: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the accuracy blocks of models and layers in a part of a summary, or in all of it, by `row_name` where it is not a model."""
    titles = s.get("scored", {})
    return {titles.get(name, name): block for name, block in {**part["models"], **part["layers"]}.items()}


def verdict_name(s: Mapping[str, Any], verdict: str) -> str:
    """Name what the meta layer of a summary made of a decision: whether it trusts it, or, where opinions have a price, what it is worth."""
    return (PRICED if s.get("scored") else VERDICTS)[verdict]


def words(code: str) -> str:
    """Write a code such as `MAX_EXPOSURE_EXCEEDED` as words."""
    return code.replace("_", " ").lower()


def missing(x: Any) -> bool:
    """Whether there is no figure: None, NaN or infinite."""
    return x is None or (isinstance(x, float) and not math.isfinite(x))


def percent(x: float | None, digits: int = 1) -> str:
    """Write a fraction in per cent."""
    return DASH if missing(x) else f"{100.0 * x:.{digits}f} %"  # type: ignore[operator]


def signed_percent(x: float | None, digits: int = 1) -> str:
    """Write a fraction in per cent with its sign."""
    return DASH if missing(x) else f"{100.0 * x:+.{digits}f} %"  # type: ignore[operator]


def number(x: float | None, digits: int = 2) -> str:
    """Write a number with `digits` decimals and thousands separated."""
    return DASH if missing(x) else f"{x:,.{digits}f}"


def signed(x: float | None, digits: int = 2) -> str:
    """Write a number with its sign."""
    return DASH if missing(x) else f"{x:+,.{digits}f}"


def count(x: float | None) -> str:
    """Write a whole number with thousands separated."""
    return DASH if missing(x) else f"{round(x):,}"  # type: ignore[arg-type]


def span(limits: list[float | None], digits: int = 1) -> str:
    """Write an interval of fractions in per cent."""
    low, high = limits
    return DASH if missing(low) or missing(high) else f"{100.0 * low:.{digits}f} to {100.0 * high:.{digits}f}"  # type: ignore[operator]


def lacked_text(n: int) -> str:
    """Head the block of what the data lacked."""
    return "nothing that was noticed" if n == 0 else f"{several(n, 'things')} to know"


def slice_name(key: str) -> str:
    """Name of a regime slice: `volatility_low.trend_uptrend` is `low volatility, uptrend`."""
    parts = []
    for part in key.split("."):
        kind, _, level = part.partition("_")
        parts.append(f"{level} volatility" if kind == "volatility" else level)
    return ", ".join(parts)


def hours(x: float) -> str:
    """Write a bar's length."""
    if x < 1.0:
        return f"{round(60.0 * x)}-minute"
    if x == 1.0:
        return "hourly"
    return "daily" if x == 24.0 else f"{x:g}-hour"
