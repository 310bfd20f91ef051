"""What stands on the page? The run's files turned into words, tables and pictures; the template only sets them."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from qtcore.params import Params, describe
from qtcore.types import Reason, Source
from research.evidence.regimes import CELLS, TREND, VOLATILITY
from research.report import figures
from research.report.words import (
    DASH,
    NOT_ENOUGH,
    count,
    hours,
    layer_name,
    missing,
    number,
    percent,
    signed,
    signed_percent,
    slice_name,
    span,
    words,
)
from research.store import RunFiles

SHOWN_TRADES = 12


@dataclass(frozen=True)
class Table:
    """Headers and rows of text; the first column names the row, the others are figures unless they are in `texts`."""

    headers: list[str]
    rows: list[list[str]]
    texts: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()  # rows that open a group


def page(files: RunFiles) -> dict[str, Any]:
    """Gather everything the template sets."""
    s, verify = files.summary, files.verify
    equity = files.frame("equity")
    tested = equity[(equity["open_time"] >= s["data"]["test_start"]) & (equity["close_time"] <= s["data"]["test_end"])].reset_index(
        drop=True
    )
    trades = files.frame("trades")
    return {
        "title": files.manifest["run_id"],
        "subtitle": _subtitle(s),
        "verdict": {
            "word": s["evidence"]["verdict"],
            "kind": s["evidence"]["verdict"].replace(" ", "-"),
            "sentence": s["evidence"]["sentence"],
        },
        "notices": notices(s, verify, files.manifest),
        "tiles": tiles(s),
        "assumptions": assumptions(s, files.manifest),
        "pictures": pictures(s, tested, trades),
        "scores": score_table({**s["models"], **s["layers"]}),
        "rules": {name: rule_table(rows) for name, rows in s["rules"].items()},
        "slice_accuracy": slice_accuracy(s),
        "slice_rates": slice_rates(s),
        "slice_scores": [(slice_name(key), score_table({**part["models"], **part["layers"]}, True)) for key, part in s["regimes"].items()],
        "exits": by_table(s["pnl"]["by_exit"]),
        "sources": by_table(s["attribution"]["by_source"]),
        "last_trades": trade_table(trades.tail(SHOWN_TRADES).iloc[::-1]),
        "largest_trades": trade_table(trades.reindex(trades["pnl"].abs().sort_values(ascending=False).index[:SHOWN_TRADES])),
        "n_trades": count(len(trades)),
        "symbols": symbol_table(s["pnl"]["by_symbol"]),
        "evidence": evidence_table(s),
        "certificate": certificate(verify),
        "params": param_table(files.manifest["params"]),
        "made": made(files.manifest),
        "ece_bins": s["evidence"]["ece_bins"],
        "bootstrap": s["evidence"]["bootstrap"],
        "scored_cells": count(s["data"]["scored_cells"]),
    }


def _subtitle(s: dict[str, Any]) -> str:
    d = s["data"]
    return (
        f"{d['n_symbols']} symbol{'' if d['n_symbols'] == 1 else 's'}, {hours(d['interval_hours'])} bars, tested out of sample "
        f"from {d['test_start'][:10]} to {d['test_end'][:10]} ({count(d['test_bars'])} bars)"
    )


def notices(s: dict[str, Any], verify: dict[str, Any], manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what a reader must know before any figure: no trades, a halt, a failed or missing proof, imported predictions."""
    out = []
    if text := s["evidence"]["no_trades"]:
        out.append(("warn", text))
    if halt := s["pnl"]["halt"]:
        out.append(("warn", _halt_text(halt, s)))
    if verify.get("passed") is False:
        failed = [check for check in verify["checks"] if not check["passed"]]
        out.append(
            (
                "bad",
                f"The proof of this run failed: {failed[0]['name']}: {failed[0]['detail']}." if failed else "The proof of this run failed.",
            )
        )
    elif verify.get("passed") is None:
        out.append(("warn", "This run was not verified; `qt verify` proves it."))
    if s["assumptions"]["imported_predictions"]:
        out.append(("warn", "The base predictions were imported: that they were made out of sample cannot be proven here."))
    return out + [("note", text) for text in manifest.get("notes", [])]


def _halt_text(halt: dict[str, Any], s: dict[str, Any]) -> str:
    limit = percent(s["assumptions"]["params"]["governor.max_drawdown"], 0)
    text = f"Drawdown halt: from {halt['time'][:16].replace('T', ' ')} on, entries were blocked for {percent(halt['share_of_bars'])} of the tested bars"
    text += f" (limit {limit} below the peak)."
    if free := halt["without_breaker"]:
        text += f" Without the breaker the same run returns {signed_percent(free['net_return'])} with a drawdown of {percent(free['max_drawdown'])}"
        text += f" in {count(free['n_trades'])} trades."
    return text


