"""What does a sweep look like? One self-contained HTML page: the verdict, the funnel of trials, heatmaps, exact curves, the best rows."""

import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from research.evidence.overfitting import search_words
from research.report import render
from research.report.svg import BAD, CHAIN, ENSEMBLE, GOOD, GRID, INK, MARKET, MUTED, Picture, picture
from research.sweep.curves import THRESHOLDS, Curve
from research.sweep.rules import parse_objective
from research.sweep.trials import Trials

TOP = 20  # rows of the table of trials
LINES = 200  # trials in parallel coordinates: the best half and a sample of the rest
MAPS = 6  # pairs of axes that are drawn
CELLS = 60  # values of an axis that a heatmap shows; more are put together
SHOWN = ("sharpe", "total_return", "max_drawdown", "n_trades", "win_rate", "turnover")
PER_CENT = {"total_return", "annual_return", "max_drawdown", "win_rate", "mean_exposure", "time_in_market", "volatility"}


def build(trials: Trials, summary: Mapping[str, Any], path: Path, curves: tuple[Curve, ...] = ()) -> Path:
    """Write the page of a sweep to `path` and return it. summary: what `workflow.summary_of` made; curves: exact ones to show."""
    return render("sweep.html", _content(trials, summary, curves), path)


def _content(trials: Trials, summary: Mapping[str, Any], curves: tuple[Curve, ...]) -> dict[str, Any]:
    objective, sign = parse_objective(summary["objective"], trials.columns)
    columns = list(dict.fromkeys(["trial", *trials.space.names, objective, *SHOWN]))
    table, best = trials.table(columns), summary["best"]
    varied = [axis.name for axis in trials.space.axes if axis.is_free or len(axis.values) > 1]
    pairs = list(combinations(varied, 2))[:MAPS]
    verdict = summary["verdict"]
    opening, _, reason = verdict["sentence"].partition(":")
    top = table.loc[(sign * table[objective]).sort_values(ascending=False, kind="stable").index[:TOP]]
    return {
        "title": f"Sweep of {', '.join(trials.space.names)}",
        "subtitle": f"{summary['n_done']:,} settings over {len(summary['symbols'])} symbols and {summary['bars']:,} bars",
        "verdict": {"kind": verdict["verdict"].replace(" ", "-"), "opening": opening, "reason": reason},
        "notices": _notices(summary),
        "tiles": _tiles(summary),
        "setting": [(name, _shown(name, value)) for name, value in best["setting"].items()],
        "funnel": _funnel(summary),
        "worth": search_words(summary["search"]),
        "sampled": summary["search"],
        "spread": spread(table[objective].to_numpy(np.float64), objective, best.get(objective)),
        "maps": [(f"{y} over {x}", heatmap(table, x, y, objective, best["setting"])) for x, y in pairs],
        "n_pairs": len(varied) * (len(varied) - 1) // 2,
        "lines": parallel(table, varied, objective, sign) if len(varied) > 1 else None,
        "curves": [(curve.name, _curve_words(curve), curve_picture(curve)) for curve in curves],
        "thresholds": THRESHOLDS,
        "top": {
            "headers": columns,
            "rows": [[_shown(name, value) for name, value in row.items()] for row in top.to_dict("records")],
            "texts": [],
            "groups": [],
        },
        "objective": objective,
    }


