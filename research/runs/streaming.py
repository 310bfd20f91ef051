"""Streaming backtest of a history that does not fit in memory: block after block through one engine, the same bits as at once.

What grows with time is one line a bar and one record a fill; bars, features, predictions and decisions of a block are dropped with it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars, Engine, Params, Votes
from qtcore.types import F8, I8, MODELS, N_MODELS, InputError
from research.training.predictions import Predictions


@dataclass(frozen=True)
class StreamedRun:
    """What is left of a streamed backtest: times, equity, balance, exposure [n] and every fill (`FILL` records)."""

    open_time: I8
    close_time: I8
    equity: F8
    balance: F8
    exposure: F8
    fills: NDArray


def backtest_stream(blocks: Iterable[tuple[Bars, Votes]], params: Params | None = None) -> StreamedRun:
    """Run the chain over blocks of bars with their votes, in time order; memory does not grow with their number.

    params: resolved; `broker.max_holding_bars` 0 means 5. Equal to `backtest` on the whole, bit for bit.
    """
    engine = Engine(params)
    columns: dict[str, list[NDArray]] = {name: [] for name in StreamedRun.__dataclass_fields__}
    for bars, votes in blocks:
        result = engine.run(bars, votes)
        for name, parts in columns.items():
            parts.append(getattr(result, name).copy())
    if not columns["equity"]:
        raise InputError("blocks must hold at least one block of bars, was none; see that the file and the dates are right")
    return StreamedRun(**{name: np.concatenate(parts) for name, parts in columns.items()})


def paired(bars: Iterable[Bars], predictions: Iterable[Predictions]) -> Iterator[tuple[Bars, Votes]]:
    """Bring two streams on one grid: every block of bars with its votes, absent where nothing was predicted.

    Both must be in time order and on the same symbols; blocks may be cut differently.
    """
    coming = iter(predictions)
    waiting: list[Predictions] = []
    for block in bars:
        while not waiting or waiting[-1].close_time[-1] < block.close_time[-1]:
            if (more := next(coming, None)) is None:
                break
            if more.n:
                waiting.append(more)
        waiting = [part for part in waiting if part.close_time[-1] >= block.close_time[0]]
        yield block, _votes(block, waiting)


def _votes(bars: Bars, parts: list[Predictions]) -> Votes:
    shape = (N_MODELS, *bars.close.shape)
    action, confidence = np.full(shape, -1, np.int8), np.full(shape, np.nan)
    for part in parts:
        if part.symbols != bars.symbols:
            raise InputError(
                f"predictions must be on the symbols of the bars {bars.symbols}, was {part.symbols}; choose the same --symbols"
            )
        _, here, there = np.intersect1d(bars.close_time, part.close_time, assume_unique=True, return_indices=True)
        action[:, here], confidence[:, here] = part.action[:, there], part.confidence[:, there]
    return Votes(action, confidence, None, parts[0].names if parts else MODELS)
