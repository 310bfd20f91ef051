"""Bar interval detection: the most common step between candles, what is missing of a written close, and two lengths in one history."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from qtcore.types import I8, NS_PER_DAY, NS_PER_MINUTE
from research.data.clock import interval_text, iso, month_starts, months_later, months_of
from research.data.rows import Rows
from research.errors import DataError

TICKS = (1, 1_000, 1_000_000, 1_000_000_000)  # ns: how far before the next open a source may write a close
SHORTEST = 0.85  # of its interval that a bar of a day or more may last: a day of 23 hours, a month of 28 days
MIN_STEPS = 20  # of a symbol, before its own bar length is an opinion
DENSE, FEW = 0.8, 4  # share of the steps that are one bar; equal steps in a row that are a length of their own there
LONE = 3  # longer bars one by one, each before a hole of its length, that are no chance
MANY = 8  # days one by one, of a range that no shorter bar has
FRIDAY = 1  # of days since 1970-01-01, a Thursday, modulo 7
CHANCE = 1e-3  # that candles which are only missing here and there look like bars of another length


def whole_length(length: int) -> int:
    """Return the bar length that a written `close - open` means: 59 min 59.999 s is an hour. Lengths in ns.

    >>> whole_length(3_599_999_000_000), whole_length(59_000_000_000), whole_length(90_000_000_000)
    (3600000000000, 60000000000, 90000000000)
    """
    whole = (length + tick for tick in TICKS if (length + tick) % (15 * tick if tick == TICKS[-1] else 1_000 * tick) == 0)
    return next(whole, length)


def whole_closes(stamps: I8, interval: int) -> I8:
    """Return closes as they are meant: stamps a tick before a whole minute, or before a whole bar of less, mean that.

    Where bars are calendar months, the date of the last day or the last Friday before a weekend means the end of the month.
    """
    unit = math.gcd(interval, NS_PER_MINUTE)
    ahead = -stamps % unit
    whole = stamps + np.where(np.isin(ahead, [tick for tick in TICKS if tick < unit]), ahead, 0)
    if months_of(interval):
        end = months_later(whole, 1)
        left, is_friday = end - whole, whole // NS_PER_DAY % 7 == FRIDAY
        whole = np.where((left == NS_PER_DAY) | ((left <= 3 * NS_PER_DAY) & (left % NS_PER_DAY == 0) & is_friday), end, whole)
    return whole


def opens_of(stamps: I8, interval: int) -> I8:
    """Return when the bars open whose closes are written as `stamps`: an interval before, calendar months at their beginnings."""
    closes, months = whole_closes(stamps, interval), months_of(interval)
    if not months:
        return closes - interval
    return np.where(month_starts(closes, 1) == closes, months_later(closes, -months), closes - interval)


def are_closes(stamps: I8, counts: I8 | int, interval: int) -> bool:
    """Say whether most stamps lie a tick before a whole minute, or on the last days of months; counts: rows with each stamp."""
    moved = whole_closes(stamps, interval) != stamps
    return 2 * int(np.sum(moved * counts)) > int(np.sum(np.ones_like(stamps) * counts))


class Steps:
    """Steps between neighbouring candles of each symbol, told part by part.

    counts: (symbol, step in ns) to how often. runs: the same to the longest run of equal steps: how many, its first and its last time.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[int, int]] = Counter()
        self.runs: dict[tuple[int, int], tuple[int, int, int]] = {}
        self._last: dict[int, tuple[int, int, int, int]] = {}  # symbol to its last time, and the run that led there: step, how many, start

    def add(self, code: int, time: I8) -> None:
        """Take the next candles of a symbol, later or earlier than those before; repeated times count once."""
        last, step_before, n_before, start = self._last.get(code, (int(time[0]), 0, 0, 0))
        time = np.concatenate(([last], time))
        time = time[np.concatenate(([True], np.diff(time) != 0))]
        if len(time) < 2:
            self._last[code] = (last, step_before, n_before, start)
            return
        step = np.abs(np.diff(time))
        edges = np.flatnonzero(np.diff(step, prepend=-1, append=-1))
        length, n, first, until = step[edges[:-1]], np.diff(edges), time[edges[:-1]], time[edges[1:]]
        if length[0] == step_before:
            n[0] += n_before
            first[0] = start
        order = np.lexsort((n, length))
        longest = order[np.flatnonzero(np.diff(length[order], append=-1))]
        for i in longest.tolist():
            key = code, int(length[i])
            self.runs[key] = max(self.runs.get(key, (0, 0, 0)), (int(n[i]), int(first[i]), int(until[i])))
        self.counts.update({(code, int(value)): int(k) for value, k in zip(*np.unique(step, return_counts=True))})
        self._last[code] = (int(time[-1]), int(length[-1]), int(n[-1]), int(first[-1]))

    def renumbered(self, places: Sequence[int]) -> "Steps":
        """Return the same with symbol `places[i]` as i."""
        rank = {code: i for i, code in enumerate(places)}
        out = Steps()
        out.counts = Counter({(rank[code], step): n for (code, step), n in self.counts.items()})
        out.runs = {(rank[code], step): run for (code, step), run in self.runs.items()}
        return out


def count_steps(rows: Rows) -> Steps:
    """Count the steps of rows that are sorted by symbol."""
    steps = Steps()
    edges = np.flatnonzero(np.diff(rows.code, prepend=-1, append=-1))
    for start, stop in pairwise(edges):
        steps.add(int(rows.code[start]), rows.time[start:stop])
    return steps


