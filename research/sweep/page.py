"""Sweep page: one self-contained HTML page with the verdict, the funnel of trials, heatmaps, exact curves, the best rows."""

import json
import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from research.errors import several
from research.evidence.overfitting import search_words
from research.report import render
from research.report.svg import BAD, CHAIN, ENSEMBLE, GOOD, GRID, INK, MARKET, MUTED, Picture, picture
from research.report.terms import assumptions, swept_costs, verdict_parts
from research.report.words import lacked_text
from research.sweep.curves import THRESHOLDS, Curve
from research.sweep.digest import Digest, digest, scales_of
from research.sweep.drivers import driver_words
from research.sweep.rules import parse_objective, parse_rules
from research.sweep.trials import SweepResult
from research.sweep.walk import Walk, pick_table

TOP = 20  # rows of the table of trials
LINES = 200  # trials in parallel coordinates besides the best
MAPS = 6  # pairs of axes that are drawn
WALKED = (  # column, words, colour
    ("picked.sharpe", "where picked", MARKET),
    ("scored.sharpe", "on the fold after", CHAIN),
    ("median.sharpe", "median setting there", ENSEMBLE),
)
SHOWN = ("sharpe", "total_return", "max_drawdown", "n_trades", "win_rate", "turnover")
PER_CENT = {"total_return", "annual_return", "max_drawdown", "win_rate", "mean_exposure", "time_in_market", "volatility"}


def build(trials: SweepResult, summary: Mapping[str, Any], path: Path, curves: tuple[Curve, ...] = (), walked: Walk | None = None) -> Path:
    """Write the page of a sweep to `path` and return it.

    summary: what `workflow.summary_of` made; curves: exact ones to show; walked: a walk forward over the same settings.
    """
    return render("sweep.html", _content(trials, summary, curves) | {"walk": None if walked is None else _walk(walked)}, path)


def _walk(walked: Walk) -> dict[str, Any]:
    headers, rows = pick_table(walked.table)
    picture = walk_picture(walked.table) if len(rows) else None
    return {
        "sentence": walked.verdict["sentence"],
        "picture": picture,
        "table": {"headers": headers, "rows": rows, "texts": [], "groups": []},
    }


def _content(trials: SweepResult, summary: Mapping[str, Any], curves: tuple[Curve, ...]) -> dict[str, Any]:
    objective, sign = parse_objective(summary["objective"], trials.columns)
    columns, best = list(dict.fromkeys(["trial", *trials.space.names, objective, *SHOWN])), summary["best"]
    rules = parse_rules(trials.where, trials.columns)
    varied = list(scales_of(trials.space))
    pairs = list(combinations(varied, 2))[:MAPS]
    found = digest(trials, columns, (objective, sign), pairs, TOP, rules)
    verdict = summary["verdict"]
    size = f"{several(len(summary['symbols']), 'symbols')} and {several(summary['bars'], 'bars')}"
    return {
        "title": f"Sweep of {', '.join(trials.space.names)}",
        "subtitle": f"{several(summary['n_done'], 'settings')} over {size}",
        "verdict": verdict_parts(verdict),
        "doubt": verdict["figures"],
        "notices": _notices(summary),
        "lacked": summary["data"]["lacked"],
        "lacked_text": lacked_text(len(summary["data"]["lacked"])),
        "tiles": _tiles(summary),
        "assumptions": assumptions(summary),
        "setting": [f"{name} {_shown(name, value)}" for name, value in best["setting"].items()],
        "funnel": _funnel(summary),
        "worth": search_words(summary["search"]),
        "sampled": summary["search"],
        "spread": spread(found, objective, best.get(objective)),
        "maps": [(f"{y} over {x}", heatmap(found, (x, y), objective, best["setting"])) for x, y in pairs],
        "n_pairs": len(varied) * (len(varied) - 1) // 2,
        "lines": parallel(found, varied, objective) if len(varied) > 1 else None,
        "curves": [(curve.name, _curve_words(curve), curve_picture(curve)) for curve in curves],
        "thresholds": THRESHOLDS,
        "top": {
            "headers": columns,
            "rows": [[_shown(name, value) for name, value in row.items()] for row in found.top.to_dict("records")],
            "texts": [],
            "groups": [],
        },
        "objective": objective,
        "drivers": driver_words(summary["drivers"]),
    }