def tiles(s: dict[str, Any]) -> list[dict[str, str]]:
    """Give the six figures of the first screen."""
    pnl, e = s["pnl"], s["evidence"]
    sharpe = e["sharpe"]
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
            "note": f"at the same exposure of {percent(pnl['mean_exposure'])}; all in {signed_percent(pnl['buy_hold_return'])}",
        },
        {"label": "Sharpe ratio", "value": number(sharpe["per_year"]), "note": annual if sharpe["refused"] is None else sharpe["refused"]},
        {
            "label": "probability of skill",
            "value": number(sharpe["deflated"]),
            "note": f"deflated for {count(e['trials']['trials'])} trial{'' if e['trials']['trials'] == 1 else 's'} on this data",
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


def assumptions(s: dict[str, Any], manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """State what the figures rest on, term by term."""
    a, d, p = s["assumptions"], s["data"], s["assumptions"]["params"]
    voting = ", ".join(layer_name(m) for m in a["models_voting"]) or "none"
    fills = "the next bar's open" if a["fill"] == "next_open" else "the deciding bar's close"
    changed = sum(manifest["params"][row["name"]] != row["default"] for row in describe())
    cooldown = f"{p['governor.cooldown_minutes']} minutes after a loss"
    if a["cooldown_blocks_after_stops_only"]:
        cooldown += "; on bars of this length only a stop blocks, and one decision"
    shorts = "" if a["allow_short"] else ", no shorts"
    return [
        ("Models", f"{len(a['models_voting'])} of {a['models_expected']} voted: {voting}"),
        ("Data", f"{count(d['n_candles'])} candles of {d['n_symbols']} symbols, {d['start'][:10]} to {d['end'][:10]}"),
        ("Label", label_text(a)),
        ("Fills", f"at {fills}; stop {percent(a['stop_loss'])} from entry; out after {a['max_holding_bars']} bars{shorts}"),
        (
            "Costs a side",
            f"fee {percent(a['fee_rate'], 3)}, slippage {percent(a['slippage_rate'], 3)}; funding {'charged' if a['funding'] else 'none'}",
        ),
        (
            "Limits",
            f"{percent(p['governor.max_position'], 0)} a position, {percent(p['governor.max_exposure'], 0)} in all, "
            f"{p['governor.max_daily_trades']} entries a day, halt at {percent(p['governor.max_drawdown'], 0)} drawdown",
        ),
        ("Cooldown", cooldown),
        (
            "Profile",
            f"{a['profile']}, {changed} parameter{'' if changed == 1 else 's'} off default; start {count(a['initial_cash'])} quote",
        ),
    ]


def label_text(a: dict[str, Any]) -> str:
    """Write the label's rule."""
    label = a["label"]
    ahead = f"{label['id']}, {label['horizon']} bar{'' if label['horizon'] == 1 else 's'} ({a['label_span_hours']:g} h) ahead"
    if label.get("is_percentile"):
        return f"{ahead}: BUY above the {100 * label['buy']:.0f}th, SELL below the {100 * label['sell']:.0f}rd percentile of training"
    return f"{ahead}: BUY above {signed_percent(label['buy'])}, SELL below {signed_percent(label['sell'])}"


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
        "confusion": figures.confusion(s) if any(b["n"] for b in {**s["models"], **s["layers"]}.values()) else None,
        "regimes": figures.regimes(s),
        "trades": figures.trades(closed, s["pnl"]["by_exit"]) if len(closed) else None,
    }
    return {name: figure for name, figure in out.items() if figure is not None}


def score_table(scored: dict[str, Any], with_confusion: bool = False) -> Table:
    """List accuracy blocks, one row a model or layer."""
    headers = [
        "",
        "accuracy",
        "95 % interval",
        "majority",
        "balanced",
        "direction",
        "95 % interval",
        "log loss",
        "ECE",
        "cells",
        "effective n",
    ]
    sides = ("SELL", "HOLD", "BUY")
    headers += [f"{right} said {said}" for right in sides for said in sides] if with_confusion else []
    rows = []
    for name, b in scored.items():
        accuracy = [percent(b["accuracy"]), span(b["ci95"])] if b["enough"] else [NOT_ENOUGH, ""]
        direction = [percent(b["direction_accuracy"]), span(b["direction_ci95"])] if b["direction_enough"] else [NOT_ENOUGH, ""]
        row = [layer_name(name), *accuracy, percent(b["majority_accuracy"]), percent(b["balanced_accuracy"]), *direction]
        row += [number(b["log_loss"], 3), number(b["ece"], 3), count(b["n"]), count(b["n_effective"])]
        rows.append(row + ([count(x) for line in b["confusion"] for x in line] if with_confusion else []))
    return Table(headers, rows)


def rule_table(rules: list[dict[str, Any]]) -> Table:
    """List the rules that were reached, in the order of asking."""
    total = max((r["reached"] for r in rules), default=0)
    reached = [r for r in rules if r["decided"]]
    rows = [[words(r["rule"]), count(r["reached"]), count(r["decided"]), percent(r["decided"] / total if total else None)] for r in reached]
    return Table(["rule", "reached", "decided", "share"], rows)


def slice_accuracy(s: dict[str, Any]) -> Table:
    """Accuracy of every model and layer in every slice, beside the majority."""
    names = [*s["models"], *s["layers"]]
    headers = ["regime", "cells", "majority", *(layer_name(n) for n in names), "direction, after arbiter", "effective n"]
    rows = []
    for key, part in s["regimes"].items():
        scored = {**part["models"], **part["layers"]}
        last = scored["arbiter"]
        cells = [percent(scored[n]["accuracy"]) if scored[n]["enough"] else "few" for n in names]
        direction = percent(last["direction_accuracy"]) if last["direction_enough"] else "few"
        rows.append([slice_name(key), count(last["n"]), percent(last["majority_accuracy"]), *cells, direction, count(last["n_effective"])])
    return Table(headers, rows, groups=_groups())


def slice_rates(s: dict[str, Any]) -> Table:
    """Rates of every layer, entries and PnL in every slice; vetoes that never occurred are left out."""
    vetoes = [name for name, share in s["rates"]["veto"].items() if share]
    headers = ["regime", "net PnL", "entries", "escalated", "arbiter accepted", "meta override", "approved", "exit signal"]
    headers += [words(v) for v in vetoes] + [f"final from {words(source.name)}" for source in Source]
    rows = []
    for key, part in [
        *s["regimes"].items(),
        ("all", {"rates": s["rates"], "pnl": s["pnl"]["net_pnl"], "n_trades": s["rates"]["counts"]["approved"]}),
    ]:
        r = part["rates"]
        row = [slice_name(key) if key != "all" else "all", signed(part["pnl"]), count(part["n_trades"])]
        row += [percent(r[name]) for name in ("escalation", "arbiter_accept", "meta_override", "approved", "exit_signal")]
        rows.append([*row, *(percent(r["veto"][v]) for v in vetoes), *(percent(r["final_source"][x.name.lower()]) for x in Source)])
    return Table(headers, rows, groups=(*_groups(), len(rows) - 1))


def _groups() -> tuple[int, ...]:
    return (len(CELLS), len(CELLS) + len(VOLATILITY), len(CELLS) + len(VOLATILITY) + len(TREND))[:2]


def by_table(groups: dict[str, Any]) -> Table:
    """List groups of trades by their PnL."""
    rows = sorted(groups.items(), key=lambda item: -item[1]["pnl"])
    return Table(
        ["", "trades", "net PnL", "mean return"],
        [[words(name), count(g["trades"]), signed(g["pnl"]), signed_percent(g["mean_return"], 3)] for name, g in rows],
    )


def trade_table(trades: pd.DataFrame) -> Table:
    """List single trades."""
    headers = [
        "symbol",
        "side",
        "entry (UTC)",
        "exit (UTC)",
        "entry price",
        "exit price",
        "notional",
        "costs",
        "net PnL",
        "return",
        "bars",
        "exit",
        "from",
    ]
    rows = []
    for row in trades.itertuples():
        is_open = row.exit_reason == 0
        rows.append(
            [
                str(row.symbol),
                "long" if row.side > 0 else "short",
                f"{row.entry_time:%Y-%m-%d %H:%M}",
                DASH if is_open else f"{row.exit_time:%Y-%m-%d %H:%M}",
                _price(row.entry_price),
                _price(row.exit_price),
                number(row.notional),
                number(row.fee + row.slippage),
                signed(row.pnl),
                signed_percent(row.ret, 2),
                DASH if is_open else count(row.bars),
                "open" if is_open else words(Reason(row.exit_reason).name),
                words(Source(row.source).name),
            ]
        )
    return Table(headers, rows, texts=(1, 2, 3, 11, 12))


def _price(x: float) -> str:
    return DASH if missing(float(x)) else f"{x:,.6g}"


def symbol_table(rows: list[dict[str, Any]]) -> Table:
    """List symbols in the order they were governed."""
    headers = ["symbol", "candles", "cells with votes", "trades", "won", "mean return", "fees", "net PnL"]
    return Table(
        headers,
        [
            [
                r["symbol"],
                count(r["bars"]),
                count(r["cells_with_votes"]),
                count(r["trades"]),
                percent(r["win_rate"], 0),
                signed_percent(r["mean_return"], 3),
                number(r["fees"]),
                signed(r["pnl"]),
            ]
            for r in rows
        ],
    )


def evidence_table(s: dict[str, Any]) -> list[tuple[str, str, str]]:
    """State every number of the verdict with its meaning."""
    e, pnl = s["evidence"], s["pnl"]
    sharpe, excess, trials = e["sharpe"], e["excess"], e["trials"]
    per_year = f"{sharpe['bars_per_year']:,.0f} bars a year in this data"
    rows = [
        ("Independent trades", number(e["trades"]["n_effective"], 1), f"{count(e['trades']['n'])} closed trades, counted by the bootstrap"),
        (
            "Net return above the market at the same exposure",
            f"{signed_percent(excess['per_year'])} a year",
            f"95 % interval {span(excess['ci95'])} %",
        ),
    ]
    if sharpe["refused"]:
        rows.append(("Sharpe ratio", DASH, sharpe["refused"]))
    else:
        rows += [
            (
                "Sharpe ratio a bar",
                number(sharpe["per_bar"], 4),
                f"{count(sharpe['n_bars'])} bars, skew {number(sharpe['skew'])}, raw kurtosis {number(sharpe['kurtosis'], 1)}",
            ),
            ("Sharpe ratio a year", number(sharpe["per_year"]), f"times {sharpe['annualisation_factor']:.2f}, the root of {per_year}"),
            ("Probability that it is above 0", number(sharpe["probabilistic"], 3), "probabilistic Sharpe ratio"),
            (
                "Best of the trials by luck, a bar",
                number(sharpe["expected_best"], 4),
                f"{count(trials['trials'])} trials, variance of their ratios {trials['variance']:.2e}",
            ),
            (
                "Probability that it is above that",
                number(sharpe["deflated"], 3),
                f"deflated; {number(sharpe['deflated_effective'], 3)} if the trials count as the {number(trials['effective'], 1)} independent ones they resemble",
            ),
            ("Bars needed to be sure", count(sharpe["minimum_track_record_bars"]), _track(sharpe)),
        ]
    rows.append(
        (
            "Costs paid",
            percent((pnl["fees"] + pnl["slippage"]) / pnl["initial_cash"]),
            f"of the starting cash; traded {number(pnl['turnover'], 1)} times over; funding {signed(pnl['funding'])}",
        )
    )
    rows.append(("Regime slices add up", f"{pnl['regime_sum_error']:.1e}", "largest gap to the total, share of the starting cash"))
    return rows


def _track(sharpe: dict[str, Any]) -> str:
    years = sharpe["minimum_track_record_years"]
    return (
        "never: the ratio is not above 0" if missing(years) else f"{number(years, 1)} years for 95 % confidence that the ratio is above 0"
    )


def certificate(verify: dict[str, Any]) -> dict[str, Any]:
    """List the checks of the proof and what it leaves open."""
    checks = [
        [c["name"], str(c.get("checked", "")), "passed" if c["passed"] else f"FAILED: {c.get('detail', '')}"]
        for c in verify.get("checks", [])
    ]
    limits = verify.get("not_covered") or verify.get("does_not_cover") or []
    return {
        "table": Table(["proof", "checked", "result"], checks, texts=(1, 2)),
        "limits": [str(x) for x in limits],
        "passed": verify.get("passed"),
    }


def param_table(params: dict[str, Any]) -> Table:
    """List every parameter; those off their default come with it."""
    default = Params().flat()
    rows = []
    for row in describe():
        name, value = row["name"], params[row["name"]]
        rows.append([name, _value(value), "" if value == default[name] else _value(default[name]), row["meaning"]])
    return Table(["parameter", "value", "default, if other", "meaning"], rows, texts=(1, 2, 3))


def _value(value: Any) -> str:
    if isinstance(value, list):
        same = len(set(value)) == 1 and len(value) > 5
        return f"{value[0]:g} ({len(value)} times)" if same else " ".join(f"{x:g}" for x in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value) or DASH


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
