"""Sweep case: bars and votes with everything that no setting changes, and the engine that a single setting is checked with."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars, Engine, Params, Votes
from qtcore.chain.price import maps_on, no_map
from qtcore.check import as_bars, as_votes
from qtcore.engine import Result
from qtcore.meta import MetaSource, meta_problems
from qtcore.metrics import metrics_of
from qtcore.sweep import Market, sweep
from qtcore.sweep.plain import N_REGIMES, add_regimes
from qtcore.types import F8, I8, METRICS, REGIME_METRICS, slab
from research.data import bars_per_year
from research.training.models.layers import NONE, Layers
from research.training.predictions import Predictions, hash_votes
from research.training.regimes import regime_cells

MARKETS = 4  # that are kept: 60 MB each for 19 symbols and a year of hours
CELLS_AT_ONCE = 400_000_000  # cells times settings of one kernel call, about a second: Ctrl-C is heard between calls


@dataclass
class Case:
    """Bars and out-of-sample votes of one sweep.

    first: bar of the first vote; before it nothing can happen, so settings are run from there. last: bar of the last vote. meta: the
    learned meta layer, None where the rules alone act. own: layers of the user's in the place of the chain's; settings are then run alone.
    """

    bars: Bars
    votes: Votes
    by_regime: bool
    first: int
    last: int
    meta: MetaSource | None = None
    own: Layers = NONE
    _markets: "OrderedDict[str, Market]" = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, bars: Bars, predictions: Predictions, by_regime: bool = False, meta: MetaSource | None = None, own: Layers = NONE) -> Self:
        """Check bars and predictions on the same grid."""
        checked = as_bars(bars)
        votes = as_votes(predictions.votes(), *checked.close.shape)
        voted = np.flatnonzero((votes.action >= 0).any(axis=(0, 2)))
        first, last = (int(voted[0]), int(voted[-1])) if len(voted) else (0, checked.n - 1)
        return cls(checked, votes, by_regime, first, last, meta, own)

    @property
    def cells(self) -> int:
        """Bars and symbols that a setting visits."""
        return (self.bars.n - self.first) * len(self.bars.symbols)

    @cached_property
    def bars_per_year(self) -> float:
        """Bars a year by the data's own calendar."""
        return bars_per_year(self.bars)

    def n_returns(self, records: NDArray) -> I8:
        """Count the returns that are evidence: from the first vote until positions of the last one have run out, as in a run's summary."""
        stop = np.minimum(self.bars.n, self.last + records["broker"]["max_holding_bars"] + 2)
        n: I8 = stop - self.first - 1
        return n

    def market(self, params: Params) -> Market:
        """Lay out what all settings with the features of `params` share; the last few are remembered."""
        key = repr((params.features, params.arbiter.macd_units, params.decide.rule))
        if key not in self._markets:
            result, rest = self.run_alone(params), slice(self.first, None)
            planes, probs, problem = result.planes, result.meta_probs, None
            if self.meta is not None and probs is not None:
                probs, problem = probs[:, rest], meta_problems(self.meta, self.bars.close_time[rest])
            cells = regime_cells(planes.regime[0], planes.regime[1])[rest] if self.by_regime else None
            opinion = planes.arbiter[:, rest], planes.regime[:, rest]
            pricing = None if result.pricing is None else result.pricing[:, rest]
            known = no_map() if self.votes.maps is None else self.votes.maps
            maps = maps_on(known, self.bars.close_time[rest], len(self.bars.symbols))
            self._markets[key] = Market.of(self.bars[rest], self.votes[rest], *opinion, cells, probs, problem, pricing, maps)
            while len(self._markets) > MARKETS:
                self._markets.popitem(last=False)
        return self._markets[key]

    def run(self, records: NDArray, params: Params) -> tuple[NDArray, NDArray]:
        """Run PARAMS [P] that share the features of `params`: METRICS [P] and REGIME_METRICS [P, 15] or [0, 15]."""
        market = self.market(params)
        parts = [sweep(market, some) for some in self.cut(records)]
        metrics, regimes = zip(*parts, strict=True)
        return np.concatenate(metrics), np.concatenate(regimes)

    def run_own(self, settings: Sequence[Params]) -> tuple[NDArray, NDArray]:
        """Run settings with own layers, one after the other through the engine: METRICS [P] and REGIME_METRICS [P, 15] or [0, 15]."""
        metrics = np.empty(len(settings), METRICS)
        regimes = np.zeros((len(settings) if self.by_regime else 0, N_REGIMES), REGIME_METRICS)
        rest = slice(self.first, None)
        for i, params in enumerate(settings):
            result, metrics[i : i + 1] = self.single(params)
            if self.by_regime:
                cells = np.ascontiguousarray(regime_cells(*result.planes.regime[:2])[rest])
                planes = (np.ascontiguousarray(plane[rest]) for plane in (result.governor_reason, result.pnl, result.equity))
                add_regimes(cells, 0, *planes, params.broker.initial_cash, slab(regimes[i]))
        return metrics, regimes

    def equity_of(self, settings: Sequence[Params], ends: I8) -> F8:
        """Run settings with own layers and return their equity at the closes of the bars `ends`, counted from the first vote, [P, D]."""
        return np.stack([self.run_alone(params).equity[self.first :][ends] for params in settings])

    def cut(self, records: NDArray) -> list[NDArray]:
        """Cut PARAMS [P] into what one call of the kernels takes."""
        step = max(128, CELLS_AT_ONCE // max(1, self.cells))
        return [records[start : start + step] for start in range(0, len(records), step)]

    def predictions_hash(self, params: Params) -> str:
        """Name what the models said, as a single run of `params` does in the ledger."""
        votes, own = hash_votes(self.votes), getattr(self.meta, "hash", "")
        said = votes
        if self.meta is not None and (self.run_alone(params).decisions.meta_action >= 0).any():
            said = hashlib.sha256(f"{votes} {own}".encode()).hexdigest()[: len(votes)]
        if self.own.chain and self.own.hash:
            said = hashlib.sha256(f"{said} {self.own.hash}".encode()).hexdigest()[: len(votes)]
        return said

    def run_alone(self, params: Params) -> Result:
        """Run one setting through the engine."""
        return Engine(params, meta_model=self.meta, **self.own.engine).run(self.bars, self.votes)

    def single(self, params: Params) -> tuple[Result, NDArray]:
        """Run one setting through the engine: its result and the METRICS that its row must have."""
        result = self.run_alone(params)
        at = slice(self.first, None)
        return result, metrics_of(result.equity[at], result.exposure[at], result.fills, params.broker.initial_cash)
