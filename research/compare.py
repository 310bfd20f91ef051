"""How do several runs differ? Their figures, parameters and equity side by side; a table and one small page."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from research.errors import UserError
from research.files import save_text
from research.store import RunFiles, read_run

BUCKETS = 400  # points of a drawn line
WIDTH, HEIGHT = 760, 260
COLOURS = ("#2a5fb0", "#c2761a", "#1f8a70", "#b5473c", "#7a54a8", "#687280")


def compare(runs: Sequence[str | Path]) -> pd.DataFrame:
    """Return one column a run folder and one row a figure: headline, verdict, data, and the parameters in which they differ.

    Raises UserError on less than two runs or a folder that is incomplete.
    """
    from research.evidence import headline

    if len(runs) < 2:
        raise UserError(f"compare needs two runs or more, was {len(runs)}; give their folders")
    opened = [read_run(folder) for folder in runs]
    columns = {}
    for name, files in zip(_names(opened), opened):
        summary = _summary(files)
        facts = {"verdict": summary["evidence"]["verdict"], "data": files.manifest["data_fingerprint"][:12]}
        columns[name] = facts | headline(summary)
    table = pd.DataFrame(columns, dtype=object)
    params = pd.DataFrame({name: _flat(files) for name, files in zip(_names(opened), opened)}, dtype=object)
    differing = params[params.astype(str).nunique(axis=1) > 1]
    return pd.concat([table, differing])


def write_page(runs: Sequence[str | Path], path: str | Path) -> Path:
    """Write the comparison as one self-contained HTML page and return its path."""
    opened, table = [read_run(folder) for folder in runs], compare(runs)
    names, said = list(table.columns), [_summary(files)["evidence"]["sentence"] for files in opened]
    body = [f"<h1>{len(names)} runs side by side</h1>", _chart(opened, names)]
    verdicts = (f"<li><b style='color:{_colour(i)}'>{html.escape(names[i])}</b>: {html.escape(text)}</li>" for i, text in enumerate(said))
    body.append(f"<ul>{''.join(verdicts)}</ul>")
    if len(set(table.loc["data"])) > 1:
        body.append("<p class='warn'>These runs are of different candles: their figures are not of the same market.</p>")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = (
        "<tr>" + f"<td>{html.escape(str(row))}</td>" + "".join(f"<td>{html.escape(_text(x))}</td>" for x in table.loc[row]) + "</tr>"
        for row in table.index
    )
    body.append(f"<div class='wide'><table><tr><th></th>{head}</tr>{''.join(rows)}</table></div>")
    out = Path(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_text(out, PAGE.format(body="\n".join(body)))
    return out


def _names(opened: Sequence[RunFiles]) -> list[str]:
    """Name the runs by their folders, whole paths where two are called the same."""
    names = [files.path.name for files in opened]
    return names if len(set(names)) == len(names) else [f"{i + 1} {files.path}" for i, files in enumerate(opened)]


def _summary(files: RunFiles) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads((files.path / "summary.json").read_text(encoding="utf-8"))
    return found


def _flat(files: RunFiles) -> dict[str, Any]:
    label = {f"label.{name}": value for name, value in files.manifest["label"].items()}
    return {**files.manifest["params"], **label, "symbols": ", ".join(files.manifest["symbols"])}


def _chart(opened: Sequence[RunFiles], names: Sequence[str]) -> str:
    """Draw net returns over time, one line a run, as inline SVG."""
    curves = []
    for files in opened:
        frame = files.frame("equity", ["close_time", "equity"])
        pick = np.unique(np.linspace(0, len(frame) - 1, BUCKETS).astype(np.int64))
        time = frame["close_time"].to_numpy("datetime64[ns]").astype(np.int64)[pick]
        curves.append((time, 100.0 * (frame["equity"].to_numpy()[pick] / files.manifest["params"]["broker.initial_cash"] - 1.0)))
    left, right = min(t[0] for t, _ in curves), max(t[-1] for t, _ in curves)
    low, high = min(0.0, *(y.min() for _, y in curves)), max(0.0, *(y.max() for _, y in curves))
    spread = (high - low) or 1.0

    def place(time: Any, value: Any) -> str:
        x = 10 + (WIDTH - 20) * (np.asarray(time) - left) / max(right - left, 1)
        y = 10 + (HEIGHT - 30) * (high - np.asarray(value)) / spread
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(np.atleast_1d(x), np.atleast_1d(y)))

    lines = [f"<polyline points='{place([left, right], [0.0, 0.0])}' stroke='#9aa4b2' fill='none'/>"]
    lines += [f"<polyline points='{place(*c)}' stroke='{_colour(i)}' stroke-width='1.8' fill='none'/>" for i, c in enumerate(curves)]
    span = [str(np.datetime64(int(t), "ns"))[:10] for t in (left, right)]
    text = f"<text x='10' y='{HEIGHT - 4}'>{span[0]}</text><text x='{WIDTH - 10}' y='{HEIGHT - 4}' text-anchor='end'>{span[1]}</text>"
    ends = ", ".join(f"{name} {curve[1][-1]:+.1f} %" for name, curve in zip(names, curves))
    label = html.escape(f"Net return of each run in per cent; at the end: {ends}", quote=True)
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{label}'>{''.join(lines)}{text}</svg>"


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Runs side by side</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 -apple-system, "Segoe UI", Roboto, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1d2430;
  background: #fff; }}
h1 {{ font-size: 1.4rem; }} svg {{ width: 100%; height: auto; }} svg text {{ font-size: 11px; fill: #687280; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; }} .warn {{ color: #b5473c; font-weight: 600; }}
td, th {{ padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #e4e7ec; text-align: right; font-variant-numeric: tabular-nums; }}
td:first-child {{ text-align: left; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #14181d; color: #e3e7ee; }} td, th {{ border-color: #2c333d; }} }}
</style></head><body>
{body}
</body></html>
"""
