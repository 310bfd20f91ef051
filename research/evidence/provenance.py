"""Prediction provenance: where a prediction came from, and the share of the predictions, trades and PnL that came from there.

    real          a model fitted on real labels answered in the period it was meant for
    stale         it answered later than that: the schedule says it should have been fitted again
    imported      made elsewhere, and its maker said until when he knew the data; its origin cannot be proven (`spec` D-99)
    undeclared    made elsewhere, and nobody said so: what it shows holds if it was made without data later than its bar
    synthetic     a model fitted on generated labels answered (`spec` D-24)
    contaminated  its maker knew the bar (`research.training.knowledge`): it does not vote, and is no evidence
    absent        the bar is there, a model that votes in this run was due, and gave nothing

Predictions are counted from the first tested bar to the last vote, where a model of the run was due: on every candle; the contaminated ones
before. A decision is as good as its worst prediction, in the order synthetic, stale, undeclared, imported, absent, real.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from research.errors import UserError
from research.runs.record import RunRecord

NOT_DUE, REAL, ABSENT, IMPORTED, UNDECLARED, STALE, SYNTHETIC, CONTAMINATED = range(8)  # the larger, the worse
KINDS = ("real", "absent", "imported", "undeclared", "stale", "synthetic", "contaminated")
UNSOUND = ("absent", "stale", "synthetic")  # what a budget limits


def planes(run: RunRecord, rows: slice) -> dict[str, NDArray[np.int8]]:
    """Code of every prediction by model, int8 [n, S], `NOT_DUE` outside the tested rows and where there is no candle.

    What is contaminated is known of a cell, and counts for every model of the run.
    """
    votes, bars = run.result.votes, run.bars
    due = ~np.isnan(bars.close)
    due[: rows.start] = due[last_vote(votes) + 1 :] = False
    artefacts, said = getattr(run.predictions.models, "artefacts", ()), run.predictions
    made = (UNDECLARED if said.condition else IMPORTED) if said.imported else REAL
    known = np.zeros(bars.close.shape, bool) if said.contaminated is None else said.contaminated & ~np.isnan(bars.close)
    out = {}
    for m, slot in enumerate(votes.names):
        spoke = votes.action[m] >= 0
        if spoke.any():
            kind = np.full(bars.n, made, np.int8)
            for artefact in (a for a in artefacts if a.slot == slot):
                served = (bars.close_time >= artefact.valid_from) & (bars.close_time < artefact.valid_until)
                kind[served & (bars.close_time > _meant_until(artefact.meta, artefact.valid_until))] = STALE
                kind[served & bool(artefact.meta.get("synthetic", False))] = SYNTHETIC
            plane = np.where(due, np.where(spoke, kind[:, None], np.int8(ABSENT)), np.int8(NOT_DUE))
            out[slot] = np.where(known, np.int8(CONTAMINATED), plane).astype(np.int8)
    return out


def last_vote(votes: Any) -> int:
    """Row of the last vote, -1 without any."""
    voted = np.flatnonzero((votes.action >= 0).any(axis=(0, 2)))
    return int(voted[-1]) if len(voted) else -1


def _meant_until(meta: Mapping[str, Any], valid_until: int) -> int:
    """Last decision time of the period that an artefact was trained for."""
    test = meta.get("split", {}).get("close_time", {}).get("test")
    return int(test[1]) if test else int(valid_until)


def provenance(run: RunRecord, rows: slice) -> dict[str, Any]:
    """Count predictions and decisions by where they came from.

    `models{name}` and `total`: share of the due predictions of each kind, and `due`; `decisions{kind}`: `cells`, `share`, `trades`, `pnl`,
    `share_of_gross_pnl` of the closed trades that were decided on them. `unsound`: share that is absent, stale or synthetic of what votes.
    """
    codes = planes(run, rows)
    models = {name: _shares(plane) for name, plane in codes.items()}
    total = _shares(np.stack(list(codes.values()))) if codes else _shares(np.zeros(0, np.int8))
    worst = np.maximum.reduce(list(codes.values())) if codes else np.zeros(run.labels.shape, np.int8)
    return {
        "models": models,
        "total": total,
        "unsound": sum(total[kind] for kind in UNSOUND) / sound if (sound := 1.0 - total["contaminated"]) > 0.0 else float("nan"),
        "decisions": _decisions(run, np.where(run.result.decisions.n_voters > 0, worst, np.int8(NOT_DUE))),
    }


def _shares(plane: NDArray) -> dict[str, Any]:
    counts = np.bincount(plane.reshape(-1), minlength=len(KINDS) + 1)[REAL:]
    due = int(counts.sum())
    return {kind: float(n / due) if due else float("nan") for kind, n in zip(KINDS, counts)} | {"due": due}


def _decisions(run: RunRecord, worst: NDArray[np.int8]) -> dict[str, dict[str, Any]]:
    counts = np.bincount(worst.reshape(-1), minlength=len(KINDS) + 1)
    trades: pd.DataFrame = run.trades[run.trades["exit_reason"] > 0]
    row = np.searchsorted(run.bars.close_time, pd.DatetimeIndex(trades["decision_time"]).asi8)
    column = trades["symbol"].map({name: s for s, name in enumerate(run.bars.symbols)}).to_numpy(np.int64)
    kind, pnl = worst[row, column], trades["pnl"].to_numpy()
    gross = np.abs(pnl).sum()
    out = {}
    for code, name in enumerate(KINDS, start=REAL):
        own = kind == code
        out[name] = {
            "cells": int(counts[code]),
            "share": float(counts[code] / counts[REAL:].sum()) if counts[REAL:].any() else float("nan"),
            "trades": int(own.sum()),
            "pnl": float(pnl[own].sum()),
            "share_of_gross_pnl": float(np.abs(pnl[own]).sum() / gross) if gross else float("nan"),
        }
    return out


def known_text(summary: Mapping[str, Any]) -> str | None:
    """Say in a few words until when the maker of a run's predictions knew the data; None where that is no question, or an old summary."""
    total, until = summary["provenance"]["total"], summary["assumptions"].get("knows_until")
    if total.get("undeclared"):
        return "undeclared: nobody said until when their maker knew the data"
    if until is None:
        return None
    share = total.get("contaminated")
    return f"until {until[:16].replace('T', ' ')}" + (f"; {share:.1%} of the predictions are contaminated, no evidence" if share else "")


def over_budget(found: Mapping[str, Any], budget: float) -> str | None:
    """Say that more predictions are absent, stale or synthetic than `budget` allows, a share; None when they are not."""
    if found["unsound"] is None or not found["unsound"] > budget:
        return None
    total, sound = found["total"], 1.0 - found["total"].get("contaminated", 0.0)  # a run of before 0.3 has none
    parts = ", ".join(f"{total[kind] / sound:.2%} {kind}" for kind in UNSOUND if total[kind])
    share = f"{found['unsound']:.2%} of {round(total['due'] * sound):,} due predictions ({parts})"
    return f"provenance: at most {budget:.2%} of predictions may be absent, stale or synthetic, was {share}; see run.provenance_budget"


def refuse_synthetic(models: Any, is_allowed: bool) -> None:
    """Raise UserError when artefacts were trained on synthetic labels and that was not asked for (`spec` D-24)."""
    artefacts = getattr(models, "artefacts", ())
    bad = ", ".join(sorted({a.slot for a in artefacts if a.meta.get("synthetic", False)}))
    if bad and not is_allowed:
        raise UserError(f"models must be trained on real labels, was synthetic for {bad}; allow it with --set run.allow_synthetic=true")
