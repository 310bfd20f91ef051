"""Engine: the driver that takes a block of bars through the whole chain. Research passes every bar at once, live passes one."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qtcore.chain.advance import Stepper
from qtcore.chain.decide import decide, price_opinion
from qtcore.chain.flow import flow, flows
from qtcore.chain.horizons import hears_horizons
from qtcore.chain.price import BETA_NAME, VOLATILITY_NAME, carry_block, carry_weight, leans_of, maps_on, no_map, pricing_of
from qtcore.chain.trade import TradeState, cell_pnl, finish, run_trade, trade
from qtcore.check import as_bars, as_votes
from qtcore.choices import DecideRule
from qtcore.declare import time_text
from qtcore.features import FEATURES, Feature, FeatureBank, Planes, chosen, matrix
from qtcore.features.custom import own_features
from qtcore.meta import Hits, MetaSource, hit_bars, meta_problems, meta_probs
from qtcore.own_code import own_code
from qtcore.params import Params
from qtcore.rules import Reason
from qtcore.types import DEFAULT_HORIZON, F8, I8, MODELS, N_MODELS, Action, Bars, Decisions, InputError, Source, Votes


class Models(Protocol):
    """What the engine asks of base models: their inputs by name, and probabilities for a block."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Planes they take, in order."""
        ...

    @property
    def horizon(self) -> int:
        """Bars that their label looks ahead."""
        ...

    def serve(self, inputs: NDArray[np.float32], close_time: I8) -> F8:
        """Turn inputs [lookback - 1 + n, S, F], the earlier rows in front, into probabilities [5, n, S, 3 H], NaN where a model is absent.

        Models may also say `lookback`: rows of one symbol that a prediction sees, its own included, else 1; and who they are: `names`, one
        for each of the five slots (`qtcore.voters.slots_of`), else `MODELS`, and `slots`, those that take part, else all of `names`; and
        `maps`, MAP [H * F], those of a horizon by `start`: what their opinions are worth; and `n_horizons`, H, else 1 (`Votes`).
        """
        ...


Judge = Callable[[Votes, Planes, Params], tuple[NDArray[np.int8], F8]]


