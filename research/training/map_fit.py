"""Map fitting: what the opinions of each fold are worth, from the trades that had ended before it began.

The rows of a fold are predicted by models that were fitted before it, so the leans that a map learns from are out of sample. A fold also
gets factors of the voters' weights from their log loss on earlier folds, shrunk towards equal ones, and a map of the arbiter's score.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qtcore.arbiter import score_cells
from qtcore.chain.decide import decide
from qtcore.chain.outcome import outcomes
from qtcore.chain.price import VOLATILITY_NAME, costs_rule, no_map, pricing_of
from qtcore.features import FeatureBank
from qtcore.params import Params
from qtcore.types import F8, I8, N_MODELS, Bars, Votes
from research.training.edge import EdgeMap, blocks_of, fit_win, leaning
from research.training.maps import MapSchedule

SHRUNK = 30.0  # blocks of earlier folds after which a voter's log loss counts as much as equal weights
SMALL = 0.01  # nats: a difference of log losses that says little
TINY = 1e-15  # probabilities are at least this before the logarithm


@dataclass(frozen=True)
class Trades:
    """What every cell of a market would have earned, and what is known of it. [n, S], results and ends [2, n, S]: of a short and a long."""

    bars: Bars
    params: Params
    pricing: F8
    planes: Any
    results: F8
    ends: I8
    block: I8
    score: F8

    @classmethod
    def of(cls, bars: Bars, votes: Votes, params: Params) -> Self:
        """Work out the trades of `bars`; params: with a horizon."""
        bank = FeatureBank(params, bars.symbols, bars.interval, (VOLATILITY_NAME,))
        planes = bank.compute(bars)
        results, ends = outcomes(bars, params)
        score = np.empty(bars.close.size)
        score_cells(planes.arbiter.reshape(len(planes.arbiter), -1), score)
        block = blocks_of(bars.close_time, params.broker.max_holding_bars * bars.interval)
        return cls(bars, params, pricing_of(votes, planes[VOLATILITY_NAME]), planes, results, ends, block, score.reshape(bars.close.shape))

    @property
    def volatility(self) -> F8:
        """Of a bar's return, [n, S]."""
        return self.planes[VOLATILITY_NAME]

    def lean(self, votes: Votes, rows: slice, map_: NDArray) -> F8:
        """Return how far the ensemble leans on some rows, [m, S]. map_: MAP [1], whose factors weigh."""
        planes = self.planes.arbiter[:, rows], self.planes.regime[:, rows]
        found = decide(votes[rows], *planes, self.params, pricing=self.pricing[:, rows], maps=map_).lean
        assert found is not None
        return found

    def fit(self, lean: F8, stop: int) -> tuple[EdgeMap, F8]:
        """Fit a map, and how often a trade pays, on the trades of `lean` [n, S] that had ended before row `stop`."""
        before = slice(0, stop)
        known = np.where(self.ends[:, before] < stop, self.results[:, before], np.nan)
        result, block = leaning(lean[before], known), np.repeat(self.block[before, None], lean.shape[1], axis=1)
        broker = self.params.broker
        won = fit_win(lean[before], result, costs_rule(broker.fee_rate, broker.slippage_rate))
        return EdgeMap.fit(lean[before], self.volatility[before], result, block), won


def fit_maps(bars: Bars, votes: Votes, labels: NDArray[np.int8], label_rows: int, starts: Sequence[int], params: Params) -> MapSchedule:
    """Fit one map for each period of `bars`; the periods begin at the rows `starts`, ascending, the last ends with the bars.

    votes: out of sample, absent before the first period. labels int8 [n, S]: -1 unknown, known `label_rows` rows later. params: the
    chain's, with `decide.rule = edge` and a horizon.
    """
    params = params.with_values({"meta.enabled": False, "arbiter.enabled": False, "decide.rule": "edge", "meta.mode": "bet"})
    trades = Trades.of(bars, votes, params)
    lean, maps, evidence = np.zeros(bars.close.shape), [], []
    for start, stop in pairwise([*starts, bars.n]):
        row = no_map()
        row["start"] = bars.close_time[start]
        row["factors"] = voter_factors(votes, labels, trades.block, start - label_rows)
        opinion, win = trades.fit(lean, start)
        arbiter, arbiter_win = trades.fit(np.nan_to_num(trades.score), start)
        row["slope"], row["variance"], row["win"] = opinion.lower, opinion.variance, win
        row["arbiter_variance"], row["arbiter_win"] = arbiter.variance, arbiter_win
        lean[start:stop] = trades.lean(votes, slice(start, stop), row)
        maps.append(row)
        evidence.append({"ensemble": _told(opinion), "arbiter": _told(arbiter)})
    return MapSchedule(np.concatenate(maps), tuple(evidence), params.flat())


def _told(fitted: EdgeMap) -> dict[str, Any]:
    """Return a map's fields as JSON holds them: no infinite error."""
    return {name: None if value == np.inf else value for name, value in asdict(fitted).items()}


def voter_factors(votes: Votes, labels: NDArray[np.int8], block: I8, stop: int) -> F8:
    """Return factors [5] of the voters' weights: how much lower each one's log loss is than the class shares', on rows before `stop`.

    Where few blocks of time are known they are near 1; so they are for a voter without probabilities or without better ones.
    """
    factors = np.ones(N_MODELS)
    if votes.probs is None or stop <= 0:
        return factors
    truth, skill, known_blocks = labels[:stop], np.full(N_MODELS, np.nan), 0
    for m in range(N_MODELS):
        probs = votes.probs[m, :stop]
        known = (truth >= 0) & ~np.isnan(probs).any(axis=-1)
        if not known.any():
            continue
        classes = truth[known].astype(np.int64)
        shares = np.bincount(classes, minlength=3) / len(classes)
        base = -np.mean(np.log(np.maximum(shares, TINY))[classes])
        loss = -np.mean(np.log(np.maximum(probs[known][np.arange(len(classes)), classes], TINY)))
        skill[m] = max(0.0, float(base - loss))
        known_blocks = max(known_blocks, len(np.unique(block[:stop][known.any(axis=1)])))
    told = ~np.isnan(skill)
    if told.any():
        share = known_blocks / (known_blocks + SHRUNK)
        factors[told] = 1.0 + share * ((skill[told] + SMALL) / (np.mean(skill[told]) + SMALL) - 1.0)
    return factors
