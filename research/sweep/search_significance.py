"""Search significance: PBO, SPA and StepM over the returns of its own trials, beside what the ledger says of the best one.

The trials are run once more for their equity at the end of each day: all distinct outcomes up to 10,000, beyond that an even draw that
knows nothing of their figures (the best trial is not put in, which would make luck look rare). Memory does not grow with the trials.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.sweep import equity_at
from qtcore.types import F8, NS_PER_DAY
from research.evidence.overfitting import judge_search
from research.runs.case import Case
from research.sweep.trials import SweepResult
from research.training.scoring.bootstrap import block_length

SAMPLE = 10_000  # distinct outcomes that are judged at most
CELLS = 10_000_000  # of their table of returns: 80 MB
AT_ONCE = 1_024  # settings of one kernel call
MIN_PERIODS = 60  # fewer days than this, and time is cut finer: CUTS equal pieces
CUTS = 240


def judge(trials: SweepResult, evidence: Mapping[str, Any], max_holding_bars: int) -> dict[str, Any]:
    """Judge a sweep by the evidence of its best trial, run after all were recorded: `judge_search` over the trials' own returns.

    Further keys: `sampled` (trials in the table), `distinct` (outcomes there are), `periods` and `period` of the returns.
    """
    chosen, n_distinct = sample(trials)
    ends, period = periods(trials.case)
    about = {"sampled": len(chosen), "distinct": n_distinct, "periods": len(ends), "period": period}
    if len(chosen) < 2 or len(ends) < MIN_PERIODS:
        return judge_search(evidence) | about
    returns = returns_of(trials, chosen, ends)
    spread = returns.std(axis=0)
    best = int(np.argmax(returns.mean(axis=0) / np.where(spread > 0.0, spread, np.inf)))
    held = int(max_holding_bars * len(ends) / trials.case.bars.n) + 1
    return judge_search(evidence, returns, block=block_length([returns[:, best]], held)) | about


def sample(trials: SweepResult) -> tuple[NDArray[np.int64], int]:
    """Return trials of distinct outcomes, ascending, at most SAMPLE and as many as fit the table; and how many outcomes there are."""
    table = trials.table(["trial", "outcome"])
    _, first = np.unique(table["outcome"].to_numpy(np.uint64), return_index=True)
    distinct = table["trial"].to_numpy(np.int64)[first]
    limit = min(SAMPLE, CELLS // max(1, len(periods(trials.case)[0])))
    if len(distinct) > limit:
        distinct = np.random.default_rng(trials.space.seed).choice(distinct, limit, replace=False)
    return np.sort(distinct), len(first)


def periods(case: Case) -> tuple[NDArray[np.int64], str]:
    """Return the last bar of each UTC day, counted from the first vote, and `day`; equal pieces of a short test, and how many bars each."""
    ends, n = day_ends(case), case.bars.n - case.first
    if len(ends) >= MIN_PERIODS:
        return ends, "day"
    size = max(1, n // CUTS)
    return np.arange(size - 1, n, size), f"{size} bars" if size > 1 else "bar"


def day_ends(case: Case) -> NDArray[np.int64]:
    """Return the last bar of each UTC day, counted from the first vote."""
    day = (case.bars.close_time[case.first :] - 1) // NS_PER_DAY
    return np.flatnonzero(np.append(day[1:] != day[:-1], True))


def returns_of(trials: SweepResult, chosen: NDArray[np.int64], ends: NDArray[np.int64]) -> F8:
    """Run trials once more: net returns [len(ends), len(chosen)] from each of the bars `ends` to the next, the first from the start."""
    space, out = trials.space, np.empty((len(ends), len(chosen)))
    for start in range(0, len(chosen), AT_ONCE):
        drawn = space.pick(chosen[start : start + AT_ONCE])
        records, rows = space.records(drawn), slice(start, start + AT_ONCE)
        equity = np.empty((len(records), len(ends) + 1))
        equity[:, 0] = records["broker"]["initial_cash"]
        if trials.case.own.chain:
            equity[:, 1:] = trials.case.run_own(space.settings(drawn), ends)[2]
        markets, number = ([], np.empty(0)) if trials.case.own.chain else space.markets(drawn)
        for i, params in enumerate(markets):
            equity[number == i, 1:] = equity_at(trials.case.market(params), records[number == i], ends)
        before = equity[:, :-1].T
        out[:, rows] = np.where(before > 0.0, equity[:, 1:].T / np.where(before > 0.0, before, 1.0) - 1.0, 0.0)
    return out
