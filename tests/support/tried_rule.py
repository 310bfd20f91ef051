"""Trial of a rule that a copy of this checkout has: kernel against twin, sweep against backtests, and every table that must know it.

python -m tests.support.tried_rule CODE OFF VALUE VALUE
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import research
from qtcore.params import describe
from qtcore.rules import Reason, rule_of
from qtcore.types import Action
from research.live.monitoring.metrics import metrics_text
from research.live.monitoring.sources import open_source
from research.report.terms import limits
from research.runs.explain import explain_decision
from research.workflow.recording import save_run
from tests.conftest import assert_same_bits
from tests.naive import trade as naive
from tests.support import PUBLISHED

BUSY = {"governor.min_confidence": 0.4, "governor.max_daily_trades": 1_000, "governor.cooldown_minutes": 0, "broker.max_holding_bars": 2}


def try_rule(code: str, off: str, *values: str) -> None:
    """Assert that the rule acts at each of `values`, differently at each, not at `off`, and that everybody knows of it."""
    rule = rule_of(Reason[code])
    assert rule.parameter in {row["name"] for row in describe()}
    bars = research.simulate("random_walk", seed=3, n_bars=300, n_symbols=3)
    predictions = research.Predictions.random(bars, seed=1)
    runs = {
        value: research.backtest(bars, predictions, params=PUBLISHED.with_values(BUSY | {rule.parameter: value}))
        for value in (off, *values)
    }
    counts = {value: int((run.result.governor_reason == rule.reason).sum()) for value, run in runs.items()}
    assert counts[off] == 0, counts
    assert len(set(counts.values())) == len(counts), counts
    trials = research.sweep(bars, predictions, {rule.parameter: ",".join(runs)}, PUBLISHED.with_values(BUSY), record=False).table()
    for (value, run), trial in zip(runs.items(), trials.to_dict("records"), strict=True):
        assert trial[rule.parameter] == float(value)
        assert trial["last_equity"] == run.result.equity[-1]
        assert trial["n_trades"] == np.count_nonzero(run.result.fills["is_entry"])
        assert_same_as_twin(run)
    assert_known(runs[values[0]], rule)


def assert_same_as_twin(run: research.Run) -> None:
    """Compare reasons and equity of the kernels with those of the twin, bit by bit."""
    bars, decisions = run.bars, run.result.decisions
    columns = {name: getattr(bars, name).tolist() for name in ("open_time", "close_time", "open", "high", "low", "close")}
    funding = None if bars.funding is None else bars.funding.tolist()
    _, out = naive.trade(columns, decisions.raw_action.tolist(), decisions.raw_confidence.tolist(), run.params.flat(), None, funding)
    for name in ("governor_reason", "equity"):
        kernels = getattr(run.result, name)
        assert_same_bits(kernels, np.array(out[name], kernels.dtype), name)


def assert_known(run: research.Run, rule) -> None:
    """Look for the rule in rates, rules, thresholds, ladder, terms, `qt explain` and the metrics of whoever watches."""
    code, summary = rule.reason.name, run.summary
    d, refused = run.result.decisions, run.result.governor_reason == rule.reason
    n = int(np.count_nonzero(refused & (d.n_voters > 0) & (d.raw_action != Action.HOLD)))
    assert summary["rates"]["counts"][f"veto.{code}"] == n > 0
    assert next(row["decided"] for row in summary["rules"]["governor"] if row["rule"] == code) == n
    assert [row["decided"] for row in summary["dead"]["thresholds"] if row["parameter"] == rule.parameter] == [n]
    assert rule.switch[0] in [row["layer"] for row in summary["attribution"]["layers"]]
    assert rule.limit_text(run.params.flat()[rule.parameter]) in limits(run.params.flat())
    with tempfile.TemporaryDirectory() as folder:
        saved = save_run(run, Path(folder) / "run-20240101")
        t, s = np.argwhere(refused)[0]
        layers = explain_decision(saved, run.bars.symbols[s], str(np.datetime64(int(run.bars.close_time[t]), "ns")))["layers"]
        assert any(f"{code} (" in layer["says"] for layer in layers), layers
        assert f'governor_rejections_total{{reason="{code}"}}' in metrics_text(open_source(saved))


if __name__ == "__main__":
    try_rule(*sys.argv[1:])
