"""Comparison of runs: their figures, parameters and equity side by side; a table and one page."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from research.errors import UserError, several
from research.runs.folder import RunFiles, read_run

POINTS = 400  # of a drawn line
TOGETHER = 0.5  # of the whole time: where all runs share less, each is drawn over its own bars

Runs = Sequence[str | Path] | Mapping[str, str | Path]  # folders; by the names that they are to have, if these are others


def compare(runs: Runs) -> pd.DataFrame:
    """Return one column a run folder and one row a figure: verdict, data, headline, and the parameters in which they differ.

    Raises UserError on less than two runs or a folder that is incomplete.
    """
    opened = _opened(runs)
    return pd.concat([_figures(opened), _differing(opened)])


def bases(runs: Runs) -> list[tuple[str, str]]:
    """Say what the figures of the runs rest on: names and a sentence, once for runs that rest on the same."""
    from research.report.terms import basis

    same: dict[str, list[str]] = {}
    for name, files in _opened(runs).items():
        same.setdefault(basis(files.summary), []).append(name)
    return [(", ".join(names), text) for text, names in same.items()]


def mixed(table: pd.DataFrame) -> list[str]:
    """Say that the runs of a table of `compare` are of different candles; nothing where they are of the same."""
    text = "These runs are of different candles: their figures are not of the same market."
    return [text] if len(set(table.loc["data"])) > 1 else []


def write_page(runs: Runs, path: str | Path) -> Path:
    """Write the comparison as one self-contained HTML page and return its path. Errors as in `compare`."""
    from research.report import render
    from research.report.terms import verdict_parts

    opened = _opened(runs)
    names, figures, differing = list(opened), _figures(opened), _differing(opened)
    content = {
        "title": f"{several(len(names), 'runs')} side by side",
        "subtitle": ", ".join(names),
        "verdicts": [{"name": name, **verdict_parts(files.summary["evidence"])} for name, files in opened.items()],
        "notices": [("warn", text) for text in mixed(figures)],
        "bases": bases(runs),
        "traded": [_traded(name, files, Path(path)) for name, files in opened.items()],
        "lines": _lines(opened),
        "figures": _rows(figures, names) | {"muted": [i + 1 for i, files in enumerate(opened.values()) if files.summary["figures"]]},
        "params": _rows(differing, names),
    }
    out = Path(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    return render("compare.html", content, out)


def _opened(runs: Runs) -> dict[str, RunFiles]:
    """Open the runs; those without a name are named by their folders, by whole paths where two are called the same."""
    if len(runs) < 2:
        raise UserError(f"compare needs two runs or more, was {len(runs)}; give their folders")
    opened = [read_run(folder) for folder in (runs.values() if isinstance(runs, Mapping) else runs)]
    if isinstance(runs, Mapping):
        return dict(zip(runs, opened))
    names = [files.path.name for files in opened]
    is_clear = len(set(names)) == len(names)
    return dict(zip(names if is_clear else [f"{i + 1} {files.path}" for i, files in enumerate(opened)], opened))


def _traded(name: str, files: RunFiles, page: Path) -> dict[str, Any]:
    """Say who traded in a run, and where its own report lies as seen from the page."""
    from research.report.page import seats_of, traders_text
    from research.report.rows import trader_table

    s, report = files.summary, files.path / "report.html"
    link = Path(os.path.relpath(report, page.parent)).as_posix() if report.exists() else ""
    return {"name": name, "link": link, "table": trader_table(s), "texts": traders_text(s), "seats": seats_of(s)}


def _figures(opened: Mapping[str, RunFiles]) -> pd.DataFrame:
    from research.evidence import headline

    columns = {}
    for name, files in opened.items():
        first = {"verdict": None, "proof": None, "figures": None, "data": files.manifest["data_fingerprint"][:12]}
        columns[name] = first | headline(files.summary)
    return pd.DataFrame(columns, dtype=object)


def _differing(opened: Mapping[str, RunFiles]) -> pd.DataFrame:
    params = pd.DataFrame({name: _flat(files) for name, files in opened.items()}, dtype=object)
    return params[params.astype(str).nunique(axis=1) > 1]


def _flat(files: RunFiles) -> dict[str, Any]:
    label = {f"label.{name}": value for name, value in files.manifest["label"].items()}
    return {**files.params().flat(), **label, "symbols": ", ".join(files.manifest["symbols"])}


def _rows(table: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    rows = [[str(name), *(_text(x) for x in row)] for name, row in zip(table.index, table.to_numpy(object))]
    return {"headers": ["", *names], "rows": rows, "texts": [], "groups": []}


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, list | tuple | dict):
        return json.dumps(value)
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _lines(opened: Mapping[str, RunFiles]) -> Any:
    """Draw net returns, one line a run: over time, or over the share of their bars where they hardly lie in the same time."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    from research.report.svg import BAD, CHAIN, ENSEMBLE, GOOD, MARKET, MUTED, picture

    colours, curves = (CHAIN, ENSEMBLE, GOOD, BAD, MARKET, MUTED), {}
    for name, files in opened.items():
        frame = files.frame("equity", ["close_time", "equity"])
        pick = np.unique(np.linspace(0, len(frame) - 1, POINTS).astype(np.int64))
        start = files.summary["assumptions"]["initial_cash"]
        share = 100.0 * pick / max(1, len(frame) - 1)
        curves[name] = (frame["close_time"].iloc[pick], share, 100.0 * (frame["equity"].to_numpy()[pick] / start - 1.0))
    is_together = are_together([(time.iloc[0], time.iloc[-1]) for time, _, _ in curves.values()])

    def draw(figure: Any, is_narrow: bool) -> None:
        ax = figure.subplots()
        ax.axhline(0.0, color=MUTED, lw=0.8)
        for i, (name, (time, share, value)) in enumerate(curves.items()):
            style = "-" if i < len(colours) else "--"
            ax.plot(time if is_together else share, value, style, color=colours[i % len(colours)], lw=1.4, label=name)
        ax.set_ylabel("net return, %")
        ax.legend(frameon=False, fontsize=8.5, ncols=1 if is_narrow else 3)
        if is_together:
            ax.xaxis.set_major_locator(AutoDateLocator(maxticks=4 if is_narrow else 9))
            ax.xaxis.set_major_formatter(ConciseDateFormatter(ax.xaxis.get_major_locator()))
        else:
            ax.set_xlabel("bars of the run, %")

    ends = ", ".join(f"{name} {value[-1]:+.1f} %" for name, (_, _, value) in curves.items())
    return picture(draw, f"Net return of each run in per cent; at the end: {ends}", (3.2, 3.0))


def are_together(spans: Sequence[tuple[Any, Any]]) -> bool:
    """Say whether spans of time, first and last each, have more than half of the whole time in common.

    >>> are_together([(0, 10), (2, 12)]), are_together([(0, 10), (9, 19)])
    (True, False)
    """
    first, last = zip(*spans)
    return bool(min(last) - max(first) > TOGETHER * (max(last) - min(first)))
