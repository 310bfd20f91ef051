"""Missing funding rates, by the step of the rates around each gap, for exchanges change it, and at both ends of the bars."""

import numpy as np

from qtcore.types import I8, NS_PER_MINUTE, Bars
from research.data.clock import interval_text, iso

AROUND = 3  # steps on each side that say what is usual
SHOWN = 3  # symbols that are told one by one


def missing_rates(time: I8, column: I8, bars: Bars) -> list[str]:
    """Say for each symbol how many rates are missing among its candles and where most of them are; column: of each rate's symbol."""
    found: list[tuple[int, str]] = []
    for s, name in enumerate(bars.symbols):
        rows = np.flatnonzero(~np.isnan(bars.close[:, s]))
        stamps = np.unique((time[column == s] + NS_PER_MINUTE // 2) // NS_PER_MINUTE * NS_PER_MINUTE)  # some are stamped seconds late
        if len(stamps) == 1:
            found.append((1, f"{name}: {iso(int(stamps[0]))} has the only funding rate; whether others are missing cannot be told"))
        elif len(stamps) and len(rows):
            n, text = _of_symbol(stamps, bars[int(rows[0]) : int(rows[-1]) + 1])
            found += [(n, f"{name}: {text}")] if n else []
    found.sort(key=lambda one: -one[0])
    rest = found[SHOWN:]
    more = [f"{len(rest)} more symbols: {sum(n for n, _ in rest):,} funding rates are missing; counted as 0"] if rest else []
    return [text for _, text in found[:SHOWN]] + more


def _of_symbol(stamps: I8, bars: Bars) -> tuple[int, str]:
    """Return how many rates are missing in the bars, and the sentence on it; stamps: sorted, two at least."""
    steps = np.diff(stamps)
    usual = _usual(steps)
    parts: list[tuple[I8, int, str]] = []
    first, last = int(stamps[0]), int(stamps[-1])
    step = int(np.sort(steps[:AROUND])[(len(steps[:AROUND]) - 1) // 2])
    parts.append((np.arange(first - step, bars.open_time[0], -step), step, f"before {iso(first)}"))
    for i in np.flatnonzero(2 * steps > 3 * usual).tolist():
        due = np.arange(stamps[i] + usual[i], stamps[i + 1] - usual[i] // 2, usual[i])
        parts.append((due, int(usual[i]), f"between {iso(int(stamps[i]))} and {iso(int(stamps[i + 1]))}"))
    step = int(np.sort(steps[-AROUND:])[(len(steps[-AROUND:]) - 1) // 2])
    parts.append((np.arange(last + step, bars.close_time[-1] + 1, step), step, f"after {iso(last)}"))
    counts = [_inside(due, bars) for due, _, _ in parts]
    n = sum(counts)
    if not n:
        return 0, ""
    _, step, where = parts[int(np.argmax(counts))]
    most = "" if max(counts) == n else "most of them "
    length = interval_text(max(step // NS_PER_MINUTE, 1) * NS_PER_MINUTE)
    return n, f"{n:,} of {n + _inside(stamps, bars):,} funding rates, one every {length}, are missing, {most}{where}; counted as 0"


def _usual(steps: I8) -> I8:
    """Return the upper median of the steps around each one, itself left out: where a step changes, neither side is a gap."""
    padded = np.concatenate([np.full(AROUND, np.inf), steps, np.full(AROUND, np.inf)])
    around = np.stack([padded[AROUND + k : AROUND + k + len(steps)] for k in range(-AROUND, AROUND + 1) if k])
    known = np.isfinite(around).sum(axis=0)
    middle = np.sort(around, axis=0)[np.minimum(known // 2, len(around) - 1), np.arange(len(steps))]
    return np.where(known > 0, middle, steps).astype(np.int64)


def _inside(due: I8, bars: Bars) -> int:
    """Count the times that are due in a bar: in (open_time, close_time]."""
    row = np.minimum(np.searchsorted(bars.close_time, due, side="left"), bars.n - 1)
    return int(np.sum((due > bars.open_time[row]) & (due <= bars.close_time[row])))
