"""Data deficiencies in counted sentences: holes, missing volume, jumps, prices that stand still, and symbols that can never vote."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from qtcore.features import FeatureBank, chosen
from qtcore.params import Params
from qtcore.types import F8, Bars
from research.data.jumps import JUMP, Moves
from research.data.rules import PROBLEMS, Issue, present

SPLITS = np.log([1.5, *range(2, 11), 12, 15, 20, 25, 30, 40, 50, 100, 1_000])  # 3:2, 2:1, 3:1, ...
NEAR, LEAST = 4.0, 0.01  # usual moves, and share, that a split may be off its ratio: the market moves too
FROZEN = 10  # bars with one price
BLOCK = 1_024  # rows of features at a time


def measure(bars: Bars, came: NDArray[np.bool_] | None = None) -> list[Issue]:
    """Count what never stops a run, symbol by symbol. came [n, S]: rows that the source had, where some of them are holes now."""
    issues = []
    rest, jumped, same = _movers(bars.close), jump_plane(bars), _same(bars.close)
    for s, name in enumerate(bars.symbols):
        rows = np.flatnonzero(~np.isnan(bars.close[:, s]))
        there = rows if came is None else np.flatnonzero(came[:, s])
        if not len(rows):
            continue
        span = there[-1] - there[0] + 1
        absent = np.setdiff1d(np.arange(there[0], there[-1]), there) if span > len(there) else there[:0]
        split = _splits(bars.open[rows, s], bars.close[rows, s], jumped[rows, s] & ~rest[rows])
        still = (np.diff(bars.close[rows, s]) == 0.0) & (bars.high[rows[1:], s] == bars.low[rows[1:], s])
        told = {
            "gap": (absent, int(span)),
            "zero_volume": (rows[bars.volume[rows, s] == 0.0], len(rows)),
            "jump": (np.flatnonzero(jumped[:, s]), len(rows)),
            "split": (rows[split], len(rows)),
            "same": (rows if same[s] else rows[:0], len(rows)),
            "frozen": (rows[_long_runs(np.append(False, still))], len(rows)),
        }
        issues += [Issue(name, what, len(at), of, int(bars.open_time[at[0]]), "told") for what, (at, of) in told.items() if len(at)]
    return issues


def _same(close: F8) -> list[bool]:
    """Say which symbols have the closes of one before them, bar by bar; one price alone says nothing."""
    columns = [close[:, s].tobytes() for s in range(close.shape[1])]
    moves = [bool(np.any(np.diff(close[~np.isnan(close[:, s]), s]))) for s in range(close.shape[1])]
    return [moves[s] and columns[s] in columns[:s] for s in range(len(columns))]


def jump_plane(bars: Bars) -> NDArray[np.bool_]:
    """Say which closes jump against those before them [n, S]."""
    code = np.repeat(np.arange(len(bars.symbols), dtype=np.int32), bars.n)
    return Moves(len(bars.symbols)).block(code, bars.close.T.reshape(-1)).reshape(-1, bars.n).T


def jumps(bars: Bars) -> list[Issue]:
    """Count the closes that jump, symbol by symbol: what live says of each as it comes."""
    plane, of = jump_plane(bars), (~np.isnan(bars.close)).sum(axis=0).tolist()
    firsts, counts = bars.open_time[plane.argmax(axis=0)].tolist(), plane.sum(axis=0).tolist()
    return [Issue(bars.symbols[s], "jump", n, of[s], firsts[s], "told") for s, n in enumerate(counts) if n]


def unclosed(bars: Bars) -> list[Issue]:
    """Count the candles whose bar has not closed yet by the clock of this machine, symbol by symbol."""
    late = np.flatnonzero(bars.close_time > present())
    here = ~np.isnan(bars.close[late])
    counts, of = here.sum(axis=0).tolist(), (~np.isnan(bars.close)).sum(axis=0).tolist()
    firsts = [int(bars.open_time[late[here[:, s]][0]]) if n else 0 for s, n in enumerate(counts)]
    return [Issue(bars.symbols[s], "unclosed", n, of[s], firsts[s], "told") for s, n in enumerate(counts) if n]


def sentences(issues: Iterable[Issue]) -> list[str]:
    """Say each problem once: how many rows of how many symbols, and where most of them are."""
    by_problem: dict[tuple[str, str], list[Issue]] = {}
    for issue in issues:
        by_problem.setdefault((issue.problem, issue.action), []).append(issue)
    return [_together(by_problem[key]) for key in sorted(by_problem, key=lambda key: list(PROBLEMS).index(key[0]))]


def _together(issues: Sequence[Issue]) -> str:
    worst = max(issues, key=lambda issue: issue.count)
    if len(issues) == 1:
        return worst.text.removesuffix("; told")
    first = min(issues, key=lambda issue: issue.first)
    whole = Issue(
        f"{len(issues)} symbols", worst.problem, sum(i.count for i in issues), sum(i.of for i in issues), first.first, worst.action
    )
    return f"{whole.text.removesuffix('; told')}; most in {worst.symbol} ({worst.count:,})"


def _movers(close: F8) -> NDArray[np.bool_]:
    """Say at which rows another symbol jumps too: half of those that trade, the market rather than a split [n]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        moves = np.abs(np.diff(np.log(close), axis=0, prepend=np.nan))
    known = ~np.isnan(moves)
    n_jumps, n_known = (moves > np.log1p(JUMP)).sum(axis=1), known.sum(axis=1)
    return np.asarray((n_jumps > 1) & (2 * n_jumps >= n_known))


