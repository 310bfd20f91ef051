"""Tables of the report: one function a table, parts of the summary in, rows of text out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from qtcore.params import Params, describe
from qtcore.reading import is_read
from qtcore.rules import rule_of, words_of
from qtcore.types import Source
from qtcore.voters import slots_of
from research.evidence.finding import LEAST_HELD, p_text
from research.evidence.headline import not_yet_paid
from research.evidence.intrabar import bounds_text
from research.evidence.plausibility import NAMES, figure_text
from research.evidence.standing import others_text
from research.report.words import (
    DASH,
    NOT_ENOUGH,
    assumption_name,
    count,
    layer_name,
    missing,
    number,
    percent,
    row_name,
    signed,
    signed_percent,
    slice_name,
    span,
    verdict_name,
    words,
)
from research.training.regimes import CELLS, VOLATILITY

STATUS = {"decided": "", "never here": "never here", "unreachable": "unreachable", "off": "off"}
SIDES = ("SELL", "HOLD", "BUY")
MARGINS = (len(CELLS), len(CELLS) + len(VOLATILITY))  # first rows of the margins in a table of slices


@dataclass(frozen=True)
class Table:
    """Headers and rows of text; the first column names the row, the others are figures unless they are in `texts`."""

    headers: list[str]
    rows: list[list[str]]
    texts: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()  # rows that open a group


def score_table(scored: dict[str, Any], with_confusion: bool = False) -> Table:
    """List accuracy blocks, one row a model or layer; on too few independent events no figure is written."""
    headers = ["", "accuracy", "95 % interval", "majority", "volatility", "balanced", "95 % interval"]
    headers += ["direction", "95 % interval"]
    headers += [
        "activity",
        "95 % interval",
        "its majority",
        "log loss",
        "base rate",
        "volatility",
        "Brier",
        "base rate",
        "ECE",
        "cells",
        "effective n",
    ]
    headers += [f"{right} said {said}" for right in SIDES for said in SIDES] if with_confusion else []
    rows = []
    for name, b in scored.items():
        direction = [percent(b["direction_accuracy"]), span(b["direction_ci95"])] if b["direction_enough"] else [NOT_ENOUGH, ""]
        row = [layer_name(name), *_general(b), *direction, *_activity(b), *_losses(b), count(b["n"]), count(b["n_effective"])]
        rows.append(row + ([count(x) for line in b["confusion"] for x in line] if with_confusion else []))
    return Table(headers, rows)


def _general(b: dict[str, Any]) -> list[str]:
    if not b["enough"]:
        return [NOT_ENOUGH, "", "", "", "", ""]
    balanced = [percent(b["balanced_accuracy"]), span(b["balanced_ci95"])]
    return [percent(b["accuracy"]), span(b["ci95"]), percent(b["majority_accuracy"]), percent(b.get("volatility_accuracy")), *balanced]


def _activity(b: dict[str, Any]) -> list[str]:
    if not b["activity_enough"]:
        return [NOT_ENOUGH, "", ""]
    return [percent(b["activity_accuracy"]), span(b["activity_ci95"]), percent(b["activity_majority"])]


def _losses(b: dict[str, Any]) -> list[str]:
    figures = ("log_loss", "base_rate_log_loss", "volatility_log_loss", "brier", "base_rate_brier", "ece")
    return [number(b.get(name), 3) for name in figures] if b["enough"] else [""] * 6


def rule_table(rules: list[dict[str, Any]]) -> Table:
    """List the rules of the mode in the order of asking, those that cannot be reached marked, and those that only advised."""
    total = max((r["reached"] for r in rules), default=0)
    shown = [r for r in rules if r["status"] != "off" and r["rule"] != "NONE" and not r["why"].startswith("counted on")]
    rows = []
    for r in shown:
        share = percent(r["decided"] / total) if r["decided"] else ""
        heard = r.get("advised", 0)
        aside = f", {'' if heard == r['decided'] else f'{count(heard)} '}as advice" if heard else ""
        rows.append([words_of(r["rule"]) + aside, count(r["reached"]), count(r["decided"]), share, STATUS[r["status"]]])
    return Table(["rule", "reached", "decided", "share", ""], rows, texts=(4,))


def threshold_table(rows: list[dict[str, Any]]) -> Table:
    """List every threshold: what it steers, how often, and which values would have changed nothing."""
    headers = ["threshold", "value", "reached", "decided", "", "no difference", "because"]
    table = []
    for r in rows:
        status = "changes nothing" if r["status"] == "unreachable" else STATUS[r["status"]]
        row = [r["parameter"], f"{r['value']:g}", count(r["reached"]), count(r["decided"]), status, r["same_text"] or DASH, r["why"]]
        table.append(row)
    return Table(headers, table, texts=(4, 5, 6))


def symbol_accuracy(s: dict[str, Any]) -> Table:
    """Accuracy and balanced accuracy of every model and layer on every symbol, beside majority and volatility baseline."""
    names = [*s["models"], *(layer for layer in s["layers"] if layer not in ("arbiter_calls", "final"))]
    headers = ["symbol", "cells", "effective n", "majority", "volatility"]
    headers += [title for n in names for title in (row_name(s, n), "balanced")]
    headers += ["direction, after arbiter", "95 % interval", "activity", "its majority"]
    rows = []
    for symbol, part in s["symbols"].items():
        scored = {**part["models"], **part["layers"]}
        last = scored["arbiter"]
        cells = [text for n in names for text in _pair(scored.get(n))]
        tail = [percent(last["direction_accuracy"]), span(last["direction_ci95"])] if last["direction_enough"] else ["few", ""]
        tail += [percent(last["activity_accuracy"]), percent(last["activity_majority"])] if last["activity_enough"] else ["few", ""]
        beside = [percent(last.get(f"{name}_accuracy")) if last["enough"] else "few" for name in ("majority", "volatility")]
        rows.append([symbol, count(last["n"]), count(last["n_effective"]), *beside, *cells, *tail])
    return Table(headers, rows)


def _pair(b: dict[str, Any] | None) -> list[str]:
    if b is None or not b["enough"]:
        return ["few", ""]
    return [percent(b["accuracy"]), percent(b["balanced_accuracy"])]


def origin_table(provenance: dict[str, Any]) -> Table:
    """Say where predictions came from: shares by model, and what was decided and earned on them."""
    decided = provenance["decisions"]
    kinds = list(decided)
    rows = [[layer_name(n), count(p["due"]), *(_share(p[kind]) for kind in kinds)] for n, p in provenance["models"].items()]
    rows += [
        ["decisions, by their worst", count(sum(d["cells"] for d in decided.values())), *(_share(decided[k]["share"]) for k in kinds)],
        ["closed trades", count(sum(d["trades"] for d in decided.values())), *(count(decided[k]["trades"]) for k in kinds)],
        ["net PnL, quote", signed(sum(d["pnl"] for d in decided.values())), *(signed(decided[k]["pnl"]) for k in kinds)],
        ["share of gross PnL", "", *(_share(decided[k]["share_of_gross_pnl"]) for k in kinds)],
    ]
    return Table(["", "in all", *kinds], rows, groups=(len(provenance["models"]),))


def _share(x: float | None) -> str:
    return percent(x, 2) if x else (DASH if missing(x) else "0")


def slice_accuracy(s: dict[str, Any]) -> Table:
    """Accuracy of every model and layer in every slice, beside majority and volatility baseline."""
    names = [*s["models"], *s["layers"]]
    headers = ["regime", "cells", "majority", "volatility", *(row_name(s, n) for n in names), "direction, after arbiter", "effective n"]
    rows = []
    for key, part in s["regimes"].items():
        scored = {**part["models"], **part["layers"]}
        last = scored["arbiter"]
        cells = [percent(scored[n]["accuracy"]) if scored[n]["enough"] else "few" for n in names]
        direction = percent(last["direction_accuracy"]) if last["direction_enough"] else "few"
        beside = [percent(last.get(f"{name}_accuracy")) for name in ("majority", "volatility")]
        rows.append([slice_name(key), count(last["n"]), *beside, *cells, direction, count(last["n_effective"])])
    return Table(headers, rows, groups=MARGINS)


def slice_rates(s: dict[str, Any]) -> Table:
    """Rates of every layer, entries and PnL in every slice; vetoes that never occurred are left out."""
    vetoes = [name for name, share in s["rates"]["veto"].items() if share]
    headers = ["regime", "net PnL", "entries", verdict_name(s, "escalated"), "arbiter accepted", "meta override", "approved", "exit signal"]
    headers += [words_of(v) for v in vetoes] + [f"final from {words(source.name)}" for source in Source]
    rows = []
    for key, part in [
        *s["regimes"].items(),
        ("all", {"rates": s["rates"], "pnl": s["pnl"]["net_pnl"], "n_trades": s["rates"]["counts"]["approved"]}),
    ]:
        r = part["rates"]
        row = [slice_name(key) if key != "all" else "all", signed(part["pnl"]), count(part["n_trades"])]
        row += [percent(r[name]) for name in ("escalation", "arbiter_accept", "meta_override", "approved", "exit_signal")]
        rows.append([*row, *(percent(r["veto"][v]) for v in vetoes), *(percent(r["final_source"][x.name.lower()]) for x in Source)])
    return Table(headers, rows, groups=(*MARGINS, len(rows) - 1))


def by_table(groups: dict[str, Any]) -> Table:
    """List groups of trades by their PnL."""
    rows = sorted(groups.items(), key=lambda item: -item[1]["pnl"])
    return Table(
        ["", "trades", "net PnL", "mean return"],
        [[words(name), count(g["trades"]), signed(g["pnl"]), signed_percent(g["mean_return"], 3)] for name, g in rows],
    )


def trader_table(s: dict[str, Any]) -> Table:
    """Say which layer opened how many trades, and what they earned; a layer that opened none has its row too."""
    groups, n = s["attribution"]["by_source"], s["pnl"]["n_trades"]
    rows = []
    for name in dict.fromkeys(("ensemble", "meta", "arbiter", *groups)):
        g = groups.get(name, {"trades": 0, "pnl": 0.0, "mean_return": None})
        share = percent(g["trades"] / n, 0) if n else DASH
        rows.append([words(name), count(g["trades"]), share, signed(g["pnl"]), signed_percent(g["mean_return"], 3)])
    if unpaid := not_yet_paid(s):
        rows.append(["closing, not yet paid", "", "", signed(unpaid), ""])
    return Table(["deciding layer", "trades", "share", "net PnL", "mean return"], rows)


def seat_table(rows: list[dict[str, Any]]) -> Table:
    """Say of each layer in which periods it could act, oldest first, and on what newest evidence."""
    marks = [" ".join("\u25cf" if acts else "\u25cb" for acts in row["acts"]) for row in rows]
    told = [[words(row["layer"]), f"{sum(row['acts'])} of {len(row['acts'])}", mark, row["evidence"]] for row, mark in zip(rows, marks)]
    return Table(["layer", "acts in", "oldest to newest", "newest evidence"], told, texts=(2, 3))


def edge_table(title: str, costs: float, groups: dict[str, Any]) -> Table:
    """List net edges by group, the largest estimate before costs, and fees with slippage; basis points."""
    rows = []
    for name, g in groups.items():
        rows.append([name, count(g["cells"]), *(signed(g[key], 1) for key in ("largest", "p99", "estimate")), number(costs, 1)])
    return Table([title, "cells", "largest net", "99th perc.", "estimate", "costs"], rows)


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
                "open" if is_open else rule_of(row.exit_reason).words,
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
    sharpe, trials = e["sharpe"], e["trials"]
    costs = f"of the starting cash; traded {number(pnl['turnover'], 1)} times over; funding {signed(pnl['funding'])}"
    rows = [
        ("Independent trades", number(e["trades"]["n_effective"], 1), f"{count(e['trades']['n'])} closed trades, counted by the bootstrap"),
        *_test_rows(e),
    ]
    rows += [("Sharpe ratio", DASH, sharpe["refused"])] if sharpe["refused"] else _sharpe_rows(sharpe, trials)
    rows.append(("Costs paid", percent((pnl["fees"] + pnl["slippage"]) / pnl["initial_cash"]), costs))
    if bounds := e.get("intrabar"):  # runs before 0.4, and those that `unbounded` names, have none
        rows.append(("Net PnL, quote", signed(pnl["net_pnl"]), bounds_text(bounds)))
    rows.append(("Regime slices add up", f"{pnl['regime_sum_error']:.1e}", "gap to the total, share of the starting cash"))
    return rows


def _test_rows(e: dict[str, Any]) -> list[tuple[str, str, str]]:
    """State what was earned beyond the market and its test; of a run before 0.4 the market at its own exposure."""
    if "test" not in e:
        above = f"{signed_percent(e['excess']['per_year'])} a year"
        return [("Net return above the market at the same exposure", above, f"95 % interval {span(e['excess']['ci95'])} %")]
    alpha, test = e["alpha"], e["test"]
    block = "five days" if test["is_daily"] else "three pieces of a short test"
    held = f"{count(test['blocks_held'])} of {count(test['blocks'])}, each {block}; {LEAST_HELD} are needed"
    rest = f"{percent(alpha['unexplained'])} of its variance is not the market's"
    rows = [("Blocks in which something was held", count(test["blocks_held"]), held)]
    rows.append(
        (
            "Alpha: net return beyond the market",
            f"{signed_percent(alpha['per_year'])} a year",
            f"95 % interval {span(alpha['ci95'])} %; {rest}",
        )
    )
    if missing(test["t"]):
        return [*rows, ("T value of alpha", DASH, "the market itself" if test["is_market"] else "the equity never moved")]
    shape = f"{number(test['t_raw'])} before skewness {number(test['skew'])} and autocorrelation {number(test['autocorrelation'])}"
    tries = f"what luck exceeds in 1 of 20 families of {tries_text(e['trials'])}"
    if test["independent"]:
        tries += f"; {count(test['independent'])} of them without known returns, as independent ones"
    rows.append(("T value of alpha", number(test["t"]), shape))
    rows.append(("T value needed", number(test["critical"]), tries))
    return [*rows, ("Chance of such a t value without skill", p_text(test["p"]), "among all of them; never less than the draws can show")]


def waterfall_table(found: Mapping[str, Any]) -> Table:
    """List what the same decisions earn under other fills and costs. found: `waterfall` of a summary."""
    rows = []
    for column in found["columns"]:
        changed = ", ".join(
            f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in column["set"].items()
        )
        figures = [signed_percent(column["net_return"]), signed_percent(column["difference"]), percent(column["max_drawdown"])]
        about = "the run" if column["is_own"] else column["refused"] or changed or DASH
        free = signed_percent(column.get("without_breaker"))  # earlier runs have none
        rows.append([assumption_name(column), *figures, count(column["n_trades"]), free, about])
    return Table(["assumption", "net return", "against the run", "drawdown", "trades", "without the drawdown limit", "set"], rows)


def ceiling_table(found: Mapping[str, Any]) -> Table:
    """Compare the highest figure of each kind with the most that an honest run reaches. found: `plausibility` of a summary's evidence."""
    rows = []
    for row in found.get("ceilings", []):
        value, low, ceiling = (DASH if missing(row[key]) else figure_text(row["name"], row[key]) for key in ("figure", "low", "ceiling"))
        is_above = not missing(row["low"]) and row["low"] > row["ceiling"]
        what = NAMES[row["name"]].format(h="few").strip(",")
        said = "above" if is_above else "not surely above" if row["where"] else DASH
        rows.append([what, layer_name(row["where"]), value, low, ceiling, said])
    return Table(["figure", "highest of", "value", "at least", "ceiling", ""], rows, texts=(1, 5))