def _notices(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    out = []
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
    best, tried, sharpe = summary["best"], summary["tried"], summary["verdict"]["sharpe"]
    deflated = sharpe.get("deflated")
    return [
        {"label": "Settings", "value": f"{summary['n_done']:,}", "note": f"{summary['n_distinct']:,} distinct outcomes"},
        {"label": "Best Sharpe a year", "value": _shown("sharpe", best["sharpe"]), "note": f"trial {best['trial']:,}"},
        {
            "label": "Probability of skill",
            "value": "none" if deflated is None else f"{deflated:.2f}",
            "note": "deflated Sharpe, above 0.95 needed",
        },
        {"label": "Its net return", "value": _shown("total_return", best["total_return"]), "note": f"{best['n_trades']:,} closed trades"},
        {"label": "Its drawdown", "value": _shown("max_drawdown", best["max_drawdown"]), "note": "largest fall from the peak"},
        {
            "label": "Trials counted",
            "value": "none" if tried is None else f"{tried['trials']:,}",
            "note": "not counted" if tried is None else f"worth {tried['effective']:,.0f} independent ones",
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


def spread(values: Any, name: str, best: float | None) -> Picture:
    """Draw how the trials' figures are spread, and where the best stands."""
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, (0.001, 0.999)) if len(known) else (0.0, 1.0)
    edges = np.linspace(low, max(high, low + 1e-9), 61)

    def draw(figure: Any, is_narrow: bool) -> None:
        ax = figure.subplots()
        figure.subplots_adjust(left=0.16 if is_narrow else 0.08, right=0.98, top=0.95, bottom=0.2)
        counts, _ = np.histogram(np.clip(known, edges[0], edges[-1]), edges)
        ax.bar(edges[:-1], counts, np.diff(edges), align="edge", color=CHAIN, alpha=0.8, lw=0)
        if best is not None and np.isfinite(best):
            ax.axvline(best, color=BAD, lw=1.2)
            ax.annotate("best", (best, ax.get_ylim()[1]), xytext=(-4, -9), textcoords="offset points", ha="right", color=BAD, fontsize=8.5)
        ax.set_xlabel(name)
        ax.set_ylabel("settings")

    return picture(draw, f"Spread of {name} over the settings", (2.6, 2.6))


def heatmap(table: pd.DataFrame, x: str, y: str, value: str, best: Mapping[str, Any]) -> Picture:
    """Draw the mean of `value` over two axes; the cross is the best trial."""
    codes, ticks_of = {}, {}
    for name in (x, y):
        codes[name], ticks_of[name] = _binned(table[name])
    width, height = len(ticks_of[x]), len(ticks_of[y])
    known = table[value].notna().to_numpy()
    at = (codes[y] * width + codes[x])[known]
    sums = np.bincount(at, table[value].to_numpy(np.float64)[known], width * height)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (sums / np.bincount(at, minlength=width * height)).reshape(height, width)

    def draw(figure: Any, is_narrow: bool) -> None:
        ax = figure.subplots()
        figure.subplots_adjust(left=0.2 if is_narrow else 0.12, right=0.99 if is_narrow else 1.02, top=0.96, bottom=0.16)
        mesh = ax.pcolormesh(np.arange(width + 1), np.arange(height + 1), mean, cmap="viridis", rasterized=True)
        for name, axis in ((x, ax.xaxis), (y, ax.yaxis)):
            labels = ticks_of[name]
            step = max(1, -(-len(labels) // (5 if is_narrow else 10)))
            axis.set_ticks(np.arange(0, len(labels), step) + 0.5, [_whole(text) for text in labels[::step]])
            axis.set_label_text(name)
        place = [int(codes[name][i]) + 0.5 for name in (x, y) for i in [_nearest(table[name], best[name])]]
        ax.plot(*place, marker="x", color="#ffffff", ms=8, mew=2.2)
        ax.grid(False)
        bar = figure.colorbar(mesh, ax=ax, pad=0.02)
        bar.set_label(value)
        bar.outline.set_edgecolor(GRID)

    return picture(draw, f"Mean {value} over {x} and {y}", (3.8, 3.6))


def parallel(table: pd.DataFrame, names: list[str], value: str, sign: float) -> Picture:
    """Draw trials as lines through their parameters, the best in colour over a sample of the rest."""
    order = (sign * table[value]).sort_values(ascending=False, kind="stable").dropna().index
    top = order[: max(1, min(LINES // 10, len(order) // 10))]
    rest = order[len(top) :: max(1, (len(order) - len(top)) // LINES)]
    places = {name: _place(table[name]) for name in (*names, value)}

    def draw(figure: Any, is_narrow: bool) -> None:
        ax = figure.subplots()
        figure.subplots_adjust(left=0.05, right=0.95, top=0.94, bottom=0.12)
        for rows, colour, alpha, lw in ((rest, MARKET, 0.18, 0.6), (top, GOOD, 0.6, 1.0)):
            lines = np.stack([places[name][rows] for name in (*names, value)])
            ax.plot(np.arange(len(lines)), lines, color=colour, alpha=alpha, lw=lw)  # vectors: pixels would not follow the theme
        shown = [n.split(".")[-1] if is_narrow else n for n in (*names, value)]
        ax.set_xticks(range(len(names) + 1), shown, fontsize=7 if is_narrow else 8.5)
        ax.set_yticks([0.0, 1.0], ["low", "high"])
        for i in range(len(names) + 1):
            ax.axvline(i, color=MUTED, lw=0.8)
        ax.grid(False)

    return picture(draw, "Parallel coordinates: the best tenth against a sample of the rest", (3.2, 3.0))


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
    far = [f"{d:.4f} {way}" if np.isfinite(d) else f"never {way}" for d, way in ((down, "down"), (up, "up"))]
    return (
        f"{len(curve.table):,} plateaus. At {curve.chosen:g} not one bit changes over a width of {curve.width:.4g}; the return falls by "
        f"more than 1 % of the initial equity {far[0]} and {far[1]}."
    )


def _binned(column: "pd.Series[Any]") -> tuple[Any, list[str]]:
    """Give the values of a column numbers for a heatmap; neighbours are put together where there are many."""
    codes, values = pd.factorize(column, sort=True)
    if len(values) <= CELLS:
        return codes, [_shown(str(column.name), v) for v in values]
    low, high = float(values[0]), float(values[-1])
    edges = np.linspace(low, high, CELLS + 1)
    return np.clip(np.searchsorted(edges, column.to_numpy(np.float64), side="right") - 1, 0, CELLS - 1), [f"{v:.3g}" for v in edges[:-1]]


def _place(column: "pd.Series[Any]") -> Any:
    """Put a column's values between 0 and 1; words by their order."""
    numbers = column.to_numpy(np.float64) if pd.api.types.is_numeric_dtype(column) else pd.factorize(column, sort=True)[0].astype(float)
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    return (numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5)


def _nearest(column: "pd.Series[Any]", value: Any) -> int:
    if pd.api.types.is_numeric_dtype(column) and not isinstance(value, bool):
        return int(np.argmin(np.abs(column.to_numpy(np.float64) - float(value))))
    return int(np.argmax(column.astype(str).to_numpy() == str(value)))


def _shown(name: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "none"
    if name in PER_CENT:
        return f"{100.0 * value:+.1f} %" if name in ("total_return", "annual_return") else f"{100.0 * value:.1f} %"
    if isinstance(value, float | np.floating):
        return f"{value:.2f}" if name.startswith("sharpe") else re.sub(r"e-0", "e-", f"{value:.5g}")
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)
