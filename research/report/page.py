"""Report page: the run's files turned into words, tables and pictures; the template only sets them."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from research.errors import several
from research.evidence.plausibility import told
from research.report import figures, matrices, model_figures
from research.report.attribution_table import earned_table
from research.report.models import artefacts, importance_table, model_table, status_text, tried_on, tried_table
from research.report.rows import (
    Table,
    by_table,
    ceiling_table,
    certificate,
    changed_params,
    edge_table,
    evidence_table,
    origin_table,
    param_table,
    rule_table,
    score_table,
    seat_table,
    slice_accuracy,
    slice_rates,
    symbol_accuracy,
    symbol_table,
    threshold_table,
    trade_table,
    trader_table,
    tries_text,
    waterfall_table,
)
from research.report.terms import assumptions, verdict_parts
from research.report.words import count, hours, lacked_text, number, percent, scored, signed_percent, slice_name
from research.runs.folder import RunFiles
from research.runs.price_text import block_text
from research.runs.verdict import INVALID

SHOWN_TRADES = 12


def page(files: RunFiles, intrabar: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Gather everything the template sets. intrabar: bounds of the net PnL in place of the run's own."""
    s, verify = files.summary, files.verify
    s |= {"evidence": s["evidence"] | ({} if intrabar is None else {"intrabar": intrabar})}
    equity = files.frame("equity")
    is_tested = (equity["open_time"] >= s["data"]["test_start"]) & (equity["close_time"] <= s["data"]["test_end"])
    tested = equity[is_tested].reset_index(drop=True)
    trades = files.frame("trades")
    metas, kept = artefacts(files.path, files.voters), tried_on(files.path)
    return {
        "title": files.manifest["run_id"],
        "subtitle": _subtitle(s),
        "verdict": verdict_parts(s["evidence"]),
        "notices": notices(s, verify, files.manifest),
        "lacked": s["data"].get("lacked"),
        "lacked_text": lacked_text(len(s["data"].get("lacked") or ())),
        "tiles": tiles(s),
        "doubt": s["figures"],
        "assumptions": assumptions(s),
        "pictures": pictures(s, tested, trades) | model_pictures(s, metas),
        "scores": score_table(scored(s, s)),
        "is_priced": bool(s.get("scored")),
        "rules": {name: rule_table(rows) for name, rows in s["rules"].items()},
        "thresholds": threshold_table(s["dead"]["thresholds"]),
        "dead": [f"{text}." for text in s["dead"]["sentences"]],
        "origins": origin_table(s["provenance"]),
        "symbol_accuracy": symbol_accuracy(s),
        "against": [row["sentence"] for row in s["meta_against"]],
        "tried": None if kept is None else tried_table(kept),
        "tried_text": "" if kept is None else kept["sentence"],
        "models": model_table(metas),
        "models_text": status_text(metas),
        "importance": importance_table(metas),
        "slice_accuracy": slice_accuracy(s),
        "slice_rates": slice_rates(s),
        "slice_scores": [(slice_name(key), score_table(scored(s, part), True)) for key, part in s["regimes"].items()],
        "exits": by_table(s["pnl"]["by_exit"]),
        "traders": trader_table(s),
        "traders_text": traders_text(s),
        "seats": seats_of(s),
        "fitted_at": fitted_text(s),
        "edges": edge_tables(s),
        "min_edge": number(1e4 * s["assumptions"]["params"].get("decide.min_edge", 0.0), 1),
        "earned": earned_table(s["attribution"]["layers"]) if s["attribution"].get("layers") else None,
        "never_worse": (s["attribution"].get("never_worse") or {}).get("sentence"),
        "waterfall": s.get("waterfall"),  # earlier runs have none
        "assumed": waterfall_table(s["waterfall"]) if s.get("waterfall") else None,
        "last_trades": trade_table(trades.tail(SHOWN_TRADES).iloc[::-1]),
        "largest_trades": trade_table(trades.reindex(trades["pnl"].abs().sort_values(ascending=False).index[:SHOWN_TRADES])),
        "n_trades": count(len(trades)),
        "symbols": symbol_table(s["pnl"]["by_symbol"]),
        "evidence": evidence_table(s),
        "placebo": s["evidence"].get("placebo"),
        "ceilings": ceiling_table(s["evidence"].get("plausibility", {})),
        "above": [f"{found['text']}." for found in s["evidence"].get("plausibility", {}).get("findings", [])],
        "certificate": certificate(verify),
        "params": param_table(s["assumptions"]),
        "changed": param_table(s["assumptions"], changed_params(s["assumptions"])),
        "made": made(files.manifest),
        "ece_bins": s["evidence"]["ece_bins"],
        "bootstrap": s["evidence"]["bootstrap"],
        "scored_cells": count(s["data"]["scored_cells"]),
    }