def _sharpe_rows(sharpe: dict[str, Any], trials: dict[str, Any]) -> list[tuple[str, str, str]]:
    shape = f"{count(sharpe['n_bars'])} bars, skew {number(sharpe['skew'])}, raw kurtosis {number(sharpe['kurtosis'], 1)}"
    if sharpe.get("autocorrelation") is not None:  # as in a run before 0.4
        shape += f", autocorrelation {number(sharpe['autocorrelation'])}"
    factor = f"times {sharpe['annualisation_factor']:.2f}, the root of {sharpe['bars_per_year']:,.0f} bars a year in this data"
    n, independent = trials["trials"], number(trials["effective"], 1)
    tries = f"{tries_text(trials)}; variance of their ratios {trials['variance']:.2e}"
    if trials.get("invalid") or trials.get("implausible"):
        tries += ", without those of invalid and implausible ones"
    deflated = "deflated Sharpe ratio; one trial, so nothing to deflate"
    if n > 1:
        deflated = (
            f"deflated Sharpe ratio; {number(sharpe['deflated_effective'], 3)} if the trials, as they correlate, count as {independent}"
        )
    years = sharpe["minimum_track_record_years"]
    track = "never: the ratio is not above 0" if missing(years) else f"{number(years, 1)} years to be 95 % sure that the ratio is above 0"
    return [
        ("Sharpe ratio a bar", number(sharpe["per_bar"], 4), shape),
        ("Sharpe ratio a year", number(sharpe["per_year"]), factor),
        (
            "Probability that it is above 0",
            number(sharpe["probabilistic"], 3),
            "probabilistic Sharpe ratio, corrected for autocorrelation above 0",
        ),
        ("Best of the trials by luck, a bar", number(sharpe["expected_best"], 4), tries),
        ("Probability that it is above that", number(sharpe["deflated"], 3), deflated),
        ("Bars needed to be sure", count(sharpe["minimum_track_record_bars"]), track),
    ]


