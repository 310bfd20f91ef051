"""What do the pictures of a run look like? One function a figure: summary and tables in, a `Picture` out.

Colours mean the same everywhere: blue the chain, amber the ensemble alone, grey the market and every baseline, green better, red worse.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from research.evidence.regimes import TREND, VOLATILITY
from research.report.svg import BAD, CHAIN, ENSEMBLE, GOOD, INK, MARKET, MUTED, PAPER, Picture, picture
from research.report.words import count, layer_name, percent, words

MARGIN = (0.0, 1.0, 2.0, 3.2)  # centres of a matrix' rows and columns; a fourth is the margin and stands apart
BUCKETS = 240  # of a line: its lowest and highest value in each are drawn, so no spike is lost


def equity(table: pd.DataFrame) -> Picture:
    """Draw the net return of the chain beside the ensemble alone and the market, over the tested bars."""
    growth = 100.0 * (table[["equity", "ensemble_only", "buy_hold_matched", "buy_hold"]] / table["equity"].iloc[0] - 1.0)

    def draw(figure: Any, is_narrow: bool) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.4))
        near = (
            ("buy_hold_matched", "market, same exposure", MARKET),
            ("ensemble_only", "ensemble only", ENSEMBLE),
            ("equity", "chain", CHAIN),
        )
        far = (("buy_hold", "market, fully invested", MARKET), ("equity", "chain", CHAIN))
        for ax, lines in ((top, near), (bottom, far)):
            for name, _, colour in lines:
                ax.plot(*_thinned(table["close_time"], growth[name]), color=colour, lw=1.8 if name == "equity" else 1.2)
            _label_ends(ax, [(growth[name].iloc[-1], text, colour) for name, text, colour in lines], is_narrow)
            ax.axhline(0.0, color=MUTED, lw=0.7)
            _dates(ax, table["close_time"])
            ax.set_ylabel("net return, %")

    return picture(draw, "Equity of the chain, the ensemble alone and the market", (4.3, 4.8))


def drawdown(table: pd.DataFrame, halted_from: pd.Timestamp | None, limit: float) -> Picture:
    """Draw the fall from the peak and gross exposure of the chain."""

    def draw(figure: Any, is_narrow: bool) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1))
        x, y = _thinned(table["close_time"], -100.0 * table["drawdown"])
        top.fill_between(x, y, 0.0, color=CHAIN, alpha=0.22, lw=0)
        top.plot(x, y, color=CHAIN, lw=1.2)
        top.set_ylabel("below peak, %")
        if min(y) < -50.0 * limit:
            top.axhline(-100.0 * limit, color=BAD, lw=1.0, ls=(0, (4, 3)))
            top.annotate(
                "limit: no entries below", (0.0, -100.0 * limit), xycoords=("axes fraction", "data"), xytext=(2, 3), **_NOTE, color=BAD
            )
        if halted_from is not None:
            for ax in (top, bottom):
                ax.axvline(halted_from, color=BAD, lw=1.0)
            top.annotate("first halt", (halted_from, 0.0), xytext=(3, -11), **_NOTE, color=BAD)
        bottom.fill_between(
            *_averaged(table["close_time"], 100.0 * table["exposure"] / table["equity"]), 0.0, color=MARKET, alpha=0.55, lw=0
        )
        bottom.set_ylabel("exposure, %")
        bottom.set_ylim(bottom=0.0)
        for ax in (top, bottom):
            _dates(ax, table["close_time"])

    return picture(draw, "Drawdown and exposure of the chain", (3.2, 3.6))


def decisions(summary: dict[str, Any]) -> Picture:
    """Draw how many decisions each layer passed on, and why the governor refused the rest."""
    counts = summary["rates"]["counts"]
    steps = [
        ("cells with a vote", counts["cells"], MARKET),
        ("escalated by the meta layer", counts["escalated"], MARKET),
        ("changed by the arbiter", counts["accepted"], ENSEMBLE),
        ("BUY or SELL", counts["wished"], CHAIN),
        ("exits by opposite signal", counts["exit_signal"], CHAIN),
        ("entries approved", counts["approved"], GOOD),
    ]
    vetoes = [(words(name.removeprefix("veto.")), n, BAD) for name, n in counts.items() if name.startswith("veto.") and n]
    vetoes = sorted(vetoes, key=lambda row: -row[1])[:6] or [("none", 0, BAD)]

    def draw(figure: Any, is_narrow: bool) -> None:
        shape = (2, 1) if is_narrow else (1, 2)
        ratios = {"height_ratios": (len(steps), len(vetoes))} if is_narrow else {}
        left, right = figure.subplots(*shape, **ratios)
        _bars(left, steps, max(counts["cells"], 1), len(steps))
        _bars(right, vetoes, max(counts["wished"], 1), len(vetoes) if is_narrow else len(steps))
        left.set_title("Of all cells with a vote")
        right.set_title("Of all BUY and SELL decisions, refused for")

    return picture(draw, "Decisions by layer and refusals by rule", (2.7, 4.6))


def accuracy(summary: dict[str, Any]) -> Picture:
    """Draw accuracy and direction accuracy of every model and layer with interval, beside their baselines."""
    scored = {**summary["models"], **summary["layers"]}

    def draw(figure: Any, is_narrow: bool) -> None:
        left, right = figure.subplots(2, 1) if is_narrow else figure.subplots(1, 2)
        base = [block["majority_accuracy"] for block in scored.values()]
        _forest(left, scored, ("accuracy", "ci95", "enough", "n_effective"), base)
        _forest(right, scored, ("direction_accuracy", "direction_ci95", "direction_enough", "direction_n_effective"), [0.5] * len(scored))
        left.set_title("All cells, against always saying the most frequent label")
        right.set_title("Direction where the price moved, against a coin")
        if is_narrow:
            left.set_title("All cells, against the most frequent label")
        else:
            right.set_yticklabels([])

    rows = len(scored)
    return picture(draw, "Accuracy with intervals beside the baselines", (0.7 + 0.27 * rows, 1.5 + 0.5 * rows))


def confusion(summary: dict[str, Any]) -> Picture:
    """Draw what was said, given what was right: one 3 x 3 table a model and layer."""
    scored = {name: block for name, block in {**summary["models"], **summary["layers"]}.items() if block["n"]}

    def draw(figure: Any, is_narrow: bool) -> None:
        width = 2 if is_narrow else 4
        figure.get_layout_engine().set(hspace=0.08)
        axes = np.atleast_1d(figure.subplots(-(-len(scored) // width), width, squeeze=False)).reshape(-1)
        for ax, (name, block) in zip(axes, scored.items()):
            table = np.array(block["confusion"], float)
            share = table / np.maximum(table.sum(axis=1, keepdims=True), 1.0)
            _matrix(ax, share, np.vectorize(lambda x: f"{100 * x:.0f}")(share), CHAIN, share)
            ax.set_title(layer_name(name), loc="center")
            ax.set_xticks(range(3), ["SELL", "HOLD", "BUY"])
            ax.set_yticks(range(3), ["SELL", "HOLD", "BUY"])
        for ax in axes[len(scored) :]:
            ax.set_axis_off()
        figure.supxlabel("what was said", fontsize=9, color=MUTED)
        figure.supylabel("what was right", fontsize=9, color=MUTED)

    rows = (-(-len(scored) // 4), -(-len(scored) // 2))
    return picture(draw, "Confusion matrices of models and layers", (0.4 + 2.1 * rows[0], 0.4 + 2.2 * rows[1]))


def regimes(summary: dict[str, Any]) -> Picture:
    """Draw six figures of the chain in each of nine regimes, with their margins and the total."""
    panels = [
        ("accuracy less majority, points", _over_majority, "diverging", "{:+.1f}"),
        ("direction accuracy less half, points", _over_half, "diverging", "{:+.1f}"),
        ("net PnL, quote", lambda part, _: part["pnl"], "diverging", "{:+,.0f}"),
        ("escalated, %", lambda part, _: _times(part["rates"]["escalation"]), "share", "{:.0f}"),
        ("refused by the governor, %", lambda part, _: _times(_vetoed(part["rates"])), "share", "{:.0f}"),
        ("entries", lambda part, _: part["n_trades"], "count", "{:,.0f}"),
    ]

    def draw(figure: Any, is_narrow: bool) -> None:
        axes = figure.subplots(*((3, 2) if is_narrow else (2, 3))).reshape(-1)
        figure.get_layout_engine().set(hspace=0.12)
        for ax, (title, value, kind, form) in zip(axes, panels):
            grid = np.array([[np.nan if (x := value(part, summary)) is None else x for part in row] for row in _parts(summary)], float)
            whole = 100.0 if kind == "share" else np.nanmax(np.abs(grid[:3, :3]), initial=0.0)
            strength = np.clip(np.abs(grid) / max(whole, 1e-12), 0.0, 1.0)
            colour: Any = CHAIN if kind != "diverging" else np.where(grid >= 0.0, GOOD, BAD)
            text = [["few" if np.isnan(x) else form.format(x) for x in row] for row in grid]
            _matrix(ax, grid, np.array(text), colour, np.nan_to_num(strength))
            ax.set_title(title, fontsize=8.5 if is_narrow else 9.5)
            ax.set_xticks(MARGIN, ["down", "side", "up", "all"])
            ax.set_yticks(MARGIN, ["low", "mid", "high", "all"])
        figure.supxlabel("trend", fontsize=9, color=MUTED)
        figure.supylabel("volatility", fontsize=9, color=MUTED)

    return picture(draw, "The chain in nine regimes and their margins", (4.6, 6.6))


def trades(table: pd.DataFrame, by_exit: dict[str, Any]) -> Picture:
    """Draw the distribution of net returns of closed trades, and what each kind of exit brought."""
    returns = 100.0 * table["ret"].dropna().to_numpy()

    def draw(figure: Any, is_narrow: bool) -> None:
        left, right = figure.subplots(2, 1, height_ratios=(1.4, 1)) if is_narrow else figure.subplots(1, 2)
        limit = max(float(np.quantile(np.abs(returns), 0.995)), 1e-9)
        counts, edges = np.histogram(np.clip(returns, -limit, limit), bins=np.linspace(-limit, limit, 41))
        colours = [GOOD if x >= 0 else BAD for x in (edges[:-1] + edges[1:]) / 2]
        left.bar(edges[:-1], counts, width=np.diff(edges) * 0.92, align="edge", color=colours, alpha=0.8)
        left.axvline(returns.mean(), color=INK, lw=1.0)
        left.annotate(f"mean {returns.mean():+.3f} %", (returns.mean(), 1.0), xycoords=("data", "axes fraction"), xytext=(5, -9), **_NOTE)
        left.set_xlabel("net return of a trade, %")
        left.set_ylabel("trades")
        rows = sorted(by_exit.items(), key=lambda item: item[1]["pnl"])
        values = [row["pnl"] for _, row in rows]
        right.barh([words(name) for name, _ in rows], values, height=0.55, color=[GOOD if x >= 0 else BAD for x in values], alpha=0.8)
        right.axvline(0.0, color=MUTED, lw=0.8)
        reach = max(max(map(abs, values)), 1e-9)
        for y, (_, row) in enumerate(rows):
            at = (4, "left") if row["pnl"] >= 0 else (-4, "right")
            text = f"{row['pnl']:+,.0f} in {count(row['trades'])}"
            right.annotate(
                text, (row["pnl"], y), xytext=(at[0], 0), textcoords="offset points", ha=at[1], va="center", fontsize=8, color=MUTED
            )
        right.set_xlim(-1.75 * reach if min(values) < 0 else -0.05 * reach, 1.75 * reach if max(values) > 0 else 0.05 * reach)
        right.set_ylim(min(-0.6, len(rows) / 2 - 2.5), max(len(rows) - 0.4, len(rows) / 2 + 1.5))
        right.grid(False)
        right.set_xlabel("net PnL by exit, quote")

    return picture(draw, "Returns of trades and PnL by kind of exit", (2.6, 4.4))


_NOTE = {"textcoords": "offset points", "fontsize": 8.5}


def _thinned(time: pd.Series, values: pd.Series) -> tuple[NDArray, NDArray]:
    """Keep the lowest and highest value of each bucket of bars, in order."""
    x, y = time.to_numpy(), values.to_numpy(float)
    step = max(1, len(y) // BUCKETS)
    if step < 3:
        return x, y
    edges = np.arange(0, len(y), step)
    keep = {0, len(y) - 1}
    for start in edges:
        part = y[start : start + step]
        keep |= {int(start + np.argmin(part)), int(start + np.argmax(part))}
    at = np.array(sorted(keep))
    return x[at], y[at]


def _averaged(time: pd.Series, values: pd.Series) -> tuple[NDArray, NDArray]:
    """Mean of each bucket of bars, at its first bar."""
    at = np.arange(0, len(values), max(1, len(values) // BUCKETS))
    return time.to_numpy()[at], np.add.reduceat(values.to_numpy(float), at) / np.diff(np.append(at, len(values)))


def _dates(ax: Any, time: pd.Series) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ax.set_xlim(time.iloc[0], time.iloc[-1])


def _label_ends(ax: Any, lines: list[tuple[float, str, str]], is_narrow: bool) -> None:
    """Name lines at their right end, moved apart where they would touch; above the axes where the page is narrow."""
    if is_narrow:
        for i, (_, text, colour) in enumerate(reversed(lines)):
            x = sum(len(t) * 0.0205 + 0.06 for _, t, _ in list(reversed(lines))[:i])
            ax.annotate(text, (x, 1.0), xycoords="axes fraction", xytext=(0, 5), textcoords="offset points", color=colour, fontsize=8.5)
        return
    low, high = ax.get_ylim()
    gap = (high - low) * 12.0 / (ax.get_position().height * ax.figure.get_figheight() * 72.0) * 1.3
    at = -np.inf
    for y, text, colour in sorted(lines):
        at = max(y, at + gap)
        ax.annotate(
            text, (1.0, at), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", color=colour, va="center"
        )


def _bars(ax: Any, rows: list[tuple[str, int, str]], whole: int, n_slots: int) -> None:
    """Horizontal bars of counts, with count and share of `whole` behind each; `n_slots` rows high, so that neighbours look alike."""
    y = n_slots - 1 - np.arange(len(rows))
    ax.barh(y, [100.0 * n / whole for _, n, _ in rows], height=0.6, color=[colour for *_, colour in rows], alpha=0.85)
    for at, (_, n, _) in zip(y, rows):
        ax.annotate(f"{count(n)}  ({percent(n / whole)})", (100.0 * n / whole, at), xytext=(4, 0), va="center", **_NOTE, color=MUTED)
    ax.set_yticks(y, [name for name, *_ in rows], color=INK)
    reach = max(100.0 * n / whole for _, n, _ in rows)
    ax.set_xlim(0.0, max(reach, 1e-9) * 1.5)
    ax.set_ylim(-0.6, n_slots - 0.4)
    ax.grid(False)
    ax.spines["bottom"].set_visible(False)
    ax.set_xticks([])


def _forest(ax: Any, scored: dict[str, Any], keys: tuple[str, str, str, str], base: list[float | None]) -> None:
    """One row a model or layer: point and interval, its baseline as a grey stroke, the effective number at the right."""
    value, limits, enough, worth = keys
    for row, (block, reference) in enumerate(zip(scored.values(), base)):
        y = len(scored) - 1 - row
        if reference is not None:
            ax.plot([100 * reference] * 2, [y - 0.36, y + 0.36], color=MARKET, lw=2.2, solid_capstyle="butt")
        if block[value] is None or not block[enough]:
            ax.annotate("not enough data", (0.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, color=MUTED)
            continue
        low, high = (100 * x for x in block[limits])
        colour = CHAIN if reference is None or low <= 100 * reference <= high else (GOOD if low > 100 * reference else BAD)
        ax.plot([low, high], [y, y], color=colour, lw=2.0)
        ax.plot([100 * block[value]], [y], "o", color=colour, ms=5.5, mec=PAPER, mew=0.8)
        ax.annotate(count(block[worth]), (1.0, y), xycoords=("axes fraction", "data"), xytext=(4, 0), va="center", **_NOTE, color=MUTED)
    ax.annotate("eff. n", (1.0, len(scored) - 0.4), xycoords=("axes fraction", "data"), xytext=(4, 0), va="center", **_NOTE, color=MUTED)
    ax.set_yticks(range(len(scored)), [layer_name(name) for name in reversed(scored)], color=INK)
    ax.set_ylim(-0.7, len(scored) - 0.2)
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
    ax.set_xlabel("share right, %")


def _matrix(ax: Any, grid: NDArray, text: NDArray, colour: Any, strength: NDArray) -> None:
    """Squares whose depth is `strength` in [0, 1], with their text."""
    from matplotlib.patches import Rectangle

    colours = np.broadcast_to(np.asarray(colour, dtype=object), grid.shape)
    for (i, j), _ in np.ndenumerate(grid):
        x, y, few = MARGIN[j], MARGIN[i], text[i, j] == "few"
        ax.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=str(colours[i, j]), alpha=0.06 + 0.6 * float(strength[i, j]), lw=0))
        ax.text(x, y, str(text[i, j]), ha="center", va="center", fontsize=8.5, color=MUTED if few else INK)
    ax.set_xlim(-0.55, MARGIN[grid.shape[1] - 1] + 0.55)
    ax.set_ylim(MARGIN[grid.shape[0] - 1] + 0.55, -0.55)
    ax.grid(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)


def _parts(summary: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Lay the slices out as a 4 x 4 grid: volatility down, trend across, margins last."""
    total = {
        "layers": summary["layers"],
        "rates": summary["rates"],
        "pnl": summary["pnl"]["net_pnl"],
        "n_trades": summary["rates"]["counts"]["approved"],
    }
    slices = summary["regimes"]
    rows = [[*(slices[f"{v}.{t}"] for t in TREND), slices[v]] for v in VOLATILITY]
    return [*rows, [*(slices[t] for t in TREND), total]]


def _over_majority(part: dict[str, Any], _: Any) -> float | None:
    block = part["layers"]["arbiter"]
    return 100.0 * (block["accuracy"] - block["majority_accuracy"]) if block["enough"] else None


def _over_half(part: dict[str, Any], _: Any) -> float | None:
    block = part["layers"]["arbiter"]
    return 100.0 * (block["direction_accuracy"] - 0.5) if block["direction_enough"] else None


def _vetoed(rates: dict[str, Any]) -> float | None:
    known = [x for x in rates["veto"].values() if x is not None]
    return sum(known) if known else None


def _times(x: float | None) -> float | None:
    return None if x is None else 100.0 * x