def _notices(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    out = [("warn", text)] if (text := swept_costs(summary["space"]["axes"])) else []
    if summary["n_done"] < summary["space"]["size"]:
        out.append(("warn", f"{summary['n_done']:,} of {summary['space']['size']:,} settings are done; `--resume` goes on."))
    if summary["n_distinct"] < summary["n_done"]:
        out.append(
            (
                "",
                f"{summary['n_done']:,} settings had {summary['n_distinct']:,} distinct outcomes: the others differ in nothing.",
            )
        )
    return out


def _tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    best, tried, test = summary["best"], summary["tried"], summary["verdict"]["test"]
    return [
        {"label": "Settings", "value": f"{summary['n_done']:,}", "note": f"{summary['n_distinct']:,} distinct outcomes"},
        {"label": "Best Sharpe a year", "value": _shown("sharpe", best["sharpe"]), "note": f"trial {best['trial']:,}"},
        {
            "label": "T value of its alpha",
            "value": "none" if test["t"] is None else f"{test['t']:.2f}",
            "note": "nothing beyond the market to test" if test["t"] is None else f"above {test['critical']:.2f} needed after the search",
        },
        {"label": "Its net return", "value": _shown("total_return", best["total_return"]), "note": f"{best['n_trades']:,} trades"},
        {"label": "Its drawdown", "value": _shown("max_drawdown", best["max_drawdown"]), "note": "largest fall from the peak"},
        {
            "label": "Trials counted",
            "value": "none" if tried is None else f"{tried['trials']:,}",
            "note": "not counted" if tried is None else f"worth {several(round(tried['effective']), 'independent ones')}",
        },
    ]


def _funnel(summary: Mapping[str, Any]) -> Picture:
    """Draw how the trials thin out."""
    tried = summary["tried"]
    steps = [
        *([("tried on these candles, ever", tried["trials"], MARKET)] if tried else []),
        ("settings of this sweep", summary["n_done"], CHAIN),
        ("distinct outcomes", summary["n_distinct"], CHAIN),
        *([("worth independent trials", tried["effective"], ENSEMBLE)] if tried else []),
        ("keep the constraints", summary["n_kept"], GOOD),
    ]

    def draw(figure: Any, is_narrow: bool) -> None:
        ax = figure.subplots()
        figure.subplots_adjust(left=0.42 if is_narrow else 0.24, right=0.86, top=0.97, bottom=0.06)
        for i, (_, n, colour) in enumerate(reversed(steps)):
            ax.barh(i, max(np.log10(max(n, 1.0)), 0.02), color=colour, height=0.62)
            ax.annotate(
                f"{n:,.0f}", (max(np.log10(max(n, 1.0)), 0.02), i), xytext=(4, -3), textcoords="offset points", fontsize=8.5, color=INK
            )
        ax.set_yticks(range(len(steps)), [name for name, _, _ in reversed(steps)])
        ax.set_xticks([])
        ax.grid(False)
        ax.spines[["left", "bottom"]].set_visible(False)

    return picture(draw, "Funnel of trials, logarithmic", (1.9, 2.0))


def spread(found: Digest, name: str, best: float | None) -> Picture:
    """Draw how the trials' figures are spread, and where the best stands."""
    edges = found.edges

    def draw(figure: Any, is_narrow: bool) -> None:
        ax = figure.subplots()
        figure.subplots_adjust(left=0.16 if is_narrow else 0.08, right=0.98, top=0.95, bottom=0.2)
        ax.bar(edges[:-1], found.counts, np.diff(edges), align="edge", color=CHAIN, alpha=0.8, lw=0)
        if best is not None and np.isfinite(best):
            ax.axvline(best, color=BAD, lw=1.2)
            ax.annotate("best", (best, ax.get_ylim()[1]), xytext=(-4, -9), textcoords="offset points", ha="right", color=BAD, fontsize=8.5)
        ax.set_xlabel(name)
        ax.set_ylabel("settings")
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")

    return picture(draw, f"Spread of {name} over the settings", (2.6, 2.6))


def heatmap(found: Digest, pair: tuple[str, str], value: str, best: Mapping[str, Any]) -> Picture:
    """Draw the mean of `value` over two axes; the cross is the best trial."""
    x, y = pair
    mean = found.maps[pair]
    height, width = mean.shape

    def draw(figure: Any, is_narrow: bool) -> None:
        ax = figure.subplots()
        figure.subplots_adjust(left=0.2 if is_narrow else 0.12, right=0.99 if is_narrow else 1.02, top=0.96, bottom=0.16)
        mesh = ax.pcolormesh(np.arange(width + 1), np.arange(height + 1), mean, cmap="viridis", rasterized=True)
        for name, axis in ((x, ax.xaxis), (y, ax.yaxis)):
            labels = [f"{v:.3g}" if found.scales[name].values is None else _shown(name, v) for v in found.scales[name].places]
            step = max(1, -(-len(labels) // (5 if is_narrow else 10)))
            axis.set_ticks(np.arange(0, len(labels), step) + 0.5, [_whole(text) for text in labels[::step]])
            axis.set_label_text(name)
        place = [int(found.scales[name].code(pd.Series([_told(best[name])]))[0]) + 0.5 for name in (x, y)]
        ax.plot(*place, marker="x", color="#ffffff", ms=8, mew=2.2)
        ax.grid(False)
        bar = figure.colorbar(mesh, ax=ax, pad=0.02)
        bar.set_label(value)
        bar.outline.set_edgecolor(GRID)

    return picture(draw, f"Mean {value} over {x} and {y}", (3.8, 3.6))


def parallel(found: Digest, names: list[str], value: str) -> Picture:
    """Draw trials as lines through their parameters, the best in colour over a sample of the rest."""
    top, rest = found.top.dropna(subset=[value]), found.sample.dropna(subset=[value])
    rest = rest.sample(min(LINES, len(rest)), random_state=0)
    both = pd.concat([rest, top], ignore_index=True)
    places = np.stack([_place(both[name]) for name in (*names, value)])

    def draw(figure: Any, is_narrow: bool) -> None:
        ax = figure.subplots()
        figure.subplots_adjust(left=0.05, right=0.95, top=0.94, bottom=0.12)
        for lines, colour, alpha, lw in ((places[:, : len(rest)], MARKET, 0.18, 0.6), (places[:, len(rest) :], GOOD, 0.6, 1.0)):
            ax.plot(np.arange(len(lines)), lines, color=colour, alpha=alpha, lw=lw)  # vectors: pixels would not follow the theme
        shown = [n.split(".")[-1] if is_narrow else n for n in (*names, value)]
        ax.set_xticks(range(len(names) + 1), shown, fontsize=7 if is_narrow else 8.5)
        ax.set_yticks([0.0, 1.0], ["low", "high"])
        for i in range(len(names) + 1):
            ax.axvline(i, color=MUTED, lw=0.8)
        ax.grid(False)

    return picture(draw, "Parallel coordinates: the best rows against a sample of the rest", (3.2, 3.0))


def walk_picture(picks: pd.DataFrame) -> Picture:
    """Draw the Sharpe ratios of the picks where they were picked and where they were scored, beside the median setting there."""

    def draw(figure: Any, is_narrow: bool) -> None:
        ax = figure.subplots()
        figure.subplots_adjust(left=0.14 if is_narrow else 0.08, right=0.98, top=0.86, bottom=0.16)
        at = np.arange(len(picks))
        for i, (name, label, colour) in enumerate(WALKED):
            ax.bar(at + 0.26 * (i - 1), picks[name].to_numpy(np.float64), 0.24, color=colour, label=label, lw=0)
        ax.axhline(0.0, color=MUTED, lw=0.8)
        ax.set_xticks(at, [f"{start:%Y-%m-%d}" for start in picks["start"]], fontsize=7 if is_narrow else 8.5)
        ax.set_ylabel("Sharpe a year")
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False, fontsize=7 if is_narrow else 8.5, borderaxespad=0.2)

    return picture(draw, "Sharpe ratio of each pick where it was picked and on the fold after", (2.6, 2.8))


def curve_picture(curve: Curve) -> Picture:
    """Draw return and accuracy over a threshold, exact to every step."""
    t = curve.table
    x = np.append(t["above"].to_numpy(), t["to"].iloc[-1])
    changes = np.flatnonzero(np.abs(np.diff(t["total_return"].to_numpy())) > 0.0)
    low, high = (t["above"].iloc[changes[0] + 1], t["to"].iloc[changes[-1]]) if len(changes) else (x[0], x[-1])
    margin = 0.08 * (high - low) + 1e-3

    def draw(figure: Any, is_narrow: bool) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1))
        figure.subplots_adjust(left=0.16 if is_narrow else 0.08, right=0.98, top=0.96, bottom=0.14, hspace=0.12)
        top.stairs(100.0 * t["total_return"], x, baseline=None, color=CHAIN, lw=1.1)
        bottom.stairs(100.0 * t["accuracy"], x, baseline=None, color=ENSEMBLE, lw=1.1)
        row = t.iloc[curve.at]
        for ax in (top, bottom):
            ax.axvspan(row["above"], row["to"], color=GOOD, alpha=0.25, lw=0)
            ax.axvline(curve.chosen, color=INK, lw=0.9, ls=(0, (4, 3)))
        top.set_ylabel("net return, %")
        bottom.set_ylabel("right calls, %")
        bottom.set_xlabel(curve.name)
        bottom.xaxis.set_major_formatter(lambda value, _: _whole(f"{value:.6g}"))
        bottom.set_xlim(max(x[0], min(low, curve.chosen) - margin), min(x[-1], max(high, curve.chosen) + margin))

    return picture(draw, f"Return and accuracy over {curve.name}, exact", (3.4, 3.6))


