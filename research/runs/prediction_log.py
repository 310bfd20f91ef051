"""Prediction log of a backtest and its outcomes (`spec` 12.1), as meta training reads them."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd

from qtcore.types import Action
from research.files import replacing
from research.runs.record import RunRecord

OUTCOME_COLUMNS = ("timestamp", "symbol", "action", "outcome", "pnl_pct", "hold_duration_minutes")


def export_log(run: RunRecord, folder: Path) -> tuple[Path, Path]:
    """Write `predictions.jsonl` (a line for each cell with a vote) and `outcomes.csv` (a line for each closed trade) into `folder`.

    The timestamp of both is the decision time, so that they join exactly. Returns the two paths.
    """
    log, outcomes = folder / "predictions.jsonl", folder / "outcomes.csv"
    for path, write in ((log, _write_log), (outcomes, _write_outcomes)):
        with replacing(path) as draft:
            write(run, draft)
    return log, outcomes


def _stamp(ns: int) -> str:
    return pd.Timestamp(ns, tz="UTC").isoformat().replace("+00:00", "Z")


def _write_log(run: RunRecord, path: Path) -> None:
    result = run.result
    votes, decisions, regime = result.votes, result.decisions, result.planes.regime
    with path.open("w", encoding="utf-8") as file:
        for t, s in np.argwhere(decisions.n_voters > 0):
            present = [m for m in range(len(votes.names)) if votes.action[m, t, s] != Action.ABSENT]
            line = {
                "timestamp": _stamp(int(result.close_time[t])),
                "symbol": result.symbols[s],
                "base_predictions": {
                    votes.names[m]: {"action": Action(int(votes.action[m, t, s])).name, "confidence": float(votes.confidence[m, t, s])}
                    for m in present
                },
                "ensemble_action": Action(int(decisions.ensemble_action[t, s])).name,
                "ensemble_confidence": float(decisions.ensemble_confidence[t, s]),
            }
            if not np.isnan(regime[:, t, s]).any():
                line["regime"] = {"volatility": float(regime[0, t, s]), "trend_strength": float(regime[1, t, s])}
            file.write(json.dumps(line) + "\n")


def _write_outcomes(run: RunRecord, path: Path) -> None:
    trades = run.trades.reset_index()
    trades = trades[trades["pnl"].notna()]
    minutes = (trades["exit_time"] - trades["entry_time"]).dt.total_seconds() / 60.0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(OUTCOME_COLUMNS)
        for row, held in zip(trades.itertuples(), minutes, strict=True):
            outcome = "win" if row.pnl > 0 else "loss" if row.pnl < 0 else "breakeven"
            side = Action.BUY.name if row.side > 0 else Action.SELL.name
            writer.writerow((_stamp(row.decision_time.value), row.symbol, side, outcome, repr(row.ret * 100.0), repr(held)))
