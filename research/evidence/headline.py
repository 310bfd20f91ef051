"""Headline figures: what people ask for first, as short tables made from a summary."""

from typing import Any

import pandas as pd

from research.evidence.provenance import known_text
from research.runs.verdict import NOT_PROVEN, told
from research.training.regimes import SLICES


def headline(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the result table, name to value; rates in per cent, None where there is no figure."""
    data, pnl, evidence = summary["data"], summary["pnl"], summary["evidence"]
    sharpe, doubt = evidence["sharpe"], summary["figures"]
    return {
        "verdict": told(summary["verdict"], evidence),
        "proof": "passed" if summary["proven"] else f"FAILED: {summary['failed_check']}" if summary["verdict"] == "invalid" else NOT_PROVEN,
        **({"figures": doubt} if doubt else {}),
        "tested from": data["test_start"][:10],
        "tested to": data["test_end"][:10],
        "symbols": data["n_symbols"],
        "tested bars": data["test_bars"],
        "models voting": f"{len(summary['assumptions']['models_voting'])} of {summary['assumptions']['models_expected']}",
        **({"known to their maker": known} if (known := known_text(summary)) else {}),
        "trades": pnl["n_trades"],
        "trades by layer": _by_layer(summary, "trades", ","),
        "net PnL by layer": _by_layer(summary, "pnl", "+,.2f"),
        **({"closing, not yet paid": round(unpaid, 2)} if (unpaid := not_yet_paid(summary)) else {}),
        "independent trades": _rounded(evidence["trades"]["n_effective"], 1),
        "net return [%]": _percent(pnl["net_return"]),
        "ensemble only [%]": _percent(pnl["ensemble_only"]["net_return"]),
        "buy and hold, same exposure [%]": _percent(pnl["buy_hold_matched_return"]),
        "buy and hold, fully invested [%]": _percent(pnl["buy_hold_return"]),
        "max drawdown [%]": _percent(pnl["max_drawdown"]),
        "mean exposure [%]": _percent(pnl["mean_exposure"]),
        "win rate [%]": _percent(pnl["win_rate"]),
        "fees paid [%]": _percent(pnl["fees"] / pnl["initial_cash"]),
        "Sharpe ratio a year": _rounded(sharpe["per_year"], 2),
        "bars a year": _rounded(sharpe["bars_per_year"], 0),
        **_alpha_rows(evidence),
        "probability of skill (deflated Sharpe)": _rounded(sharpe["deflated"], 3),
        "trials so far": evidence["trials"]["trials"],
    }


def _alpha_rows(evidence: dict[str, Any]) -> dict[str, float | None]:
    """Return what was earned beyond the market, its t value and the one needed; nothing of a run before 0.4."""
    if "test" not in evidence:
        return {}
    return {
        "alpha a year, beyond the market [%]": _percent(evidence["alpha"]["per_year"]),
        "t value of alpha": _rounded(evidence["test"]["t"], 2),
        "t value needed after all trials": _rounded(evidence["test"]["critical"], 2),
    }


def _by_layer(summary: dict[str, Any], figure: str, form: str) -> str | None:
    """Write a figure of the trades that each layer opened."""
    found = summary["attribution"]["by_source"]
    return ", ".join(f"{name} {group[figure]:{form}}" for name, group in found.items()) or None


def not_yet_paid(summary: dict[str, Any]) -> float:
    """Return by how much the net PnL exceeds that of the trades: they are told as if all were closed at the end; 0 below a hundredth."""
    unpaid: float = summary["pnl"]["net_pnl"] - sum(group["pnl"] for group in summary["attribution"]["by_source"].values())
    return unpaid if abs(unpaid) >= 0.005 else 0.0


def regime_table(summary: dict[str, Any]) -> pd.DataFrame:
    """Return one row a regime slice: accuracy, direction, rates and PnL of the chain."""
    rows = {}
    for name in SLICES[1:]:
        part = summary["regimes"][name]
        block, rates = part["layers"]["arbiter"], part["rates"]
        rows[name] = {
            "n": block["n"],
            "n_effective": block["n_effective"],
            "accuracy": block["accuracy"],
            "majority_accuracy": block["majority_accuracy"],
            "volatility_accuracy": block.get("volatility_accuracy"),  # runs before 0.3 have none
            "direction_accuracy": block["direction_accuracy"],
            "escalation": rates["escalation"],
            "arbiter_accept": rates["arbiter_accept"],
            "vetoed": _sum(rates["veto"]),
            "trades": part["n_trades"],
            "pnl": part["pnl"],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("regime")


def _sum(shares: dict[str, float | None]) -> float | None:
    known = [x for x in shares.values() if x is not None]
    return sum(known) if known else None


def _percent(x: float | None) -> float | None:
    return None if x is None else round(100.0 * x, 2)


def _rounded(x: float | None, digits: int) -> float | None:
    return None if x is None else round(x, digits)