def _whole(text: str) -> str:
    """Keep the digits of a label: the theming of images cuts numbers after two decimals, so an invisible joiner stands behind them."""
    return re.sub(r"(\.\d\d)(?=\d)", "\\1\u2060", text)


def _curve_words(curve: Curve) -> str:
    down, up = curve.cliff()
    far = [f"{d:.4f} {way}" for d, way in ((down, "below"), (up, "above")) if np.isfinite(d)]
    fall = "the return fall by more than 1 % of the initial equity"
    return f"{several(len(curve.table), 'plateaus')}. At {curve.chosen:g} not one bit changes over a width of {curve.width:.4g}; " + (
        f"{' and '.join(far)} that value does {fall}." if far else f"nowhere does {fall}."
    )


def _place(column: "pd.Series[Any]") -> Any:
    """Put a column's values between 0 and 1; words by their order."""
    numbers = column.to_numpy(np.float64) if pd.api.types.is_numeric_dtype(column) else pd.factorize(column, sort=True)[0].astype(float)
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    return (numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5)


def _told(value: Any) -> Any:
    """Write a parameter's value as the table of trials does."""
    return json.dumps(value) if isinstance(value, list) else value


def _shown(name: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "none"
    if name in PER_CENT:
        return f"{100.0 * value:+.1f} %" if name in ("total_return", "annual_return") else f"{100.0 * value:.1f} %"
    if isinstance(value, float | np.floating):
        return f"{value:.2f}" if name.startswith("sharpe") else re.sub(r"e-0", "e-", f"{value:.5g}")
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)
