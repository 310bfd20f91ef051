"""Sweep case: bars and votes with everything that no setting changes, and the engine that a single setting is checked with."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars, Engine, Params, Votes
from qtcore.broker import last_traded
from qtcore.chain.price import maps_on, no_map
from qtcore.check import as_bars, as_votes
from qtcore.choices import FillAt
from qtcore.engine import Result
from qtcore.meta import MetaSource, meta_problems
from qtcore.metrics import metrics_of
from qtcore.sweep import Market, run_order, sweep_with_equity
from qtcore.sweep.plain import N_REGIMES, add_regimes
from qtcore.types import F8, I8, METRICS, NS_PER_DAY, REGIME_METRICS, slab
from research.data import bars_per_year
from research.runs.tables import longest_of, tested_stop
from research.training.models.layers import NONE, Layers
from research.training.predictions import Predictions, hash_votes
from research.training.regimes import regime_cells

MARKETS = 4  # that are kept: 60 MB each for 19 symbols and a year of hours
CELLS_AT_ONCE = 400_000_000  # cells times settings of one kernel call, about a second: Ctrl-C is heard between calls
EQUITY_AT_ONCE, LEAST_AT_ONCE = 2_000_000, 128  # settings times days whose equity is kept of one call, 16 MB; settings at least
MIN_ENDS = 120  # of a short test, which is cut finer than days
NO_ENDS = np.empty(0, np.int64)


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
        delay = np.array([fill.delay for fill in FillAt])[records["broker"]["fill"]]
        held = np.maximum(records["broker"]["max_holding_bars"], longest_of(self.votes))
        n: I8 = tested_stop(self.bars.n, self.last, delay, held) - self.first - 1
        return n

    def market(self, params: Params) -> Market:
        """Lay out what all settings with the features of `params` share; the last few are remembered."""
        key = repr((params.features, params.arbiter.macd_units, params.decide.rule, params.reads_beta))
        if key not in self._markets:
            result, rest = self.run_alone(params), slice(self.first, None)
            planes, probs, problem = result.planes, result.meta_probs, None
            if self.meta is not None and probs is not None:
                probs, problem = probs[:, rest], meta_problems(self.meta, self.bars.close_time[rest])
            cells = regime_cells(planes.regime[0], planes.regime[1])[rest] if self.by_regime else None
            opinion = planes.arbiter[:, rest], planes.regime[:, rest]
            pricing = None if result.pricing is None else result.pricing[:, rest]
            known = no_map(self.votes.n_horizons) if self.votes.maps is None else self.votes.maps
            maps = maps_on(known, self.bars.close_time[rest], len(self.bars.symbols))
            traded = last_traded(self.bars.close[: self.first], self.bars.volume[: self.first])
            self._markets[key] = Market.of(
                self.bars[rest], self.votes[rest], *opinion, cells, probs, problem, pricing, maps, traded, self.first
            )  # fmt: skip
            while len(self._markets) > MARKETS:
                self._markets.popitem(last=False)
        return self._markets[key]

    def run(self, records: NDArray, params: Params, ends: I8 = NO_ENDS) -> Iterator[tuple[NDArray, NDArray, NDArray, F8]]:
        """Run PARAMS [P] that share the features of `params`, some at a time.

        Yields their places [p], METRICS [p], REGIME_METRICS [p, 15] or [0, 15], and their equity [p, D] at the closes of the bars `ends`,
        counted from the first vote.
        """
        for some in self.cut(records, params):
            yield some, *sweep_with_equity(self.market(params), records[some], ends)

    def metrics(self, records: NDArray, params: Params) -> NDArray:
        """Run PARAMS [P] that share the features of `params`: METRICS [P]."""
        out = np.empty(len(records), METRICS)
        for some, measured, _, _ in self.run(records, params):
            out[some] = measured
        return out

    def cut(self, records: NDArray, params: Params) -> Iterator[I8]:
        """Cut PARAMS [P] that share the features of `params` into what one call of the kernels takes: the places of the settings."""
        days = int(self.bars.close_time[-1] - self.bars.close_time[self.first]) // NS_PER_DAY
        at_once = max(LEAST_AT_ONCE, min(CELLS_AT_ONCE // max(1, self.cells), EQUITY_AT_ONCE // max(MIN_ENDS, days)))
        order = np.arange(len(records))
        if at_once < len(order):
            order = run_order(self.market(params), records)  # pieces of it are as quick as the whole
        for start in range(0, len(order), at_once):
            yield order[start : start + at_once]

    def run_own(self, settings: Sequence[Params], ends: I8) -> tuple[NDArray, NDArray, F8]:
        """Run settings with own layers, one after the other through the engine; METRICS [P] and the rest as `run` yields them."""
        metrics, equity = np.empty(len(settings), METRICS), np.empty((len(settings), len(ends)))
        regimes = np.zeros((len(settings) if self.by_regime else 0, N_REGIMES), REGIME_METRICS)
        rest = slice(self.first, None)
        for i, params in enumerate(settings):
            result, metrics[i : i + 1] = self.single(params)
            equity[i] = result.equity[self.first :][ends]
            if self.by_regime:
                cells = np.ascontiguousarray(regime_cells(*result.planes.regime[:2])[rest])
                planes = (np.ascontiguousarray(plane[rest]) for plane in (result.governor_reason, result.pnl, result.equity))
                add_regimes(cells, 0, *planes, params.broker.initial_cash, slab(regimes[i]))
        return metrics, regimes, equity

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
        return result, metrics_of(result.equity[at], result.worth[at], result.fills, params.broker.initial_cash)
