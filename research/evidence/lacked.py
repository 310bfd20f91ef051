"""Data deficiencies of a run: everything of its input that was lost, assumed or suspicious, in counted sentences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars, Params
from qtcore.rules import Reason
from qtcore.types import I8
from research.data.clock import iso
from research.data.lacks import measure, mute, sentences
from research.runs.record import RunRecord
from research.runs.round_trips import closes, opens
from research.runs.tables import tested_rows
from research.training.predictions import Predictions


def lacked(run: RunRecord) -> list[str]:
    """Say what was dropped or assumed when the candles and predictions were read, what the bars lack, and which symbols never voted."""
    has_voted = np.any(run.result.decisions.n_voters[tested_rows(run)] > 0, axis=0)
    return deficiencies(run.bars, run.params, run.lacked, run.predictions, run.predictions.models, has_voted)


def deficiencies(
    bars: Bars, params: Params, read: Sequence[str], predictions: Predictions | None, models: Any, has_voted: NDArray[np.bool_] | None
) -> list[str]:
    """Say what the input of a run lacks, before the run where `has_voted` [S], the symbols with a vote, is None.

    read: what was told when the candles were read. predictions, models: who votes, the first None where models are asked bar by bar.
    """
    is_imported = predictions is not None and predictions.imported
    if predictions is not None and has_voted is None:
        has_voted = np.asarray((predictions.action >= 0).any(axis=(0, 1)))
    told = [*silent(bars, params, is_imported, has_voted), *strange(models, bars.symbols), *read]
    if has_voted is None:
        told = [*idle(models, bars.close_time), *told]
    told += predictions.notes if predictions is not None and is_imported else ()
    return list(dict.fromkeys([*told, *sentences(measure(bars))]))


def silent(bars: Bars, params: Params, is_imported: bool, has_voted: NDArray[np.bool_] | None) -> list[str]:
    """Name the symbols without a vote in the tested bars, each with its cause; those that can have none where votes are not known yet."""
    if has_voted is None:
        return list(mute(bars, params).values())
    names = [name for s, name in enumerate(bars.symbols) if not has_voted[s]]
    if not names:
        return []
    if is_imported:
        return [f"{', '.join(names)}: no prediction counts for it in the tested bars, so it is never traded"]
    causes = mute(bars, params)
    return [causes.get(name, f"{name} never voted: no model had a prediction for it in the tested bars") for name in names]


def idle(models: Any, close_time: I8) -> list[str]:
    """Say that no model serves any of these decision times [n], and when the first does; nothing where one does or nobody has models."""
    if models is None or not len(close_time) or any(a.serves(close_time).any() for a in models.artefacts):
        return []
    later = [a.valid_from for a in models.artefacts if a.valid_from > close_time[-1]]
    when = f"the first serves from {iso(min(later))}, the last candle is of {iso(int(close_time[-1]))}" if later else "they served earlier"
    return [f"no model serves these candles, so nobody votes and nothing is traded: {when}"]


def strange(models: Any, symbols: Sequence[str]) -> list[str]:
    """Say how many symbols the models were not trained on; nothing where they were trained on all, or there are none."""
    if models is None:
        return []
    known = {name for thresholds in models.config["thresholds"] for name in thresholds["sell"]}
    new = [name for name in symbols if name not in known]
    if not new:
        return []
    told = f"the models were not trained on {len(new):,} of {len(symbols):,} symbols, the first {new[0]}"
    if models.config["label"].get("is_percentile"):
        told += "; without percentiles of a training they have no labels and no accuracy"
    return [told]


def funding_payments(run: RunRecord) -> int:
    """Count the rates that were charged: those, not zero, of the bars at whose funding a position was open.

    Funding is paid after the fills at a bar's open and its stops, before the fills at its close and a liquidation.
    """
    if run.bars.funding is None:
        return 0
    due = np.cumsum((run.bars.funding != 0.0) & ~np.isnan(run.bars.close), axis=0)
    due = np.vstack([np.zeros((1, due.shape[1]), np.int64), due])
    fills = np.concatenate([run.result.fills, run.closing_fills])
    fills = fills[opens(fills) | closes(fills)]  # what resizes a position leaves it open
    is_entry, at_close = fills["is_entry"] == 1, run.params.broker.fill.is_at_close
    exits_late = np.isin(fills["reason"], (Reason.END_OF_DATA, Reason.LIQUIDATED)) | (at_close & (fills["reason"] != Reason.STOP))
    before = due[fills["bar"] + np.where(is_entry, at_close, exits_late), fills["symbol"]]  # rates due up to the fill
    open_at_end = due[-1, fills["symbol"][is_entry & ~np.isin(fills["trade_id"], fills["trade_id"][~is_entry])]]
    return int(before[~is_entry].sum() - before[is_entry].sum() + open_at_end.sum())