def _splits(open_: F8, close: F8, jump: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark those jumps of one symbol, while the others are quiet, that look like a split in hindsight.

    A split is a round ratio between two closes that lies between the bars, not in one, and stays.
    """
    moves = np.append(0.0, np.diff(np.log(close)))
    usual = float(np.median(np.abs(moves[1:]))) if len(moves) > 1 else 0.0
    split = np.zeros(len(close), bool)
    slack = max(NEAR * usual, LEAST)
    for t in np.flatnonzero(jump):
        beside = np.abs(np.append(moves[t - 1], moves[t + 1 : t + 2]))  # a spike comes back
        is_between = np.log(open_[t] / close[t - 1]) / moves[t] >= 0.8
        split[t] = is_between and np.min(np.abs(abs(moves[t]) - SPLITS)) <= slack and np.all(beside <= 0.5 * abs(moves[t]))
    return split


def _long_runs(still: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the rows of every run of `FROZEN` or more rows with one price; `still` says that a row repeats the price before it."""
    edges = np.flatnonzero(np.diff(still.astype(np.int8), prepend=0, append=0))
    marks = np.zeros(len(still), bool)
    for start, stop in zip(edges[::2], edges[1::2]):
        if stop - start + 1 >= FROZEN:
            marks[start - 1 : stop] = True
    return marks


def mute(bars: Bars, params: Params | None = None) -> dict[str, str]:
    """Name the symbols that can never vote, and why: the features that models read are complete at none of their bars.

    The features are computed block by block until each symbol has had a complete bar, so bars without many holes cost little.
    """
    params = params or Params()
    names = chosen(params.features.every_set, len(bars.symbols))
    bank = FeatureBank(params, bars.symbols, bars.interval, names=names)
    known = np.zeros((len(names), len(bars.symbols)), bool)  # the feature was known at a valid bar of the symbol
    ready = np.zeros(len(bars.symbols), bool)
    for start in range(0, bars.n, BLOCK):
        planes = bank.compute(bars[start : start + BLOCK], reuse=True)
        finite = np.stack([np.isfinite(planes[name]) & planes.valid for name in names])
        known |= finite.any(axis=1)
        ready |= finite.all(axis=0).any(axis=0)
        if np.all(ready):
            return {}
    late = np.flatnonzero(~ready).tolist()
    return {bars.symbols[s]: _cause(bars, s, params, [n for n, k in zip(names, known[:, s]) if not k]) for s in late}


def _cause(bars: Bars, s: int, params: Params, unknown: list[str]) -> str:
    rows = np.flatnonzero(~np.isnan(bars.close[:, s]))
    n, name, warmup = len(rows), bars.symbols[s], params.features.warmup
    if n <= warmup:
        return f"{name} can never vote: it has {n:,} candles, and its features need more than {warmup:,}"
    span = int(rows[-1] - rows[0]) + 1
    text = f"{name} can never vote: its features are never complete ({', '.join(unknown[:3]) or 'all at one bar'}"
    text += f" and {len(unknown) - 3} more)" if len(unknown) > 3 else ")"
    if n == span:
        return text
    longest = int(np.max(np.diff(np.flatnonzero(np.diff(rows, prepend=-2, append=bars.n + 2) != 1))))
    text += f": {n:,} of the {span:,} rows between its first and last candle have one, at most {longest:,} in a row"
    return f"{text}, and a feature needs four fifths of its window; leave it out, or run it alone"


def rare(bars: Bars, usable: NDArray[np.bool_], warmup: int) -> tuple[str, ...]:
    """Say that holes leave less than half of the candles with features; usable [n, S]: cells whose features are complete."""
    here = ~np.isnan(bars.close)
    due = np.maximum(here.sum(axis=0) - warmup, 0)
    has = usable.sum(axis=0)
    few = np.flatnonzero((has > 0) & (2 * has < due))
    if not len(few):
        return ()
    n, of = int(has[few].sum()), int(here[:, few].sum())
    name = bars.symbols[few[0]] if len(few) == 1 else f"{len(few)} symbols"
    return (f"{name}: features are complete at {n:,} of {of:,} candles ({n / of:.1%}), for holes break their windows",)


def no_vote(causes: Sequence[str]) -> str:
    """Say that no symbol at all can vote, and why; causes: as `mute` gives them, none where features of the user's own are unknown."""
    if not causes:
        return "data must have a bar at which all features are known, was without; see the features of your own"
    more = f" ({len(causes) - 1} more symbol{'s' * (len(causes) > 2)} likewise)" if len(causes) > 1 else ""
    return f"data must have a symbol that can vote, was without: {causes[0]}{more}"
