"""Measures what each step from the profile `published` to `default` is worth, for the table of docs/profiles.md: nobody types a number.

.venv/bin/python docs/worth.py [DATA ...]      (more candles than those that come with the package are named, and stand in the table too)
"""

import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from qtcore import Params
from research.runs.config import RunOptions, load_config
from research.workflow.backtest_job import Job, run_job

ROOT = Path(__file__).resolve().parents[1]
DATA = {
    "no edge: simulated:random_walk": "simulated:random_walk?n_bars=6000&n_symbols=8&seed=7",
    "known edge: simulated:reversion": "simulated:reversion?n_bars=6000&n_symbols=8&seed=7&pull=0.15",
    "S&P 500, NASDAQ: sample": "sample",
}
STEPS: tuple[tuple[str, dict[str, str]], ...] = (  # what each one sets, beside those before it
    ("`published`", {}),
    ("class weights are undone: `run.calibration=prior`", {"run.calibration": "prior"}),
    (
        "opinions in money: `decide.rule=edge`, `meta.mode=bet`, `run.maps=on`, `governor.min_confidence=0`",
        {"decide.rule": "edge", "meta.mode": "bet", "run.maps": "on", "governor.min_confidence": "0"},
    ),
    (
        "mean of the probabilities, equal weights: `ensemble.rule=mean`",
        {"ensemble.rule": "mean", "ensemble.weights": "0.25,0.25,0.25,0.25,0"},
    ),
    ("size by the edge: `governor.sizing_mode=kelly_edge`", {"governor.sizing_mode": "kelly_edge"}),
    ("largest edge first: `governor.order=by_edge`; this is `default`", {"governor.order": "by_edge"}),
    ("`default` without meta layer and arbiter", {"meta.enabled": "off", "arbiter.enabled": "off"}),
)


def measured(data: str) -> list[tuple[float, int]]:
    """Run every step on some candles, as `qt backtest --preset fast` does: net return of the tested bars and number of trades."""
    told, found = dict[str, str](), list[tuple[float, int]]()
    for _, set_ in STEPS:
        told |= set_
        config = load_config("published", sets=["run.preset=fast", *(f"{name}={value}" for name, value in told.items())])
        with tempfile.TemporaryDirectory() as folder:
            run = run_job(Job(data, config, out=Path(folder) / "run"), verify=False, report=False)
        found.append((run.summary["pnl"]["net_return"], run.summary["pnl"]["n_trades"]))
        is_default = config.params == Params.profile("default") and config.run == replace(RunOptions.profile("default"), preset="fast")
        if is_default != (len(found) == len(STEPS) - 1):
            raise SystemExit("the last step but one must be the profile `default`, was another; correct STEPS")
    return found


def table(data: dict[str, str]) -> str:
    """Write the steps as Markdown."""
    columns = {name: measured(source) for name, source in data.items()}
    rows = [["step", *columns], ["---", *("---:" for _ in columns)]]
    for k, (text, _) in enumerate(STEPS):
        rows.append([text, *(f"{100.0 * gain:+.2f} %, {n:,}" for gain, n in (column[k] for column in columns.values()))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Refresh the page."""
    found = table(DATA | {Path(source).stem: source for source in sys.argv[1:]})
    page = ROOT / "docs" / "profiles.md"
    block = f"<!-- worth -->\n{found}\n<!-- /worth -->"
    text = re.sub(r"<!-- worth -->.*<!-- /worth -->", lambda _: block, page.read_text(encoding="utf-8"), flags=re.DOTALL)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
