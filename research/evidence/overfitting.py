"""Backtest overfitting tests: what a search as a whole is worth, from the returns of all its trials. Is the best better than luck?

- `overfitting`: probability of backtest overfitting by combinatorially symmetric cross-validation (Bailey, Borwein, Lopez de Prado, Zhu
  2017): in how many ways of halving time does the best of one half fall into the worse half of the other?
- `superiority`: Hansen's test of superior predictive ability (2005) and Romano and Wolf's StepM (2005): does any trial beat the
  benchmark, and which ones?
- `confidence_set`: which trials cannot be told from the best (Hansen, Lunde, Nason 2011); `discoveries`: Benjamini and Hochberg.

Own where 10,000 trials must take seconds: all resampled means are one matrix product, all halves of time another. `arch` resamples one by
one and does not studentise its SPA; it and ffn are the oracles of the tests. Measured 2026-11 on one shared core, 10,000 trials x
1,000 days: PBO with 16 blocks 7 s, SPA and StepM with 1,000 resamples 1 s, the deflated ratio of each 2 s.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8
from research.errors import UserError
from research.training.scoring.bootstrap import Bootstrap

HALVES_AT_ONCE = 1_000_000  # cells (halves of time x trials) that are in memory at once
SIGNIFICANT = 0.05
MAX_SET = 200  # trials that a model confidence set compares pair by pair


@dataclass(frozen=True)
class Overfitting:
    """PBO. ranks [combinations]: relative rank in (0, 1) of the in-sample winner out of sample; 0.5 is the median.

    probability: share of ranks at or below the median, 0.5 for pure noise; mean_rank: their mean.
    """

    probability: float
    mean_rank: float
    ranks: F8


@dataclass(frozen=True)
class Superiority:
    """SPA and StepM. lower, consistent, upper: p-values of "no trial beats the benchmark"; the consistent one is meant.

    best: column of the highest t value; better: columns that beat the benchmark with family-wise error `size`; t [N]: t values.
    """

    lower: float
    consistent: float
    upper: float
    best: int
    better: NDArray[np.int64]
    t: F8


def overfitting(returns: F8, n_blocks: int = 16) -> Overfitting:
    """Measure the probability of backtest overfitting from returns [T, N] of all N trials, in order of time.

    Rows beyond a multiple of `n_blocks` are left out at the end. The measure is the Sharpe ratio per row; a trial that does not move in
    a half has 0 there. The first of equal winners counts, equals out of sample share their rank. Raises UserError on less than two
    trials or two rows a block.

    >>> overfitting(np.random.default_rng(0).normal(size=(800, 20)), 10).probability < 0.9
    True
    """
    returns = _table(returns)
    if n_blocks < 2 or n_blocks % 2 or len(returns) < 2 * n_blocks or returns.shape[1] < 2:
        raise UserError(
            f"PBO must have an even number of blocks of two rows or more and two trials, was {n_blocks} blocks of {returns.shape}; "
            "use fewer blocks or a longer test"
        )
    size = len(returns) // n_blocks
    cut = returns[: size * n_blocks].reshape(n_blocks, size, -1)
    return overfitting_of_blocks(np.full(n_blocks, size), cut.sum(axis=1), (cut**2).sum(axis=1))


def overfitting_of_blocks(counts: NDArray[np.int64], sums: F8, squares: F8) -> Overfitting:
    """Measure PBO from what is left of each block: rows counts [B], sums and sums of squares of returns [B, N].

    A sweep keeps these instead of its returns: memory does not grow with the bars.
    """
    ranks = [rank for half in _halves(len(counts), sums.shape[1]) for rank in _ranks(half, counts, sums, squares)]
    both = np.concatenate(ranks)
    return Overfitting(float(np.mean(both <= 0.5)), float(np.mean(both)), both)


def _halves(n_blocks: int, n_trials: int) -> Iterator[F8]:
    """Yield which blocks are in sample, 0/1 rows [c, B], some at a time: those with block 0; the complements are the others."""
    rows = [[0, *rest] for rest in combinations(range(1, n_blocks), n_blocks // 2 - 1)]
    mask = np.zeros((len(rows), n_blocks))
    np.put_along_axis(mask, np.array(rows), 1.0, axis=1)
    step = max(1, HALVES_AT_ONCE // n_trials)
    for start in range(0, len(mask), step):
        yield mask[start : start + step]


def _ranks(half: F8, counts: NDArray[np.int64], sums: F8, squares: F8) -> tuple[F8, F8]:
    """Relative ranks out of sample of the winners of these halves, and of the winners of their complements."""
    one, other = (_ratios(mask @ counts, mask @ sums, mask @ squares) for mask in (half, 1.0 - half))
    return _rank_of_winner(one, other), _rank_of_winner(other, one)


def _ratios(n: F8, sums: F8, squares: F8) -> F8:
    """Sharpe ratio per row of each half and trial; 0 where nothing moved."""
    n = n[:, None]
    spread = squares - sums * sums / n
    moved = spread > 1e-12 * squares
    out: F8 = np.where(moved, sums / n / np.sqrt(np.where(moved, spread / (n - 1.0), 1.0)), 0.0)
    return out


def _rank_of_winner(chosen_on: F8, judged_on: F8) -> F8:
    winner = np.take_along_axis(judged_on, chosen_on.argmax(axis=1)[:, None], axis=1)
    below, equal = (judged_on < winner).sum(axis=1), (judged_on == winner).sum(axis=1)
    ranks: F8 = (below + (equal + 1) / 2.0) / (judged_on.shape[1] + 1.0)
    return ranks


def superiority(
    returns: F8,
    benchmark: F8 | None = None,
    block: float = 10.0,
    n_resamples: int = 1_000,
    *,
    size: float = 0.05,
    is_studentised: bool = True,
    seed: int = 42,
) -> Superiority:
    """Test whether any of N trials beats `benchmark` (returns [T], default 0) on returns [T, N]: SPA p-values and StepM's winners.

    block: mean length in rows of the stationary bootstrap, which takes all trials of a row together. is_studentised: divide by each
    trial's own uncertainty (Hansen); without, trials with the largest variance decide (as in White's reality check and `arch`). Trials
    that never move cannot win. Raises UserError on less than 30 rows.
    """
    returns = _table(returns)
    n = len(returns)
    if n < 30:
        raise UserError(f"SPA must have 30 rows of returns or more, was {n}; test a longer period")
    above = returns if benchmark is None else returns - np.asarray(benchmark, np.float64)[:, None]
    mean = above.mean(axis=0)
    resampled = Bootstrap(n, block, n_resamples, seed).sums(above)
    resampled /= n
    omega = np.sqrt(n * resampled.var(axis=0))
    moves = omega > 1e-12 * np.sqrt(np.mean(above**2, axis=0))
    scale = math.sqrt(n) / np.where(moves, omega, np.inf)
    t = mean * scale  # 0 where nothing moves
    resampled *= scale
    near = t >= -math.sqrt(2.0 * math.log(math.log(n)))
    scores = t if is_studentised else np.where(moves, math.sqrt(n) * mean, 0.0)
    if not is_studentised:
        resampled *= np.where(moves, omega, 0.0)
    highest = max(float(scores.max()), 0.0)
    centres = (np.maximum(scores, 0.0), np.where(near, scores, 0.0), scores)
    lower, consistent, upper = (float(np.mean(np.maximum(_highest(resampled, c), 0.0) >= highest)) for c in centres)  # 1 if none is above 0
    better = _step_down(resampled, centres[1], scores, size)
    return Superiority(lower, consistent, upper, int(scores.argmax()), better, t)


def _highest(resampled: F8, centre: F8, columns: NDArray[np.int64] | None = None) -> F8:
    """Highest centred score of each resample, a part of the resamples at a time."""
    pick = slice(None) if columns is None else columns
    parts = [(resampled[b : b + 50, pick] - centre[pick]).max(axis=1) for b in range(0, len(resampled), 50)]
    return np.concatenate(parts)


def _step_down(resampled: F8, centre: F8, scores: F8, size: float) -> NDArray[np.int64]:
    """Romano and Wolf: reject those above the critical value of the highest, then again among the rest, until none is."""
    left, better = np.arange(len(scores)), np.empty(0, np.int64)
    while len(left):
        critical = np.quantile(_highest(resampled, centre, left), 1.0 - size)
        won = scores[left] > max(float(critical), 0.0)
        if not won.any():
            break
        better, left = np.concatenate([better, left[won]]), left[~won]
    return np.sort(better)


def confidence_set(returns: F8, size: float = 0.10, block: int = 10, n_resamples: int = 1_000, seed: int = 42) -> NDArray[np.int64]:
    """Return the columns of returns [T, N] that cannot be told from the best, as `arch` finds them; at most 200 columns."""
    from arch.bootstrap import MCS

    returns = _table(returns)
    if returns.shape[1] > MAX_SET:
        raise UserError(f"a model confidence set compares pairs of at most {MAX_SET} trials, was {returns.shape[1]}; pass the best ones")
    found = MCS(-returns, size=size, block_size=block, reps=n_resamples, seed=seed)  # it takes losses
    found.compute()
    return np.sort(np.asarray(found.included, np.int64))


def discoveries(p_values: F8, rate: float = 0.10) -> NDArray[np.bool_]:
    """Mark the tests to believe so that the expected share of false ones is `rate` (Benjamini and Hochberg); NaN is never believed."""
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p_values, np.float64)
    out, known = np.zeros(len(p), bool), ~np.isnan(p)
    if known.any():
        out[known] = multipletests(p[known], alpha=rate, method="fdr_bh")[0]
    return out


def judge_search(evidence: Mapping[str, Any], returns: F8 | None = None, n_blocks: int = 16, block: float = 10.0) -> dict[str, Any]:
    """Judge a search by its best setting, run after all its trials were recorded: the verdict of `spec` D-98.

    evidence: that of the best run's summary. returns [T, N]: net returns, one column a trial (daily ones, or a sample of the trials);
    PBO, SPA and StepM stand beside the verdict, None without them. Result: `verdict`, `sentence`, `alpha`, `test`, `trials`; of the best
    one `deflated`, `probabilistic` and the `minimum_track_record_bars` with its `n_bars`; `pbo`, the winner's `mean_rank` out of sample
    (0 to 1) over `halves` of `blocks`; `spa` (the consistent p-value) with `spa_lower`, `spa_upper`; `better`, the trials that StepM
    calls better than doing nothing; `block`.
    """
    sharpe = evidence["sharpe"]
    out = {name: evidence[name] for name in ("verdict", "sentence", "alpha", "test", "trials")}
    out |= {name: sharpe.get(name) for name in ("deflated", "probabilistic", "minimum_track_record_bars", "n_bars")}
    out |= dict.fromkeys(("pbo", "mean_rank", "halves", "blocks", "spa", "spa_lower", "spa_upper", "better", "block"))
    if returns is None or returns.shape[1] < 2 or len(returns) < 30:
        return out
    blocks = min(n_blocks, len(returns) // 4 * 2)
    fit, spa = overfitting(returns, blocks), superiority(returns, block=block)
    out |= {"pbo": fit.probability, "mean_rank": fit.mean_rank, "halves": len(fit.ranks), "blocks": blocks}
    return out | {"spa": spa.consistent, "spa_lower": spa.lower, "spa_upper": spa.upper, "better": len(spa.better), "block": block}


def search_words(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Say what `judge_search` found, a row a question that has an answer: (what, figure, judgement, how it was found).

    The rules: a PBO of 0.5 or more is what noise gives; below 0.05 a p-value, above 0.95 a probability of skill says something.
    """
    rows = []
    if found["pbo"] is not None:
        luck = "no better than noise" if found["pbo"] >= 0.5 else "noise gives 50 %"
        how = f"PBO by CSCV: of {found['halves']:,} ways to halve time, those where the best of one half was below the median in the other"
        rows.append(("picking the best fails", f"{100.0 * found['pbo']:.1f} %", luck, how))
        skill = "more than luck" if found["spa"] < SIGNIFICANT else "luck explains the best"
        how = "Hansen's SPA: how often the best of as many settings without skill looks as good; below 0.05 needed"
        rows.append(("chance of such a best without skill", f"{found['spa']:.3f}" if found["spa"] >= 0.001 else "below 0.001", skill, how))
        how = "Romano and Wolf's StepM: 5 % chance that one is named wrongly"
        rows.append(("settings better than doing nothing", f"{found['better']:,}", "one by one", how))
    if found["deflated"] is not None:
        alone, count = "as if it were the only one", f"over {found['trials']['trials']:,} trials on these candles"
        rows.append(
            ("skill of the best, alone", f"{found['probabilistic']:.3f}", alone, "probabilistic Sharpe: that the true ratio is above 0")
        )
        how = "deflated Sharpe: that it beats what the best of so many shows by luck; one absurd setting makes it small; decides nothing"
        rows.append(("skill of the best, after the search", f"{found['deflated']:.3f}", count, how))
    need, given = found["minimum_track_record_bars"], found["n_bars"]
    if need is not None and given:
        there = f"{'enough, ' if need <= given else ''}{given:,} tested"
        rows.append(
            ("bars needed to be sure, alone", f"{need:,.0f}", there, "minimum track record length at 95 %, as if it were the only setting")
        )
    return rows


def _table(returns: F8) -> F8:
    found = np.asarray(returns, np.float64)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise UserError(f"returns must be a table [rows, trials] without NaN, was of shape {found.shape}; put 0 where nothing was held")
    return found