def find_interval(steps: Steps, symbols: tuple[str, ...]) -> int:
    """Return the bar length in ns, the most common step. Raises UserError where symbols differ or no symbol has 2 bars."""
    total: Counter[int] = Counter()
    of: dict[int, Counter[int]] = {}
    for (code, length), n in steps.counts.items():
        total[length] += n
        of.setdefault(code, Counter())[length] += n
    if not total:
        raise DataError("data must have at least 2 bars of a symbol, was 1; give more history")
    common = _usual(total)
    for code, own in of.items():
        n, usual = sum(own.values()), _usual(own)
        if n >= MIN_STEPS and 2 * own[common] < n and usual != common:
            raise DataError(
                f"symbols must have bars of one length, was {interval_text(usual)} for {symbols[code]} and {interval_text(common)} "
                f"for most; resample first, or leave {symbols[code]} out"
            )
    return common


def _usual(counts: Counter[int]) -> int:
    """Return the most common step, or a part of it that is at least half as common: where most candles are missing, steps are many bars."""
    most = min(counts, key=lambda length: (-counts[length], length))
    return min(length for length in counts if most % length == 0 and 2 * counts[length] >= counts[most])


def check_lengths(steps: Steps, symbols: tuple[str, ...], interval: int) -> None:
    """Refuse a symbol in which a second length stands beside `interval`, ns. Raises UserError with both spans.

    A second length is a run of equal steps that missing candles do not make. Where each candle is there with the chance q, a step of two
    bars or more comes with at most q (1 - q) <= 1/4, so k of them in a row among n steps with at most n / 4^k. Where most candles
    are there, steps of three bars or more are so seldom that four equal ones in a row are enough. A length within 15 % of the interval
    is no other: days of 23 hours, months.
    """
    n_steps: Counter[int] = Counter()
    for (code, _), n in steps.counts.items():
        n_steps[code] += n
    for (code, length), (n, *span) in sorted(steps.runs.items(), key=lambda run: -run[1][0]):
        is_same = SHORTEST * interval < length < interval / SHORTEST
        is_dense = steps.counts[code, interval] >= DENSE * n_steps[code] and not interval < length < 3 * interval
        if is_same or (n < (FEW if is_dense else math.log(n_steps[code] / CHANCE, 4.0)) and not 3 <= n == n_steps[code]):
            continue
        name = symbols[code]
        if usual := steps.runs.get((code, interval)):
            text = two_lengths(name, (interval, usual[1:]), (length, span))
            raise DataError(f"{text}; resample first, or keep one part of it with --from and --to")
        text = f"symbols must have bars of one length, was {_of(length, span)} for {name} and {interval_text(interval)} for most"
        raise DataError(f"{text}; resample first, or leave {name} out")


def check_series(rows: Rows, interval: int) -> None:
    """Refuse two series of different lengths under one name: rows of other values at times that repeat in longer steps. Rows are sorted."""
    twice = np.flatnonzero((np.diff(rows.code) == 0) & (np.diff(rows.time) == 0)) + 1
    before, after = rows.values[:, twice - 1], rows.values[:, twice]
    differs = np.any((before != after) & ~(np.isnan(before) & np.isnan(after)), axis=0)
    for (code, length), (n, *span) in count_steps(rows[twice[differs]]).runs.items():
        if length > interval / SHORTEST and n >= math.log(max(int(differs.sum()), 2) / CHANCE, 4.0):
            whole = rows.time[rows.code == code]
            text = two_lengths(rows.symbols[code], (interval, whole[[0, -1]].tolist()), (length, span))
            raise DataError(f"{text}, one among the other; keep the rows of one")


def check_longer(rows: Rows, interval: int) -> None:
    """Refuse longer bars that stand one by one among those of `interval`: a daily row on every second day. Rows are sorted.

    Such a row looks like one before a hole. What tells them apart: its range is that of the whole hole, `range * sqrt(bars)`, and where it
    closes the next row opens, while behind a hole the price has moved on; or there are `MANY` of such ranges, each before hours enough
    for a day: minutes before a halt have them too. Raises UserError with both spans.
    """
    step = np.where(np.diff(rows.code) == 0, np.diff(rows.time), 0)
    if not np.any(step >= 4 * interval):
        return
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.log(rows.values[1] / rows.values[2])[:-1]
        behind = np.abs(np.log(rows.values[0, 1:] / rows.values[3, :-1]))
    for code in np.unique(rows.code[:-1][step >= 4 * interval]).tolist():
        own = rows.code[:-1] == code
        ordinary = spread[own & (step == interval) & np.isfinite(spread)]
        usual = float(np.median(ordinary)) if len(ordinary) else 0.0
        lengths, counts = np.unique(step[own & (step >= 4 * interval)], return_counts=True)
        for length in lengths[counts >= LONE].tolist():
            at = np.flatnonzero(own & (step == length))
            if usual <= 0.0:
                continue
            wide, bars = spread[at] / usual, math.sqrt(length / interval)
            goes_on = np.median(wide) >= max(2.0, 0.7 * bars) and np.median(behind[at]) <= usual
            is_day = len(at) >= MANY and length >= max(16 * interval, SHORTEST * NS_PER_DAY)
            if goes_on or (is_day and np.quantile(wide, 0.25) >= 0.5 * bars):
                spans = (interval, rows.time[rows.code == code][[0, -1]].tolist()), (length, rows.time[at[[0, -1]]].tolist())
                text = f"{two_lengths(rows.symbols[code], *spans)}, {len(at):,} of these among the others"
                raise DataError(f"{text}; keep the rows of one, or resample first")


def two_lengths(name: str, usual: tuple[int, Sequence[int]], other: tuple[int, Sequence[int]]) -> str:
    """Begin the sentence that a symbol has two bar lengths, each with its span."""
    return f"{name} must have bars of one length, was {_of(*usual)} and {_of(*other)}"


def _of(length: int, span: Sequence[int]) -> str:
    return f"{interval_text(length)} ({iso(min(span))} to {iso(max(span))})"