def tries_text(trials: dict[str, Any]) -> str:
    """Say how many trials there were, and how many are invalid, implausible or not proven."""
    n, others = trials["trials"], others_text(trials)
    return f"{count(n)} trial{'' if n == 1 else 's'} on this data" + (f", {others} among them" if others else "")


def certificate(verify: dict[str, Any]) -> dict[str, Any]:
    """List the checks of the proof, what they cover and what they leave open."""
    checks = [
        [c["name"], str(c.get("checked", "")), "passed" if c["passed"] else f"FAILED: {c.get('detail', '')}"]
        for c in verify.get("checks", [])
    ]
    return {
        "table": Table(["proof", "checked", "result"], checks, texts=(1, 2)),
        "covers": verify.get("covers", []),
        "limits": verify.get("not_covered", []),
        "passed": verify.get("passed"),
    }


def changed_params(a: Mapping[str, Any]) -> list[str]:
    """Name the parameters that were set to another value than the run would have had without. a: `assumptions` of a summary."""
    usual = _usual(a)
    return [name for name, value in a["params"].items() if value != usual.get(name)]


def _usual(a: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a run's profile, weights and holding time as its voters and its label settle them where nothing is set."""
    voters = list(a.get("weights", {}))  # runs before 0.2 have none
    params = Params.profile(a["profile"]).for_voters(slots_of(voters), voters)
    if params.broker.max_holding_bars == 0:
        params = params.with_values({"broker.max_holding_bars": a["label"]["horizon"]})
    return params.flat()


def param_table(a: Mapping[str, Any], only: list[str] | None = None) -> Table:
    """List parameters, all or some, with the profile's value where it is another, and their meaning. a: `assumptions` of a summary."""
    params, usual = a["params"], _usual(a)
    read, rows = Params.stored(params), []
    for row in describe():
        name, value = row["name"], params[row["name"]]
        is_usual = value == usual[name]
        if only is None or name in only:
            meaning = row["meaning"] if is_read(read, name) else f"{row['meaning']}; not read in this run"
            rows.append([name, _value(value), "" if is_usual else _value(usual[name]), meaning])
    return Table(["parameter", "value", "of the profile, if other", "meaning"], rows, texts=(1, 2, 3))


def stage_texts(params: dict[str, Any]) -> list[str]:
    """Say what every stage of the run changes, in a few words."""
    switches = {"meta.enabled": "meta", "arbiter.enabled": "arbiter"}
    return [
        f"from {stage['from'].replace('T', ' ')[:16]} UTC "
        + ", ".join(f"{switches[k]} {_value(v)}" if k in switches else "fitted regime weights" for k, v in stage.items() if k != "from")
        for stage in params.get("stages", [])
    ]


def _value(value: Any) -> str:
    if isinstance(value, list):
        same = len(set(value)) == 1 and len(value) > 5
        return f"{value[0]:g} ({len(value)} times)" if same else " ".join(map(_value, value)) or DASH
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value) or DASH
