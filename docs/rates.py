"""Puts the verdict's measured error rates into README and docs/error_rates.md: nobody types a number.

.venv/bin/python docs/rates.py      (from docs/verdict_rates.json, which `python -m tests.verdict_rates` measures)
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.verdict_rates import BESIDE, CELLS, EXEMPT, LAWS, NOISE, PLANTED, PROFILES, SHARPES, TRIALS, Cell, read

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ("last", "ever", "declared", *(f"power {sharpe}" for sharpe in SHARPES))


def share(known: dict[str, Any], cells: Iterable[Cell], figure: str, trials: int) -> tuple[float, float]:
    """Return the lowest and the highest share of a figure among cells, in percent."""
    each = [known[cell.name] for cell in cells if cell.name in known]
    values = [100.0 * one["sums"][figure][one["trials"].index(trials)] / one["worlds"] for one in each]
    return (min(values), max(values)) if values else (np.nan, np.nan)


def text(values: tuple[float, float]) -> str:
    """Write lowest and highest share; one number where they are the same."""
    low, high = (f"{value:.0f}" for value in values)
    return f"{low} %" if low == high else f"{low} to {high} %"


def lines(found: dict[str, Any]) -> str:
    """Write the table of README: the weak figures too."""
    known = found["returns"]

    def row(what: str, laws: Iterable[str], figure: str, years: Iterable[int], trials: Iterable[int]) -> str:
        cells = [cell for cell in CELLS if cell.law in laws and cell.years in years and cell.trials == TRIALS]
        shares = [share(known, [c for c in cells if c.correlation == 0.0], figure, n) for n in trials]
        return f"| {what} | {' | '.join(text(each) for each in shares)} |"

    rows = [
        "| share of worlds called an edge, in percent | 1 trial | 20 trials | 100 trials |",
        "| --- | ---: | ---: | ---: |",
        row("luck, verdict after the last trial", LAWS, "last", (1, 3, 8), TRIALS),
        row("luck, a verdict after every trial (none declared)", LAWS, "ever", (1, 3, 8), TRIALS),
        row("a Sharpe ratio of 1.5, 8 tested years", LAWS, "power 1.5", (8,), TRIALS),
        row("a Sharpe ratio of 1.0, 8 tested years", LAWS, "power 1.0", (8,), TRIALS),
        row("a Sharpe ratio of 1.5, 1 tested year", LAWS, "power 1.5", (1,), TRIALS),
        row("luck that sells tails (a loss that has not happened yet)", EXEMPT, "last", (1, 3, 8), TRIALS),
    ]
    return "\n".join(rows)


def every(found: dict[str, Any]) -> str:
    """Write all cells."""
    head = ["law", "years", "correlation", "trials", "worlds", "luck: last", "ever", "declared", *(f"found: {s}" for s in SHARPES)]
    rows = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for cell in CELLS:
        known = found["returns"].get(cell.name)
        for k, n in enumerate(cell.trials if known else ()):
            law = cell.law + ("" if cell.per_day == 1 else ", hourly")
            shares = [f"{100.0 * known['sums'][figure][k] / known['worlds']:.1f}" for figure in FIGURES]
            rows.append([law, str(cell.years), f"{cell.correlation:g}", f"{n:,}", f"{known['worlds']:,}", *shares])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def stepm(found: dict[str, Any]) -> str:
    """Write what StepM makes of the same worlds."""
    figures = ("last", *(f"power {sharpe}" for sharpe in SHARPES))
    head = ["law", "years", "correlation", "trials", "worlds", "luck", "StepM", *(t for s in SHARPES for t in (f"found: {s}", "StepM"))]
    rows = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for cell in BESIDE:
        known = found["stepm"].get(cell.name)
        for k, n in enumerate(cell.trials if known else ()):
            counts = [known["sums"][whose + figure][k] for figure in figures for whose in ("", "stepm ")]
            shares = [f"{100.0 * count / known['worlds']:.1f}" for count in counts]
            rows.append([cell.law, str(cell.years), f"{cell.correlation:g}", str(n), str(known["worlds"]), *shares])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def candles(found: dict[str, Any]) -> str:
    """Write what the whole product says of worlds of candles."""
    rows = [["world", "worlds", *(f"{name}: edge" for name in PROFILES), *(f"{name}: not enough data" for name in PROFILES)]]
    rows.append(["---", *["---:"] * (len(rows[0]) - 1)])
    for kind in (*NOISE, *PLANTED):
        if kind in found["product"]:
            each = found["product"][kind]["findings"]
            counts = [str(each[name].count(word)) for word in ("edge", "not enough data") for name in PROFILES]
            rows.append([kind + (" (an edge is planted)" if kind in PLANTED else ""), str(len(each[PROFILES[0]])), *counts])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def filled(page: str, found: dict[str, Any]) -> str:
    """Return the text of a page with its blocks made anew."""
    for name, make in (("rates", lines), ("all rates", every), ("stepm", stepm), ("candles", candles)):
        block = f"<!-- {name} -->\n{make(found)}\n<!-- /{name} -->"
        page = re.sub(f"<!-- {name} -->.*<!-- /{name} -->", lambda _, block=block: block, page, flags=re.DOTALL)
    return page


PAGES = (ROOT / "README.md", ROOT / "docs" / "error_rates.md")


def main() -> None:
    """Fill the pages."""
    found = read()
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