def _subtitle(s: dict[str, Any]) -> str:
    d = s["data"]
    is_ours = not s["assumptions"]["imported_predictions"] and s["verdict"] != INVALID
    how = "tested out of sample" if is_ours else "tested" if s["verdict"] == INVALID else "tested on imported predictions"
    return (
        f"{several(d['n_symbols'], 'symbols')}, {hours(d['interval_hours'])} bars, {how} "
        f"from {d['test_start'][:10]} to {d['test_end'][:10]} ({several(d['test_bars'], 'bars')})"
    )


def notices(s: dict[str, Any], verify: dict[str, Any], manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what a reader must know before any figure: no trades, a liquidation, a halt, a missing proof, ceilings, imported predictions."""
    out = []
    if text := s["evidence"]["no_trades"]:
        out.append(("warn", text))
    if gone := s["pnl"].get("liquidation"):
        out.append(("bad", f"The account was {gone['text']}."))
    if halt := s["pnl"]["halt"]:
        out.append(("warn", _halt_text(halt, s)))
    if verify.get("passed") is None and not verify.get("checks"):
        out.append(("warn", "This run was not verified; `qt verify` proves it."))
    if found := s["provenance"]["total"]["synthetic"]:
        text = "of the predictions come from models that were trained on synthetic labels: no figure here is evidence"
        out.append(("bad", f"{percent(found)} {text}."))
    if found := s["provenance"]["total"]["stale"]:
        text = "of the predictions are stale: made after the test period that their models were trained for"
        out.append(("warn", f"{percent(found)} {text}."))
    out += told(s["evidence"].get("plausibility", {}))
    if s["assumptions"]["imported_predictions"]:
        out.append(("warn", f"The base predictions were imported: that they were made out of sample cannot be proven here{_maker(s)}."))
    if found := s["provenance"]["total"].get("contaminated"):
        text = "of the predictions are contaminated: their maker knew the bars. They do not vote and are no evidence"
        out.append(("warn", f"{percent(found)} {text}."))
    lacked = s["data"].get("lacked", ())
    return out + [("note", text) for text in manifest.get("notes", []) if text not in lacked]


def _maker(s: dict[str, Any]) -> str:
    """Go on with what the maker of imported predictions said of them; nothing in a run of before 0.3."""
    if s["provenance"]["total"].get("undeclared"):
        return "; undeclared is until when their maker knew the data (--knows-until says it), so an edge is one if he knew no later bar"
    until = s["assumptions"].get("knows_until")
    return f"; their maker is said to know nothing after {until[:16].replace('T', ' ')} UTC" if until else ""


def _halt_text(halt: dict[str, Any], s: dict[str, Any]) -> str:
    limit = percent(s["assumptions"]["params"]["governor.max_drawdown"], 0)
    since = halt["time"][:16].replace("T", " ")
    share = percent(halt["share_of_bars"])
    text = f"Drawdown halt: from {since} on, entries were blocked for {share} of the tested bars ({limit} below the peak)."
    free = halt["without_breaker"]
    if free is None:
        return text
    fate = (
        f"{signed_percent(free['net_return'])} in {several(free['n_trades'], 'trades')} with a drawdown of {percent(free['max_drawdown'])}"
    )
    return f"{text} Without the breaker the same run returns {fate}."


def tiles(s: dict[str, Any]) -> list[dict[str, str]]:
    """Give the six figures of the first screen."""
    pnl, e = s["pnl"], s["evidence"]
    sharpe, net = e["sharpe"], pnl.get("net_exposure", pnl["mean_exposure"])
    annual = f"per bar times {sharpe['annualisation_factor']:.1f}, {sharpe['bars_per_year']:,.0f} bars a year"
    return [
        {
            "label": "net return",
            "value": signed_percent(pnl["net_return"]),
            "note": f"ensemble only {signed_percent(pnl['ensemble_only']['net_return'])}",
        },
        {
            "label": "buy and hold",
            "value": signed_percent(pnl["buy_hold_matched_return"]),
            "note": f"at the same net exposure of {percent(net)}; all in {signed_percent(pnl['buy_hold_return'])}",
        },
        {"label": "Sharpe ratio", "value": number(sharpe["per_year"]), "note": annual if sharpe["refused"] is None else sharpe["refused"]},
        {
            **_skill_tile(e),
        },
        {
            "label": "largest drawdown",
            "value": percent(pnl["max_drawdown"]),
            "note": f"ensemble only {percent(pnl['ensemble_only']['max_drawdown'])}",
        },
        {
            "label": "trades",
            "value": count(pnl["n_trades"]),
            "note": f"worth {count(e['trades']['n_effective'])} independent ones; {percent(pnl['win_rate'], 0)} won",
        },
    ]


def _skill_tile(e: dict[str, Any]) -> dict[str, str]:
    """Show what the verdict compares; of a run before 0.4 the deflated Sharpe ratio."""
    if "test" not in e:
        return {
            "label": "probability of skill",
            "value": number(e["sharpe"]["deflated"]),
            "note": f"deflated for {tries_text(e['trials'])}",
        }
    note = f"above {number(e['test']['critical'])} needed after {tries_text(e['trials'])}"
    return {"label": "t value beyond the market", "value": number(e["test"]["t"]), "note": note}


def traders_text(s: dict[str, Any]) -> list[str]:
    """Say who made no trade and why, and how many trades were cut to the largest position."""
    told = s.get("traders") or {"sentences": [], "at_max_position": 0}  # runs from before have none
    if not (n := s["pnl"]["n_trades"]):
        return list(told["sentences"])
    most = percent(s["assumptions"]["params"]["governor.max_position"], 0)
    cut = f"{count(told['at_max_position'])} of {several(n, 'trades')} sat at governor.max_position, {most} of the base."
    return [*told["sentences"], cut]


def seats_of(s: dict[str, Any]) -> Table | None:
    """List in which periods each layer could act; None where opinions have no price."""
    found = (s.get("traders") or {}).get("seats")
    return seat_table(found) if found else None


def fitted_text(s: dict[str, Any]) -> str:
    """Say at which parameters maps and seats were found, and how long a block of time is."""
    traders = s.get("traders") or {}
    block = f" A block of time is {block_text(length)}." if (length := traders.get("block_hours")) else ""
    changed = traders.get("fitted_at") or {}
    if not changed:
        return f"Maps and seats were found at the parameters of this run.{block}"
    found = ", ".join(f"`{name}` {then} (here {now})" for name, (then, now) in changed.items())
    return f"Maps and seats were found at {found}; they are held fixed.{block}"


def edge_tables(s: dict[str, Any]) -> list[Any]:
    """List net edges by symbol and by hour; nothing where opinions have no price."""
    found = (s.get("traders") or {}).get("edges")
    if found is None:
        return []
    by_symbol = edge_table("symbol", found["costs"], found["by_symbol"] | {"all": found["all"]})
    return [by_symbol, edge_table("hour (UTC)", found["costs"], found["by_hour"])]


def pictures(s: dict[str, Any], tested: pd.DataFrame, trades: pd.DataFrame) -> dict[str, Any]:
    """Draw the figures that the run has data for."""
    halt = s["pnl"]["halt"]
    closed = trades[trades["exit_reason"] > 0]
    out = {
        "equity": figures.equity(tested),
        "drawdown": figures.drawdown(
            tested, pd.Timestamp(halt["time"]) if halt else None, s["assumptions"]["params"]["governor.max_drawdown"]
        ),
        "decisions": figures.decisions(s),
        "accuracy": figures.accuracy(s),
        "confusion": matrices.confusion(s) if any(b["n"] for b in {**s["models"], **s["layers"]}.values()) else None,
        "regimes": matrices.regimes(s),
        "trades": figures.trades(closed, s["pnl"]["by_exit"]) if len(closed) else None,
        "placebo": figures.placebo(s["evidence"].get("placebo")),  # earlier runs have none
        "waterfall": figures.waterfall(s.get("waterfall")),
    }
    return {name: figure for name, figure in out.items() if figure is not None}


def model_pictures(s: dict[str, Any], metas: list[dict[str, Any]]) -> dict[str, Any]:
    """Draw what the models are like inside, as far as it was recorded."""
    out = {
        "reliability": model_figures.reliability(s["reliability"]),
        "curves": model_figures.curves(metas),
        "importance": model_figures.importance(metas),
        "lags": model_figures.lag_profiles(s["evidence"].get("plausibility", {})),
    }
    return {name: figure for name, figure in out.items() if figure is not None}


def made(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Say how the run was made."""
    versions = ", ".join(f"{name} {v}" for name, v in manifest["versions"].items() if v)
    return [
        ("Command", manifest["command"]),
        ("Made", f"{manifest['created'][:19].replace('T', ' ')} UTC on {manifest['platform']}"),
        ("Data fingerprint", manifest["data_fingerprint"]),
        ("Source hash", ", ".join(f"{name} {v}" for name, v in manifest["source_hash"].items())),
        ("Versions", versions),
    ]
