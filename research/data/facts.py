"""Data summary: fingerprint and annual factor of bars, and the table of `qt data info`."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from qtcore.types import NS_PER_DAY, Bars
from research.data.clock import interval_text, iso
from research.data.schema import VALUES

DAYS_PER_YEAR = 365  # of a market that never closes: 365 x 24 hourly bars
WEEK = 7 * NS_PER_DAY
WEEKS_PER_YEAR = 365.25 / 7


def fingerprint(bars: Bars | Iterable[Bars]) -> str:
    """Hash the contents, 64 hex digits: symbols, times and planes, row by row, so blocks of any size give the hash of the whole.

    Every NaN counts as the same NaN. Raises ValueError when the blocks have different symbols.

    >>> from research.data import simulate
    >>> bars = simulate("random_walk", n_bars=50)
    >>> fingerprint(bars) == fingerprint([bars[:20], bars[20:]])
    True
    """
    digest = hashlib.sha256()
    symbols: tuple[str, ...] | None = None
    for block in (bars,) if isinstance(bars, Bars) else bars:
        if symbols is None:
            symbols = block.symbols
            digest.update("\n".join(symbols).encode() + (b"\n\nfunding" if block.funding is not None else b"\n\n"))
        if block.symbols != symbols:
            raise ValueError(f"blocks must have the same symbols, was {block.symbols} after {symbols}")
        for start in range(0, block.n, 8_192):
            digest.update(_row_bytes(block[start : start + 8_192]))
    return digest.hexdigest()


def calendar_of(bars: Bars) -> str:
    """Say whether every row follows the one before after one interval (`regular`) or not (`sessions`)."""
    return "regular" if np.all(np.diff(bars.open_time) == bars.interval) else "sessions"


def empty_share(bars: Bars) -> float:
    """Return the share of the rows of a regular grid over the same span that have no candle."""
    n_regular = int(bars.open_time[-1] - bars.open_time[0]) // bars.interval + 1
    return 1.0 - int((~np.isnan(bars.close)).any(axis=1).sum()) / n_regular


def _row_bytes(bars: Bars) -> memoryview:
    planes = [getattr(bars, name) for name in VALUES] + ([] if bars.funding is None else [bars.funding])
    width = len(bars.symbols)
    table = np.empty((bars.n, 2 + width * len(planes)))
    table[:, :2] = np.stack([bars.open_time, bars.close_time], axis=1).view(np.float64)
    for i, plane in enumerate(planes):
        table[:, 2 + i * width : 2 + (i + 1) * width] = np.where(np.isnan(plane), np.nan, plane)
    return table.data


def bars_per_year(bars: Bars) -> float:
    """Return the annual factor of per-bar figures, measured from the bars' own calendar.

    A regular grid has 365 days: 8,760 hourly bars. Sessions are counted over the whole weeks that the bars span, holidays included:
    about 252 daily bars of equities, 6,200 hourly ones of FX. Four days are a week to a market that has sessions.

    >>> from research.data import simulate
    >>> bars_per_year(simulate("random_walk", n_bars=50, interval="1h"))
    8760.0
    """
    time = bars.open_time
    if calendar_of(bars) == "regular":
        return DAYS_PER_YEAR * NS_PER_DAY / bars.interval
    n_weeks = int(time[-1] - time[0]) // WEEK
    if n_weeks == 0:
        span = float(bars.close_time[-1] - time[0])
        return WEEKS_PER_YEAR * bars.n if span > 4 * NS_PER_DAY else DAYS_PER_YEAR * NS_PER_DAY * bars.n / span
    return int(np.searchsorted(time, time[0] + n_weeks * WEEK)) / n_weeks * WEEKS_PER_YEAR


def info(bars: Bars) -> dict[str, Any]:
    """Describe bars in plain numbers: what `qt data info` prints."""
    here = ~np.isnan(bars.close)
    symbols = {}
    for s, name in enumerate(bars.symbols):
        rows = np.flatnonzero(here[:, s])
        first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, -1)
        symbols[name] = {
            "bars": len(rows),
            "first": iso(bars.open_time[first]) if len(rows) else None,
            "last": iso(bars.open_time[last]) if len(rows) else None,
            "holes": last - first + 1 - len(rows),
        }
    return {
        "first_open": iso(bars.open_time[0]),
        "last_close": iso(bars.close_time[-1]),
        "interval": interval_text(bars.interval),
        "calendar": calendar_of(bars),
        "empty_share_of_regular_grid": empty_share(bars),
        "rows": bars.n,
        "cells": int(here.size),
        "holes": int((~here).sum()),
        "empty_rows": int((~here.any(axis=1)).sum()),
        "bars_per_year": bars_per_year(bars),
        "has_funding": bars.funding is not None,
        "fingerprint": fingerprint(bars),
        "symbols": symbols,
    }
