"""SVG figures whose colours are CSS variables, for pages that may be light or dark, wide or narrow.

Figures are drawn with placeholder colours, one per role, which become variables with a light and a dark value inside the image. Each
figure is drawn twice, for a laptop and for a phone; the browser takes the one that fits. Text stays text, so it is sharp at any size.
"""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
CHAIN, ENSEMBLE, MARKET, GOOD, BAD = "#050505", "#060606", "#070707", "#080808", "#090909"

COLOURS = {  # role: (light, dark)
    INK: ("#1d2430", "#e3e7ee"),
    MUTED: ("#687280", "#9aa4b2"),
    GRID: ("#e4e7ec", "#2c333d"),
    PAPER: ("#ffffff", "#14181d"),
    CHAIN: ("#2a5fb0", "#82b1f5"),
    ENSEMBLE: ("#c2761a", "#e2ad5c"),
    MARKET: ("#8b95a3", "#7d8896"),
    GOOD: ("#1f8a70", "#5fc6ad"),
    BAD: ("#b5473c", "#ee8f83"),
}
FONTS = "-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
WIDE, NARROW = 9.6, 4.4  # inches; one image unit is a 72nd, so text of 9 is 10 to 12 pixels on the page

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same layout on every machine
    "font.size": 9.0,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "text.color": INK,
    "figure.facecolor": "none",
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Picture:
    """One figure as two data URIs, with the size of the wide one in pixels."""

    wide: str
    narrow: str
    width: int
    height: int
    alt: str


def picture(draw: Callable[[Any, bool], None], alt: str, heights: tuple[float, float]) -> Picture:
    """Draw a figure twice: `draw(figure, is_narrow)`; heights in inches for the wide and the narrow one."""
    wide, narrow = (_svg(draw, width, height) for width, height in zip((WIDE, NARROW), heights))
    return Picture(_uri(wide), _uri(narrow), round(WIDE * 72), round(heights[0] * 72), alt)


def _svg(draw: Callable[[Any, bool], None], width: float, height: float) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "qt"}):
        figure = Figure(figsize=(width, height))
        draw(figure, width == NARROW)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return themed(out.getvalue())


def themed(svg: str) -> str:
    """Turn matplotlib's SVG into a small one that follows the reader's colour scheme."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", svg)
    svg = svg.replace("'DejaVu Sans'", FONTS)
    for place in COLOURS:
        svg = svg.replace(place, f"var(--{place[1:]})")
    light, dark = ("".join(f"--{place[1:]}:{pair[i]};" for place, pair in COLOURS.items()) for i in (0, 1))
    style = f"<style>:root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}text{{font-variant-numeric:tabular-nums}}</style>"
    end = svg.index(">") + 1
    return svg[:end] + style + svg[end:]


def _uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