@dataclass(frozen=True)
class Result:
    """What the chain did with a block of n bars; `[n, S]` planes unless said otherwise.

    opinion: returns the decisions; a long block works them out anew, from votes and planes, when `decisions` is first read.
    final_action: int8 after the governor. governor_reason: uint8 `Reason`. size: approved notional, quote, signed. pnl: quote earned
    inside the bar. equity, balance, exposure, worth [n]: quote at the close; worth is that of what is held, long or short, exposure what
    the governor counts: entry notionals, with those of orders on their way. fills: `FILL` records. orders: (symbol, notional, exit
    reason) pending after the last bar; a positive notional buys at the next open, an exit reason closes. meta_probs [3, n, S]: SELL HOLD
    BUY of the learned meta model wherever it could answer, asked by a rule or not; None without a model. pricing [3, n, S]: what prices
    the opinions (`qtcore.chain.price`), None where nobody reads it.
    """

    bars: Bars
    planes: Planes
    votes: Votes
    opinion: Callable[[], Decisions]
    final_action: NDArray[np.int8]
    governor_reason: NDArray[np.uint8]
    size: F8
    pnl: F8
    equity: F8
    balance: F8
    exposure: F8
    worth: F8
    fills: NDArray
    orders: list[tuple[str, float, int]]
    meta_probs: F8 | None = None
    pricing: F8 | None = None

    @cached_property
    def decisions(self) -> Decisions:
        """What every layer said to every cell, before the governor."""
        return self.opinion()

    @property
    def open_time(self) -> I8:
        """Bar opens [n], ns UTC."""
        return self.bars.open_time

    @property
    def close_time(self) -> I8:
        """Decision times [n], ns UTC."""
        return self.bars.close_time

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the S columns."""
        return self.bars.symbols

    @property
    def cell_pnl(self) -> F8:
        """Quote earned from close t to close t+1, the PnL of cell t (`spec` D-94); the last row is 0.0."""
        return cell_pnl(self.pnl)


class Engine:
    """The chain with its state; batch is one block.

    >>> import numpy as np, qtcore as qt
    >>> time = 3_600_000_000_000 * np.arange(3)
    >>> price = np.full((3, 1), 100.0)
    >>> bars = qt.Bars(time, time + 3_600_000_000_000, price, price, price, price, price, ("BTCUSDT",), 3_600_000_000_000)
    >>> qt.Engine().run(bars).equity.tolist()
    [10000.0, 10000.0, 10000.0]
    """

    def __init__(
        self,
        params: Params | None = None,
        models: Models | None = None,
        *,
        meta_model: MetaSource | None = None,
        judge: Judge | None = None,
        trade: Callable[..., int] = trade,
        features: Iterable[str] = (),
        custom: Iterable[Feature] = (),
    ) -> None:
        """Start before the first bar.

        models: base models to ask when `run` gets no votes. meta_model: the learned model of the meta layer, or a schedule of them;
        without it the rules alone act. judge: an own opinion in NumPy instead of ensemble, meta and arbiter,
        `(votes, planes, params) -> (action [n, S], confidence [n, S])`. trade: an own trade loop from `rebind`. features: planes wanted in
        the result beside those that a layer reads; without models and judge nobody reads the model features, so they are not made.
        custom: own features.
        """
        params = params or Params()
        if params.broker.max_holding_bars == 0:
            horizon = DEFAULT_HORIZON if models is None else models.horizon
            params = params.with_values({"broker.max_holding_bars": horizon})
        self._names: tuple[str, ...] = getattr(models, "names", MODELS)
        if models is not None:
            params = params.for_voters(self._names, getattr(models, "slots", self._names))
        self.params, self.models, self.meta_model, self.judge = params, models, meta_model, judge
        self._trade, self._features, self._custom = trade, tuple(features), own_features(custom)
        self._maps, self._n_horizons, self._has_votes = no_map(), 1, False  # of the last block's votes, and whether there was one
        self._is_priced = params.decide.rule == DecideRule.EDGE
        self._symbols: tuple[str, ...] = ()
        self._interval, self._clock = 0, np.full(1, np.iinfo(np.int64).min)  # ns UTC: close of the last bar

    def run(self, bars: Bars, votes: Votes | None = None) -> Result:
        """Run the next block of closed bars through the chain.

        votes: what the base models said, else `models` are asked, else nobody votes. Their maps say what an opinion is worth; without any
        there is no edge, and nothing trades where `decide.rule` is edge. Raises InputError when the bars do not continue the block before,
        or do not fit the votes.
        """
        bars = as_bars(bars)
        self._continue(bars)
        planes = self.bank.compute(bars)
        votes = self._votes(bars, planes, votes)
        self._n_horizons, self._has_votes = votes.n_horizons, True
        self._maps = no_map(self._n_horizons) if votes.maps is None else votes.maps
        if self.judge is None:
            self.params.check_voters(votes.names)
        if self.judge is None and self.meta_model is None and flows(self.params, bars.close.size):
            with self._trading():
                traded = flow(bars, votes, planes, self.params, self.account, self._trade)
            later = partial(decide, votes, planes.arbiter, planes.regime, self.params)
            return Result(bars, planes, votes, later, **vars(traded), orders=self._orders())
        pricing = self._pricing(bars, planes)
        probs, problem = self._asked(bars, votes, planes)
        decisions = self._decide(bars, votes, planes, probs, problem, pricing)
        if self.judge is not None:
            self._judge(decisions, bars, votes, planes, pricing)
        with self._trading():
            said = decisions.raw_action, decisions.raw_confidence
            traded = run_trade(bars, *said, self.params, self.account, self._trade, decisions.money)
        return Result(bars, planes, votes, lambda: decisions, **vars(traded), orders=self._orders(), meta_probs=probs, pricing=pricing)

    def stepper(self) -> Stepper:
        """Return the live path: one closed bar in one compiled call on this engine's own state, the bits of `run`.

        The stepper checks nothing and asks no models: bars come in order, with their votes. After a `run` or `restore` ask for a new one.
        What opinions are worth it knows from the votes of the last `run`, else from the models. Raises InputError before the first `run` or
        `restore`, where something is not compiled (an own judge, own features, an own trade loop, a meta model), with stages, and where
        opinions need a price that nothing has told since the engine was made: a `state` holds no maps.
        """
        if not self._symbols:
            raise InputError("stepper must know the symbols, was asked before any bar; run the history (or restore a state) first")
        if self.judge is not None or self.meta_model is not None or self._custom or self._trade is not trade:
            raise InputError("stepper must run the compiled chain, was asked for an engine with own layers or a meta model; use run")
        if self.params.broker.impact > 0.0:
            raise InputError(f"stepper must run without broker.impact, was asked for {self.params.broker.impact:g}; use run")
        if self.params.stages:
            raise InputError(f"stepper must run one set of parameters, was asked for {len(self.params.stages)} stages; use run")
        maps = self._maps if self._has_votes else getattr(self.models, "maps", None)
        if self._is_priced and maps is None:
            raise InputError("stepper must know what opinions are worth, was asked before any votes; run a bar with its votes first")
        n_horizons = self._n_horizons if self._has_votes else getattr(self.models, "n_horizons", 1)
        known = no_map(n_horizons) if maps is None else maps
        return Stepper(self.params.record(), self.bank, self.account, self._clock, known, n_horizons)

    def finish(self) -> tuple[TradeState, NDArray]:
        """Close what is open at the last valid closes, on a copy of the account: END_OF_DATA (`spec` 10.6 m)."""
        return finish(self.account, int(self._clock[0]), self.params)

    @property
    def voters(self) -> tuple[str, ...]:
        """Who its models are, a name for each slot."""
        return self._names

    @property
    def state(self) -> dict[str, NDArray]:
        """Copies of every array that a later block depends on, by name."""
        features = {f"features.{name}": np.copy(array) for name, array in self.bank.state.items()}
        account = {f"account.{name}": np.copy(array) for name, array in vars(self.account).items()}
        if not np.any(self.account.lasts):  # as in a state from before 0.3, which knows of one horizon
            del account["account.lasts"]
        hits = {f"meta.hit_{name}": np.copy(array) for name, array in vars(self._hits).items()} if len(self._hits.before) else {}
        return {
            **features,
            **account,
            **hits,
            "meta.mean_confidence": self._mean_confidence.copy(),
            "models.rows": self._rows.copy(),
            "carry.mean": self._carry.copy(),
            "clock": self._clock.copy(),
        }

    def restore(self, state: dict[str, NDArray], symbols: Iterable[str], interval: int) -> None:
        """Continue from a `state` taken after some bar, on the same symbols and bar length (ns)."""
        self._bind(tuple(symbols), interval)
        self.bank.state = {name.removeprefix("features."): np.copy(a) for name, a in state.items() if name.startswith("features.")}
        for name in vars(self.account):
            if f"account.{name}" in state:  # a state from before 0.3 knows of no volume and no lengths: zeros
                setattr(self.account, name, np.copy(state[f"account.{name}"]))
        self._mean_confidence, self._rows = np.copy(state["meta.mean_confidence"]), np.copy(state["models.rows"])
        if "meta.hit_rate" in state:
            self._hits = Hits(np.copy(state["meta.hit_rate"]), np.copy(state["meta.hit_before"]))
        self._carry[:] = state.get("carry.mean", 0.0)  # a state from before 0.3 knows of no expected funding
        self._clock[:] = state["clock"]

    def _bind(self, symbols: tuple[str, ...], interval: int) -> None:
        self._symbols, self._interval = symbols, interval
        judged = () if self.judge is None else chosen(self.params.features.every_set, len(symbols))
        seen = judged if self.models is None else self.models.feature_names
        asked = () if self.meta_model is None else (name for name in self.meta_model.feature_names if name in FEATURES)
        self.params.check_book(len(symbols))
        priced = ((VOLATILITY_NAME,) if self._is_priced else ()) + ((BETA_NAME,) if self.params.reads_beta else ())
        wanted = dict.fromkeys((*seen, *asked, *priced, *self._features))
        self.bank = FeatureBank(self.params, symbols, interval, wanted, self._custom)
        self._carry = np.zeros(len(symbols))
        self.account = TradeState.fresh(self.params, len(symbols))
        self._mean_confidence, self._hits = np.full(len(symbols), np.nan), Hits.fresh(0, len(symbols))
        n_before, n_columns = (0, 0) if self.models is None else (getattr(self.models, "lookback", 1) - 1, len(self.models.feature_names))
        self._rows = np.full((n_before, len(symbols), n_columns), np.nan, np.float32)  # what windows still see of earlier blocks

    def _continue(self, bars: Bars) -> None:
        """Bind to the first block's symbols; every later block must continue it."""
        if not self._symbols:
            self._bind(bars.symbols, bars.interval)
        if bars.symbols != self._symbols or bars.interval != self._interval:
            raise InputError(f"bars must keep the symbols and interval of the first block {self._symbols}, was {bars.symbols}")
        if bars.n and bars.open_time[0] < self._clock[0]:
            last, first = time_text(int(self._clock[0])), time_text(int(bars.open_time[0]))
            raise InputError(f"bars must open at or after the last close {last}, was {first}; drop what was seen")
        if bars.n:
            self._clock[0] = bars.close_time[-1]

    def _votes(self, bars: Bars, planes: Planes, votes: Votes | None) -> Votes:
        n, n_symbols = bars.close.shape
        if self.models is not None:
            inputs = np.concatenate([self._rows, matrix(planes, self.models.feature_names)])
            self._rows = inputs[n:].copy()
            if votes is None:
                return Votes.from_probs(self.models.serve(inputs, bars.close_time), self._names, getattr(self.models, "maps", None))
        if votes is not None:
            return as_votes(votes, n, n_symbols)
        return Votes(np.full((N_MODELS, n, n_symbols), -1, np.int8), np.full((N_MODELS, n, n_symbols), np.nan), None, self._names)

    def _asked(self, bars: Bars, votes: Votes, planes: Planes) -> tuple[F8 | None, NDArray[np.int64]]:
        """Ask the learned meta model about every cell; where it is silent, the second answer [n] says why."""
        if self.meta_model is None:
            return None, np.full(bars.n, int(Reason.MODEL_NOT_LOADED))
        hits = self._hit_rates(bars, votes)
        probs = meta_probs(self.meta_model, votes, planes, self._mean_confidence, bars.close_time, hits)
        return probs, meta_problems(self.meta_model, bars.close_time)

    def _hit_rates(self, bars: Bars, votes: Votes) -> F8 | None:
        """Return how the voters' hit rates back each bet, None where the meta model reads none.

        They start afresh with a model that counts them over another horizon: what was decided before depends on bars and models alone, so a
        journal whose meta layer was exchanged replays to the same bits.
        """
        horizon = hit_bars(self.meta_model)
        if horizon != len(self._hits.before):
            self._hits = Hits.fresh(horizon, len(bars.symbols))
        if horizon == 0:
            return None
        return self._hits.advance(leans_of(votes), bars.close)

    def _decide(
        self, bars: Bars, votes: Votes, planes: Planes, probs: F8 | None, problem: NDArray[np.int64], pricing: F8 | None
    ) -> Decisions:
        """Decide the block, every stage of the parameters with its own."""
        spans = self.params.spans(bars.close_time)
        if len(spans) == 1:
            maps = maps_on(self._maps, bars.close_time, len(bars.symbols))
            return decide(votes, planes.arbiter, planes.regime, spans[0][1], probs, meta_problem=problem, pricing=pricing, maps=maps)
        has_horizons = hears_horizons(self.params.record(), votes.n_horizons)
        out = Decisions.empty(bars.n, len(bars.symbols), self._is_priced, self.params.is_book, has_horizons)
        for rows, params in spans:
            meta, prices = (None if a is None else a[:, rows] for a in (probs, pricing))
            maps = maps_on(self._maps, bars.close_time[rows], len(bars.symbols))
            seen = votes[rows], planes.arbiter[:, rows], planes.regime[:, rows]
            part = decide(*seen, params, meta, meta_problem=problem[rows], pricing=prices, maps=maps)
            out.slabs[0][:, rows], out.slabs[1][:, rows] = part.slabs
        return out

    def _pricing(self, bars: Bars, planes: Planes) -> F8 | None:
        """Return what prices the opinions of the block, None where nobody reads it."""
        if not self._is_priced:
            return None
        carry = None
        if bars.funding is not None:
            carry = np.empty(bars.close.shape)
            carry_block(bars.funding, carry_weight(self._interval), self._carry, carry)
        return pricing_of(planes[VOLATILITY_NAME], carry, planes[BETA_NAME] if self.params.reads_beta else None)

    def _judge(self, decisions: Decisions, bars: Bars, votes: Votes, planes: Planes, pricing: F8 | None) -> None:
        """Put the own opinion in the place of the chain's, in place; the ensemble's stays beside it for comparison."""
        assert self.judge is not None
        shape = decisions.raw_action.shape
        with own_code("judge must return actions and confidences"):
            action, confidence = self.judge(votes, planes, self.params)
            action, confidence = np.require(action, np.int8, ["C", "W"]), np.require(confidence, np.float64, ["C", "W"])
        if action.shape != shape or confidence.shape != shape:
            raise InputError(f"judge must return two arrays of shape {list(shape)}, was {list(action.shape)} and {list(confidence.shape)}")
        if np.any((action < Action.SELL) | (action > Action.BUY)):
            raise InputError(f"judge must return actions 0, 1 or 2, was {action.min()} to {action.max()}")
        decisions.raw_action[:], decisions.raw_confidence[:], decisions.source[:] = action, confidence, Source.META
        if pricing is not None and decisions.edge is not None:
            first = self._maps[: len(self._maps) // votes.n_horizons]  # it has one horizon
            price_opinion(action, confidence, pricing, maps_on(first, bars.close_time, len(bars.symbols)), self.params, decisions)

    def _trading(self) -> AbstractContextManager[None]:
        return nullcontext() if self._trade is trade else own_code("trade must run as a trade loop")

    def _orders(self) -> list[tuple[str, float, int]]:
        """List what is pending for the next open."""
        positions = self.account.positions
        at = np.flatnonzero((positions["pending_notional"] != 0.0) | (positions["pending_exit"] != 0))
        return [(self._symbols[s], float(positions[s]["pending_notional"]), int(positions[s]["pending_exit"])) for s in at]
