"""Heatmaps: confusion matrices and the figures of the nine regimes, drawn as squares on one canvas."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from research.report.svg import BAD, CHAIN, GOOD, INK, MUTED, NARROW, WIDE, Picture, picture
from research.report.words import layer_name, scored, verdict_name
from research.training.regimes import TREND, VOLATILITY

CENTRES = (0.0, 1.0, 2.0, 3.2)  # of rows and columns; a fourth is the margin and stands apart
FEW = "few"


@dataclass(frozen=True)
class Panel:
    """One matrix: what is written and how deep each square is, in [0, 1]; `colours` one for all or one a square."""

    title: str
    text: list[list[str]]
    depth: NDArray
    colours: Any
    columns: list[str]
    rows: list[str]


def confusion(summary: dict[str, Any]) -> Picture:
    """Draw what was said, given what was right: one 3 x 3 table a model and layer."""
    panels = []
    for name, block in scored(summary, summary).items():
        if block["n"]:
            table = np.array(block["confusion"], float)
            share = table / np.maximum(table.sum(axis=1, keepdims=True), 1.0)
            text = [[f"{100.0 * x:.0f}" for x in row] for row in share]
            panels.append(Panel(layer_name(name), text, share, CHAIN, ["SELL", "HOLD", "BUY"], ["SELL", "HOLD", "BUY"]))
    return _picture(panels, (4, 2), ("what was said", "what was right"), "Confusion matrices of models and layers")


def regimes(summary: dict[str, Any]) -> Picture:
    """Draw six figures of the chain in each of nine regimes, with their margins and the total."""
    doubt = verdict_name(summary, "escalated")
    panels = [
        _regime_panel(summary, "accuracy less majority, points", _over_majority, "diverging", "{:+.1f}"),
        _regime_panel(summary, "direction less half, points", _over_half, "diverging", "{:+.1f}"),
        _regime_panel(summary, "net PnL, quote", lambda part: part["pnl"], "diverging", "{:+,.0f}"),
        _regime_panel(summary, f"{doubt}, %", lambda part: _hundred(part["rates"]["escalation"]), "share", "{:.0f}"),
        _regime_panel(summary, "refused by the governor, %", lambda part: _hundred(_vetoed(part["rates"])), "share", "{:.0f}"),
        _regime_panel(summary, "entries", lambda part: part["n_trades"], "count", "{:,.0f}"),
    ]
    return _picture(panels, (3, 2), ("trend", "volatility"), "The chain in nine regimes and their margins")


def _regime_panel(summary: dict[str, Any], title: str, value: Callable[[dict[str, Any]], float | None], kind: str, form: str) -> Panel:
    """Colour by sign where a figure has a neutral point, by size where it has none; the margins never set the scale."""
    grid = np.array([[np.nan if (x := value(part)) is None else x for part in row] for row in _parts(summary)], float)
    whole = 100.0 if kind == "share" else float(np.nanmax(np.abs(grid[:3, :3]), initial=0.0))
    depth = np.nan_to_num(np.clip(np.abs(grid) / max(whole, 1e-12), 0.0, 1.0))
    colours = np.where(grid >= 0.0, GOOD, BAD) if kind == "diverging" else CHAIN
    text = [[FEW if np.isnan(x) else form.format(x) for x in row] for row in grid]
    return Panel(title, text, depth, colours, ["down", "side", "up", "all"], ["low", "mid", "high", "all"])


def _picture(panels: list[Panel], across: tuple[int, int], axes: tuple[str, str], alt: str) -> Picture:
    """Set panels in a grid of `across` columns on a wide and on a narrow page; sizes in units of a 72nd of an inch."""
    tall = 72.0 + 26.0 * CENTRES[len(panels[0].rows) - 1]  # title, squares, names of the columns

    def height(columns: int) -> float:
        return 22.0 + tall * -(-len(panels) // columns)

    def draw(figure: Any, is_narrow: bool) -> None:
        columns = across[is_narrow]
        width = 72.0 * (NARROW if is_narrow else WIDE)
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        ax.set_axis_off()
        ax.set_xlim(0.0, width)
        ax.set_ylim(height(columns), 0.0)
        pitch = (width - 18.0) / columns
        for k, panel in enumerate(panels):
            _panel(ax, panel, 18.0 + pitch * (k % columns), tall * (k // columns), pitch - 12.0)
        ax.text(18.0 + pitch * columns / 2, height(columns) - 4.0, axes[0], ha="center", va="bottom", color=MUTED)
        ax.text(2.0, (height(columns) - 22.0) / 2, axes[1], ha="left", va="center", rotation=90, color=MUTED)

    return picture(draw, alt, (height(across[0]) / 72.0, height(across[1]) / 72.0))


def _panel(ax: Any, panel: Panel, left: float, top: float, width: float) -> None:
    """Draw one matrix into a box: names of the rows, then squares of 26 units' height."""
    from matplotlib.patches import Rectangle

    names = 34.0
    last = CENTRES[len(panel.columns) - 1]
    pitch = (width - names) / (last + 1.0)
    colours = np.broadcast_to(np.asarray(panel.colours, dtype=object), panel.depth.shape)
    ax.text(left + names, top + 18.0, panel.title, va="center", fontsize=9.0)
    for i, row in enumerate(panel.text):
        y = top + 41.0 + 26.0 * CENTRES[i]
        ax.text(left + names - 6.0, y, panel.rows[i], ha="right", va="center", fontsize=8.5, color=MUTED)
        for j, text in enumerate(row):
            x = left + names + pitch * (CENTRES[j] + 0.5)
            square = Rectangle((x - pitch / 2 + 1.0, y - 12.0), pitch - 2.0, 24.0, color=str(colours[i, j]), lw=0)
            square.set_alpha(0.06 + 0.6 * float(panel.depth[i, j]))
            ax.add_patch(square)
            ax.text(x, y, text, ha="center", va="center", fontsize=8.5, color=MUTED if text == FEW else INK)
    for j, name in enumerate(panel.columns):
        y = top + 62.0 + 26.0 * CENTRES[len(panel.rows) - 1]
        ax.text(left + names + pitch * (CENTRES[j] + 0.5), y, name, ha="center", va="center", fontsize=8.5, color=MUTED)


def _parts(summary: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Lay the slices out as a 4 x 4 grid: volatility down, trend across, margins last."""
    total = {**summary, "pnl": summary["pnl"]["net_pnl"], "n_trades": summary["rates"]["counts"]["approved"]}
    slices = summary["regimes"]
    rows = [[*(slices[f"{v}.{t}"] for t in TREND), slices[v]] for v in VOLATILITY]
    return [*rows, [*(slices[t] for t in TREND), total]]


def _over_majority(part: dict[str, Any]) -> float | None:
    block = part["layers"]["arbiter"]
    return 100.0 * (block["accuracy"] - block["majority_accuracy"]) if block["enough"] else None


def _over_half(part: dict[str, Any]) -> float | None:
    block = part["layers"]["arbiter"]
    return 100.0 * (block["direction_accuracy"] - 0.5) if block["direction_enough"] else None


def _vetoed(rates: dict[str, Any]) -> float | None:
    known = [x for x in rates["veto"].values() if x is not None]
    return sum(known) if known else None


def _hundred(x: float | None) -> float | None:
    return None if x is None else 100.0 * x
