"""Figures of the report: one function a figure, summary and tables in, a `Picture` out.

Colours mean the same everywhere: blue the chain, amber the ensemble alone, grey the market and every baseline, green better, red worse.
Margins are set by hand, in inches: matplotlib's automatic layout took three quarters of the time of a report.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qtcore.rules import words_of
from research.report.svg import BAD, CHAIN, ENSEMBLE, GOOD, INK, MARKET, MUTED, PAPER, Picture, picture
from research.report.words import assumption_name, count, layer_name, percent, scored, verdict_name, words

BUCKETS = 240  # of a line: its lowest and highest value in each are drawn, so no spike is lost
ROW = 0.27  # inches of a row of bars or intervals
NOTE = {"textcoords": "offset points", "fontsize": 8.5}


def equity(table: pd.DataFrame) -> Picture:
    """Draw the net return of the chain beside the ensemble alone and the market, over the tested bars."""
    growth = 100.0 * (table[["equity", "ensemble_only", "buy_hold_matched", "buy_hold"]] / table["equity"].iloc[0] - 1.0)
    near = (("buy_hold_matched", "market, same exposure", MARKET), ("ensemble_only", "ensemble only", ENSEMBLE), ("equity", "chain", CHAIN))
    far = (("buy_hold", "market, fully invested", MARKET), ("equity", "chain", CHAIN))

    def draw(figure: Any, is_narrow: bool) -> None:
        axes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.3))
        _margins(figure, 0.62, 0.1 if is_narrow else 1.62, 0.4, 0.28 if is_narrow else 0.08, between=0.42 if is_narrow else 0.2)
        for ax, lines in zip(axes, (near, far)):
            for name, _, colour in lines:
                ax.plot(*_thinned(table["close_time"], growth[name]), color=colour, lw=1.8 if name == "equity" else 1.2)
            _name_lines(ax, [(growth[name].iloc[-1], text, colour) for name, text, colour in lines], is_narrow)
            ax.axhline(0.0, color=MUTED, lw=0.7)
            _axis(figure, ax, table["close_time"], "net return, %")

    return picture(draw, "Equity of the chain, the ensemble alone and the market", (4.3, 4.6))


def drawdown(table: pd.DataFrame, halted_from: pd.Timestamp | None, limit: float) -> Picture:
    """Draw the fall from the peak and the gross exposure of the chain."""

    def draw(figure: Any, is_narrow: bool) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1))
        _margins(figure, 0.62, 0.1, 0.4, 0.08, between=0.2)
        x, y = _thinned(table["close_time"], -100.0 * table["drawdown"])
        top.fill_between(x, y, 0.0, color=CHAIN, alpha=0.22, lw=0)
        top.plot(x, y, color=CHAIN, lw=1.2)
        if min(y) < -50.0 * limit:
            top.axhline(-100.0 * limit, color=BAD, lw=1.0, ls=(0, (4, 3)))
            place = {"xycoords": ("axes fraction", "data"), "xytext": (3, 3)}
            top.annotate("limit: no entries below", (0.0, -100.0 * limit), **place, **NOTE, color=BAD)
        if halted_from is not None:
            for ax in (top, bottom):
                ax.axvline(halted_from, color=BAD, lw=1.0)
            top.annotate("first halt", (halted_from, 0.0), xytext=(3, -11), **NOTE, color=BAD)
        exposure = 100.0 * table.get("worth", table["exposure"]) / table["equity"]  # a run before 0.4 has what the governor counts
        bottom.fill_between(*_averaged(table["close_time"], exposure), 0.0, color=MARKET, alpha=0.55, lw=0)
        bottom.set_ylim(bottom=0.0)
        _axis(figure, top, table["close_time"], "below peak, %")
        _axis(figure, bottom, table["close_time"], "exposure, %")

    return picture(draw, "Drawdown and exposure of the chain", (3.2, 3.6))


def decisions(summary: dict[str, Any]) -> Picture:
    """Draw how many decisions each layer passed on, and why the governor refused the rest."""
    counts = summary["rates"]["counts"]
    steps = [
        ("cells with a vote", counts["cells"], MARKET),
        (verdict_name(summary, "deferred"), counts["deferred"], MARKET),
        *([(verdict_name(summary, "overridden"), counts["overridden"], ENSEMBLE)] if counts["overridden"] else []),
        (verdict_name(summary, "escalated"), counts["escalated"], MARKET),
        ("taken over by the arbiter", counts["accepted"], ENSEMBLE),
        ("BUY or SELL", counts["wished"], CHAIN),
        ("exits by opposite signal", counts["exit_signal"], CHAIN),
        ("entries approved", counts["approved"], GOOD),
    ]
    refused = [(words_of(name.removeprefix("veto.")), n, BAD) for name, n in counts.items() if name.startswith("veto.") and n]
    refused = sorted(refused, key=lambda row: -row[1])[:6] or [("none", 0, BAD)]

    def draw(figure: Any, is_narrow: bool) -> None:
        if is_narrow:
            left, right = figure.subplots(2, 1, height_ratios=(len(steps), len(refused)))
            _margins(figure, 1.85, 0.1, 0.05, 0.3, between=0.42)
        else:
            left, right = figure.subplots(1, 2)
            _margins(figure, 1.85, 0.1, 0.05, 0.3, beside=1.85)
        _bars(left, steps, max(counts["cells"], 1), len(steps))
        _bars(right, refused, max(counts["wished"], 1), len(refused) if is_narrow else len(steps))
        left.set_title("Of all cells with a vote")
        right.set_title("Of all BUY and SELL decisions, refused for")

    return picture(
        draw, "Decisions by layer and refusals by rule", (0.4 + 1.1 * ROW * len(steps), 0.8 + 1.1 * ROW * (len(steps) + len(refused)))
    )


def accuracy(summary: dict[str, Any]) -> Picture:
    """Draw accuracy and direction accuracy of every model and layer with interval, beside their baselines."""
    rows = scored(summary, summary)
    n = len(rows)

    def draw(figure: Any, is_narrow: bool) -> None:
        left, right = figure.subplots(2, 1) if is_narrow else figure.subplots(1, 2)
        if is_narrow:
            _margins(figure, 1.35, 0.6, 0.45, 0.3, between=0.8)
        else:
            _margins(figure, 1.35, 0.6, 0.45, 0.3, beside=0.75)
        majority = [block["majority_accuracy"] for block in rows.values()]
        _forest(left, rows, ("accuracy", "ci95", "enough", "n_effective"), majority)
        _forest(right, rows, ("direction_accuracy", "direction_ci95", "direction_enough", "direction_n_effective"), [0.5] * n)
        left.set_title("All cells, against the most frequent label")
        right.set_title("Direction where the price moved, against a coin")
        if not is_narrow:
            right.set_yticks([])

    return picture(draw, "Accuracy with intervals beside the baselines", (0.75 + ROW * n, 1.55 + 2 * ROW * n))


def trades(table: pd.DataFrame, by_exit: dict[str, Any]) -> Picture:
    """Draw the distribution of net returns of closed trades, and what each kind of exit brought."""
    returns = 100.0 * table["ret"].to_numpy()
    low, high = np.quantile(returns, [0.005, 0.995])
    edges = np.linspace(min(low, -1e-9), max(high, 1e-9), 42)
    edges += edges[np.argmin(np.abs(edges))] * -1.0  # a bar never holds wins and losses
    rows = sorted(by_exit.items(), key=lambda item: item[1]["pnl"])

    def draw(figure: Any, is_narrow: bool) -> None:
        left, right = figure.subplots(2, 1, height_ratios=(1.5, 1)) if is_narrow else figure.subplots(1, 2)
        if is_narrow:
            _margins(figure, 0.95, 0.1, 0.45, 0.1, between=0.7)
        else:
            _margins(figure, 0.6, 0.1, 0.45, 0.1, beside=1.2)
        counts, _ = np.histogram(np.clip(returns, edges[0], edges[-1]), bins=edges)
        colours = [GOOD if x >= 0.0 else BAD for x in (edges[:-1] + edges[1:]) / 2]
        left.bar(edges[:-1], counts, width=np.diff(edges) * 0.9, align="edge", color=colours, alpha=0.8)
        left.axvline(returns.mean(), color=INK, lw=1.0)
        place = {"xycoords": ("data", "axes fraction"), "xytext": (5, -9)}
        left.annotate(f"mean {returns.mean():+.3f} %", (returns.mean(), 1.0), **place, **NOTE)
        left.set_xlabel("net return of a trade, %")
        left.set_ylabel("trades")
        _signed_bars(right, [(words(name), row["pnl"], f"{row['pnl']:+,.0f} in {count(row['trades'])}") for name, row in rows])
        right.set_xlabel("net PnL by kind of exit, quote")

    return picture(draw, "Returns of trades and PnL by kind of exit", (2.6, 4.2))


def placebo(found: dict[str, Any] | None) -> Picture | None:
    """Draw the mean daily net return of the run as a line in what its placebos earned; None where neither was made."""
    tests = (("timing", "predictions at other times"), ("direction", "other signs"))
    made = [] if found is None else [(title, found[name]) for name, title in tests if found[name]["draws"]]
    if found is None or not made:
        return None
    mean = 1e4 * found["mean"]

    def draw(figure: Any, is_narrow: bool) -> None:
        axes = np.ravel(figure.subplots(len(made), 1) if is_narrow else figure.subplots(1, len(made)))
        _margins(figure, 0.5, 0.15, 0.45, 0.4, between=0.9, beside=0.6)
        for ax, (title, one) in zip(axes, made):
            draws = 1e4 * np.array(one["draws"])
            ax.hist(draws, bins=20, color=MARKET, alpha=0.55)
            ax.axvline(mean, color=CHAIN, lw=2.0)
            ax.margins(x=0.08)
            ax.set_title(title)
            ax.set_xlabel("mean net return a day, basis points")
            ax.locator_params(axis="y", integer=True, nbins=5)

    return picture(draw, "Mean daily net return of the run and of its placebos", (2.2, 2.2 * len(made)))


def waterfall(found: Mapping[str, Any] | None) -> Picture | None:
    """Draw the net return of the run's decisions under each assumption, and what it differs from the run; None where none was traded."""
    columns = [column for column in (found or {}).get("columns", []) if column["refused"] is None][::-1]
    if not columns:
        return None
    own = next(100.0 * column["net_return"] for column in columns if column["is_own"])
    beside = {"xycoords": ("axes fraction", "data"), "xytext": (6, 0), "va": "center", "color": MUTED, **NOTE}

    def draw(figure: Any, is_narrow: bool) -> None:
        ax = figure.subplots()
        _margins(figure, 1.75, 1.2, 0.45, 0.05)
        for y, column in enumerate(columns):
            net, apart = 100.0 * column["net_return"], 100.0 * column["difference"]
            shared = min(net, own) if min(net, own) > 0.0 else min(max(net, own), 0.0)
            ax.barh(y, -apart, left=net, height=0.6, color=GOOD if apart > 0.0 else BAD, alpha=0.35, lw=0)
            ax.barh(y, shared, height=0.6, color=CHAIN if column["is_own"] else MARKET, alpha=0.85, lw=0)
            text = "the run" if column["is_own"] else f"{apart:+.1f}"
            ax.annotate(f"{net:+.1f} % ({text})", (1.0, y), **beside)
        ax.axvline(0.0, color=MUTED, lw=0.8)
        ax.axvline(own, color=CHAIN, lw=1.2, ls=(0, (4, 3)))
        ax.set_yticks(range(len(columns)), [assumption_name(column) for column in columns], color=INK)
        ax.set_ylim(-0.6, len(columns) - 0.4)
        ax.set_xlabel("net return, % of the starting cash")
        ax.locator_params(axis="x", nbins=3 if is_narrow else 6)
        ax.grid(False)

    height = 0.6 + 1.1 * ROW * len(columns)
    return picture(draw, "Net return of the same decisions under other fills and costs", (height, height))


