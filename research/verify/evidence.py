"""Evidence loader of a proof: the arrays of a finished run's folder, as they lie on disk; nothing is computed here."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Engine
from qtcore.params import Params
from qtcore.types import F8, FILL, I8, Bars, Votes
from research.errors import ProofError
from research.runs.folder import RunFiles, read_run
from research.runs.round_trips import closes, opens
from research.training.meta.schedule import MetaSchedule
from research.training.models.layers import NONE, Layers
from research.training.predictions import Predictions
from research.verify.claims import Clock

OUTCOMES = ("final_action", "governor_reason", "size", "cell_pnl")  # per cell, after the governor
LINES = ("equity", "balance", "exposure")  # per bar


@dataclass(frozen=True)
class Evidence:
    """A run as its folder tells it.

    planes: every column of the decisions [n, S]. lines: equity, balance, exposure [n]. fills: FILL records in the order they were booked.
    meta: the learned meta layer, None where the rules alone acted. own: the own layers of the run that are at hand.
    """

    files: RunFiles
    params: Params
    bars: Bars
    votes: Votes
    predictions: Predictions
    planes: dict[str, NDArray]
    lines: dict[str, F8]
    fills: NDArray
    meta: MetaSchedule | None = None
    own: Layers = NONE

    @property
    def lacking(self) -> tuple[str, ...]:
        """Names of layers that were not the chain's, and whose code is not at hand."""
        return self.files.lacking(self.own)

    @property
    def own_checks(self) -> list[dict[str, Any]]:
        """What the trials of own layers found before the run."""
        return list(self.files.manifest.get("own_checks", ()))

    def engine(self, values: dict[str, Any] | None = None) -> Engine:
        """Return a fresh engine with the run's parameters, meta models and own layers; values: parameters to change."""
        return Engine(self.params.with_values(values or {}), meta_model=self.meta, **self.own.engine)

    @property
    def clock(self) -> Clock:
        """Names for rows and columns."""
        return Clock(self.bars.close_time, self.bars.symbols)

    @cached_property
    def trades(self) -> "Trades":
        """Positions as the fills tell them."""
        return pair_fills(self.fills, self.bars.n)


@dataclass(frozen=True)
class Trades:
    """One row a trade, from flat to flat, in the order of entry; `exit` rows are meaningless where not `closed`.

    entry, exit: FILL records. closed: bool. last: bar of the exit, or the number of bars.
    """

    entry: NDArray
    exit: NDArray
    closed: NDArray[np.bool_]
    last: I8


def read_evidence(folder: Path | str, layers: Layers = NONE) -> Evidence:
    """Read a run's folder. layers: of the user's own, at hand.

    Raises UserError when tables are missing or do not fit together, or the summary is another one.
    """
    files = read_run(folder)
    own = files.own(layers)
    _ = files.measured  # refused before the work
    bars, planes = files.bars(), files.decisions()
    table = files.frame("equity", columns=list(LINES))
    predictions = files.predictions()
    votes = Votes(
        np.stack([planes[f"{name}_action"] for name in files.voters]),
        np.stack([planes[f"{name}_confidence"] for name in files.voters]),
        predictions.probs,
        files.voters,
        predictions.votes().maps,
    )
    for name, shape in (("decisions", planes["raw_action"].shape), ("predictions", predictions.labels.shape)):
        if shape != bars.close.shape:
            raise ProofError(f"{name}.parquet must have {bars.close.shape} bars and symbols, was {shape}; run the backtest again")
    lines = {name: np.ascontiguousarray(table[name].to_numpy(np.float64)) for name in LINES}
    return Evidence(files, files.params(), bars, votes, predictions, planes, lines, _fills(files, bars.symbols), files.meta(), own)


def _fills(files: RunFiles, symbols: tuple[str, ...]) -> NDArray:
    frame = files.frame("fills")
    out = np.zeros(len(frame), FILL)
    for name in FILL.names or ():
        if name == "symbol":
            column = {symbol: i for i, symbol in enumerate(symbols)}
            out[name] = [column[symbol] for symbol in frame["symbol"]]
        elif name == "time":
            out[name] = frame["time"].to_numpy("datetime64[ns]").astype(np.int64)
        else:
            out[name] = frame[name].to_numpy()
    return out


def pair_fills(fills: NDArray, n: int) -> Trades:
    """Pair what opens and what closes a trade by its id; the first of each counts (`G-3` complains about a second)."""
    entries, exits = fills[opens(fills)], fills[closes(fills)]
    ids, first = np.unique(entries["trade_id"], return_index=True)
    entry = entries[first]
    exit_ids, exit_first = np.unique(exits["trade_id"], return_index=True)
    at = np.searchsorted(exit_ids, ids)
    closed = at < len(exit_ids)
    closed[closed] = exit_ids[at[closed]] == ids[closed]
    exit_ = np.zeros(len(entry), FILL)
    exit_[closed] = exits[exit_first[at[closed]]]
    return Trades(entry, exit_, closed, np.where(closed, exit_["bar"], n).astype(np.int64))