def _margins(figure: Any, left: float, right: float, bottom: float, top: float, *, between: float = 0.0, beside: float = 0.0) -> None:
    """Set the space around and between axes, in inches."""
    width, height = figure.get_size_inches()
    rows, columns = figure.axes[0].get_gridspec().get_geometry()
    tall = (height - bottom - top - between * (rows - 1)) / rows
    wide = (width - left - right - beside * (columns - 1)) / columns
    edges = {"left": left / width, "right": 1.0 - right / width, "bottom": bottom / height, "top": 1.0 - top / height}
    figure.subplots_adjust(**edges, hspace=between / tall, wspace=beside / wide)


def _axis(figure: Any, ax: Any, time: pd.Series, label: str) -> None:
    """Date the horizontal axis and name the vertical one, all names on one line."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ax.set_xlim(time.iloc[0], time.iloc[-1])
    ax.set_ylabel(label)
    box = ax.get_position()
    ax.yaxis.set_label_coords(-(box.x0 * figure.get_figwidth() - 0.12) / (box.width * figure.get_figwidth()), 0.5)


def _thinned(time: pd.Series, values: pd.Series) -> tuple[NDArray, NDArray]:
    """Keep the lowest and highest value of each bucket of bars, in order."""
    x, y = time.to_numpy(), values.to_numpy(float)
    step = max(1, len(y) // BUCKETS)
    if step < 3:
        return x, y
    keep = {0, len(y) - 1}
    for start in range(0, len(y), step):
        part = y[start : start + step]
        keep |= {int(start + np.argmin(part)), int(start + np.argmax(part))}
    at = np.array(sorted(keep))
    return x[at], y[at]


def _averaged(time: pd.Series, values: pd.Series) -> tuple[NDArray, NDArray]:
    """Mean of each bucket of bars, at its first bar."""
    at = np.arange(0, len(values), max(1, len(values) // BUCKETS))
    return time.to_numpy()[at], np.add.reduceat(values.to_numpy(float), at) / np.diff(np.append(at, len(values)))


def _name_lines(ax: Any, lines: list[tuple[float, str, str]], is_narrow: bool) -> None:
    """Name lines at their right end, moved apart where they would touch; in a row above the axes where the page is narrow."""
    if is_narrow:
        x = 0.0
        for _, text, colour in reversed(lines):
            place = {"xycoords": "axes fraction", "xytext": (x, 5)}
            ax.annotate(text, (0.0, 1.0), **place, **NOTE, color=colour)
            x += 5.0 * len(text) + 14.0
        return
    low, high = ax.get_ylim()
    gap = 13.0 * (high - low) / (ax.get_position().height * ax.figure.get_figheight() * 72.0)
    at = -np.inf
    for y, text, colour in sorted(lines):
        at = max(y, at + gap)
        place = {"xycoords": ("axes fraction", "data"), "xytext": (6, 0), "textcoords": "offset points"}
        ax.annotate(text, (1.0, at), **place, color=colour, va="center")


def _bars(ax: Any, rows: list[tuple[str, int, str]], whole: int, n_slots: int) -> None:
    """Draw bars of counts, with count and share of `whole` behind each; `n_slots` rows high, so that neighbours look alike."""
    y = n_slots - 1 - np.arange(len(rows))
    ax.barh(y, [n / whole for _, n, _ in rows], height=0.6, color=[colour for *_, colour in rows], alpha=0.85)
    for at, (_, n, _) in zip(y, rows):
        ax.annotate(f"{count(n)}  ({percent(n / whole)})", (n / whole, at), xytext=(4, 0), va="center", **NOTE, color=MUTED)
    ax.set_yticks(y, [name for name, *_ in rows], color=INK)
    ax.set_xlim(0.0, max(max(n / whole for _, n, _ in rows), 1e-9) * 1.6)
    ax.set_ylim(-0.6, n_slots - 0.4)
    ax.set_xticks([])
    ax.grid(False)
    ax.spines["bottom"].set_visible(False)


def _signed_bars(ax: Any, rows: list[tuple[str, float, str]]) -> None:
    """Draw bars left and right of zero with a note at the end of each."""
    values = [value for _, value, _ in rows]
    ax.barh([name for name, *_ in rows], values, height=0.55, color=[GOOD if x >= 0.0 else BAD for x in values], alpha=0.8)
    ax.axvline(0.0, color=MUTED, lw=0.8)
    for y, (_, value, text) in enumerate(rows):
        side, anchor = (4, "left") if value >= 0.0 else (-4, "right")
        ax.annotate(text, (value, y), xytext=(side, 0), ha=anchor, va="center", **NOTE, color=MUTED)
    reach = max(max(map(abs, values)), 1e-9)
    ax.set_xlim(-1.9 * reach if min(values) < 0.0 else -0.05 * reach, 1.9 * reach if max(values) > 0.0 else 0.05 * reach)
    ax.set_ylim(min(-0.6, len(rows) / 2 - 2.5), max(len(rows) - 0.4, len(rows) / 2 + 1.5))
    ax.locator_params(axis="x", nbins=6)
    ax.grid(False)


def _forest(ax: Any, scored: dict[str, Any], keys: tuple[str, str, str, str], base: list[float | None]) -> None:
    """Draw a row a model or layer: point and interval, its baseline as a grey stroke, the effective number at the right."""
    value, limits, enough, worth = keys
    beside = {"xycoords": ("axes fraction", "data"), "va": "center", "color": MUTED, **NOTE}
    for row, (block, reference) in enumerate(zip(scored.values(), base)):
        y = len(scored) - 1 - row
        if reference is not None:
            ax.plot([100 * reference] * 2, [y - 0.36, y + 0.36], color=MARKET, lw=2.2, solid_capstyle="butt")
        if block[value] is None or not block[enough]:
            ax.annotate("not enough data", (0.0, y), xytext=(4, 0), **beside)
            continue
        low, high = (100 * x for x in block[limits])
        colour = CHAIN if reference is None or low <= 100 * reference <= high else (GOOD if low > 100 * reference else BAD)
        ax.plot([low, high], [y, y], color=colour, lw=2.0)
        ax.plot([100 * block[value]], [y], "o", color=colour, ms=5.5, mec=PAPER, mew=0.8)
        ax.annotate(count(block[worth]), (1.0, y), xytext=(6, 0), **beside)
    ax.annotate("n_eff", (1.0, len(scored) - 0.35), xytext=(6, 0), **beside)
    ax.set_yticks(range(len(scored)), [layer_name(name) for name in reversed(scored)], color=INK)
    ax.set_ylim(-0.7, len(scored) - 0.3)
    ax.margins(x=0.08)
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
    ax.set_xlabel("share right, %")
