"""Live runner: a closed bar becomes a decision, an order and a line in the journal, and what follows a crash is repaired.

One bar, in this order: the broker lets it pass and reports fills; the engine runs it; both ledgers are compared; the journal commits
everything as one transaction; then orders are sent. A crash between two of these steps is repaired at the start: the engine returns to
the newest snapshot, runs the journalled bars after it again, the account must come out with the journalled bits, and what the broker may
have missed is sent once more under the same ids. The bar that was not committed is decided again, from the same state, with the same ids;
if the broker has let it pass already, from the candles that the broker saw and before anything that was commanded since.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from qtcore import Bars, Engine, Params, Votes
from qtcore.check import as_bars
from qtcore.engine import Models
from qtcore.meta import MetaSource
from qtcore.types import N_MODELS
from research.data.jumps import REMEMBERED
from research.errors import UserError
from research.live.broker.orders import Broker
from research.live.broker.paper import audited
from research.live.feeds.feeds import GRACE, Arrival, Assembler, Feed
from research.live.journal.journal import Entry, Journal
from research.live.records import Event, iso
from research.live.session.working import WorkingOrders
from research.live.storage.codec import digest_of, maps_of
from research.live.storage.files import guarded
from research.training.models.layers import NONE, Layers
from research.training.predictions import Predictions

SNAPSHOT_BARS = 24  # bars between full snapshots of a replay; live keeps one every bar
CHECKPOINT_BARS = 240  # bars between checkpoints of a replay: each syncs the disk


class Controls(Protocol):
    """Who may change parameters between bars."""

    def params(self, bar: int, now: int) -> tuple[Params, str] | None:
        """Return other parameters from `bar` on, which closed at `now` ns UTC, with their cause, None for no change."""
        ...


class BarHook(Protocol):
    """Something done between bars, such as serving promoted models or raising an alarm. What it returns is noted with the next commit."""

    def before(self, runner: "Runner", bar: int, now: int) -> Iterable[Event]:
        """Act before `bar`, which closed at `now` ns UTC, is decided."""
        ...

    def after(self, runner: "Runner", entry: Entry) -> Iterable[Event]:
        """Act after a bar is in the journal and its orders are sent."""
        ...


@dataclass
class Options:
    """How the runner works.

    snapshot_bars, checkpoint_bars: bars between full states, and between moves of the log into the file. budget: ns allowed from a closed
    bar to the journal.
    """

    snapshot_bars: int = 1
    checkpoint_bars: int = 1
    grace: int = GRACE
    budget: int = 250_000_000
    fills_gaps: bool = True


@dataclass(frozen=True)
class LiveResult:
    """What a runner did. bars: decided in this process; latency: ns of each, newest 10,000; resumed: bars that the journal already held.

    orders: sent in this process; gross, edge: the largest before and after costs that it decided on, fractions, NaN where no opinion has a
    price.
    """

    bars: int
    resumed: int
    equity: float
    latency: tuple[int, ...] = ()
    is_stopped: bool = False
    orders: int = 0
    gross: float = np.nan
    edge: float = np.nan


Watcher = Callable[[Entry], None]
Passed = Callable[[str], None]


@dataclass
class Runner:
    """The chain on paper.

    predictions: stored votes on the bars of a replay; models: asked where there are none. meta: learned model of the meta layer.
    models_about: their versions, for the journal. controls: changes parameters between bars. layers: the user's own.
    prepare: called with the engine before
    the first bar of a new journal. watchers: called after every committed bar. duties: asked before and after every bar, in this order.
    meta_of: finds the meta layer of an earlier version of the journal by what the version says of its models. ready: called when history
    or journal are done with and the first bar is awaited. heard: called with whatever the feed yields. feed_code: what
    the feed is asked in, so that its own errors name it. passed: called at points where a
    crash must be harmless (`changed`, `filled`, `committed`, `submitted`), for tests.
    """

    params: Params
    feed: Feed
    journal: Journal
    broker: Broker
    predictions: Predictions | None = None
    models: Models | None = None
    meta: MetaSource | None = None
    models_about: Mapping[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    controls: Controls | None = None
    layers: Layers = NONE
    prepare: Callable[[Engine], None] = lambda engine: None
    watchers: tuple[Watcher, ...] = ()
    duties: tuple[BarHook, ...] = ()
    meta_of: Callable[[Mapping[str, Any]], MetaSource | None] | None = None
    ready: Callable[[], None] = lambda: None
    feed_code: Callable[[], AbstractContextManager[None]] = nullcontext
    heard: Callable[[Arrival], None] = lambda arrival: None
    passed: Passed = lambda point: None

    def __post_init__(self) -> None:
        self.stopping = False
        own = self.layers.chain | {"custom": self.layers.features}
        self.engine = Engine(self.params, models=self.models, meta_model=self.meta, **own)
        self.params = self.engine.params
        self._row = {} if self.predictions is None else {int(t): i for i, t in enumerate(self.predictions.close_time)}
        self._votes = None if self.predictions is None else self.predictions.votes()
        if self.predictions is not None and self.predictions.symbols != self.feed.symbols:
            raise UserError(
                f"predictions must be on the symbols of the feed {self.feed.symbols}, was {self.predictions.symbols}; choose --symbols"
            )
        self._assembler = Assembler(self.feed.symbols, self.feed.interval, self.options.grace, fills_gaps=self.options.fills_gaps)
        self._orders = WorkingOrders(self.feed.symbols)
        self._version, self._clock, self._bar = 1, 0, -1
        self._told = 1  # last version that an event tells of
        self._is_killing = False
        self._since_snapshot, self._since_checkpoint = 0, 0
        self._n_orders, self._gross, self._edge = 0, np.nan, np.nan
        self._pending_events: list[Event] = []

    def stop(self, *_: Any) -> None:
        """End after the bar that is being decided; usable as a signal handler."""
        self.stopping = True

    def serve(self, bar: int, models: Models | None, meta: MetaSource | None, about: Mapping[str, Any], cause: str) -> None:
        """Ask other models from `bar` on. Positions, features and the rows that windows see stay; the caller knows that the models fit."""
        self.models = self.engine.models = models
        self.meta = self.engine.meta_model = meta
        self.models_about = about
        self._version = self.journal.change(bar, self.params, about, cause)
        self.passed("changed")

    def run(self) -> LiveResult:
        """Take bars until the feed ends or `stop` is called. Raises UserError where the journal cannot be continued."""
        with guarded(self.journal.path):
            resumed = self._resume()
        self.ready()
        latency: list[int] = []
        n_bars, begun, clock = 0, self.broker.last_bar(), self._clock
        if begun is not None and 0 < self._clock == int(begun.open_time[0]):  # it died between the broker's file and the journal
            latency.append(self._decide(begun, [], time.time_ns()))
            n_bars += 1
        assembler = self._assembler
        assembler.clock = clock or None  # of a bar that was begun and decided again the feed says once more what was wrong
        for arrival in self._arrivals(clock):
            received = time.time_ns()
            assembler.add(arrival)
            if told := [*arrival.events, *assembler.settle()]:  # at once: what was said of a decided bar is not said again after a crash
                self.journal.note(told, self._bar, self._doubts(self._bar))
            self.heard(arrival)
            while not self.stopping and (ready := assembler.ready(arrival.now)) is not None:
                if int(ready[0].close_time[0]) <= self._clock:
                    self.journal.note(ready[1], self._bar, self._doubts(self._bar))
                    continue
                latency.append(self._decide(*ready, received))
                n_bars += 1
            if len(latency) > 10_000:
                del latency[:5_000]
            if self.stopping:
                break
        if self._pending_events:
            self.journal.note(self._pending_events, self._bar)
        if self._since_snapshot and n_bars:
            self._keep_state()
        equity = float(self.engine.account.account[0]["equity"])
        return LiveResult(n_bars, resumed, equity, tuple(latency), self.stopping, self._n_orders, self._gross, self._edge)

    def _arrivals(self, clock: int) -> Iterator[Arrival]:
        with self.feed_code():
            arrivals = iter(self.feed.arrivals(clock))
        while True:
            with self.feed_code():
                if (arrival := next(arrivals, self)) is self:  # nothing that a feed could yield
                    return
                if not isinstance(arrival, Arrival):
                    raise TypeError(f"arrivals must yield Arrival, was {type(arrival).__name__}")
            yield arrival

    def _decide(self, bars: Bars, events: list[Event], received: int) -> int:
        start = time.perf_counter_ns()
        bar = self._bar + 1
        events += self._pending_events
        self._pending_events = []
        self._change_params(bar, int(bars.close_time[0]))
        for duty in self.duties:
            events += duty.before(self, bar, int(bars.close_time[0]))
        events += self._announced(int(bars.close_time[0]))
        self._cancel_killed()
        reported = self.broker.advance(bars, self.params)
        self.passed("filled")
        before = self.engine.account.account[0].copy()
        result = self.engine.run(bars, self._votes_at(int(bars.close_time[0])))
        account = self.engine.account
        events += audited(before, account.account[0], result, reported)
        self._since_snapshot += 1
        is_snapshot = self._since_snapshot >= self.options.snapshot_bars
        entry = Entry(
            bar, result, received, 0, self._version, account.account, account.positions, account.closed, events=events,
            state=self.engine.state if is_snapshot else None, doubts=self._doubts(bar),
        )  # fmt: skip
        self._orders.settle(entry)
        entry.latency = time.perf_counter_ns() - start
        self.journal.commit(entry)
        latency = time.perf_counter_ns() - start
        self.passed("committed")
        self._n_orders += len(entry.orders)
        said = result.decisions
        if said.gross_edge is not None and said.edge is not None:
            self._gross = float(np.fmax.reduce(said.gross_edge, axis=None, initial=self._gross))
            self._edge = float(np.fmax.reduce(said.edge, axis=None, initial=self._edge))
        self._note_latency(bar, int(bars.close_time[0]), latency)
        self.broker.cancel([id_ for id_, state in entry.done if state != "filled"])
        self.broker.submit(entry.orders)
        self.passed("submitted")
        self._bar, self._clock = bar, int(bars.close_time[0])
        if is_snapshot:
            self._since_snapshot = 0
        self._since_checkpoint += 1
        if self._since_checkpoint >= self.options.checkpoint_bars:
            self._checkpoint()
        for watch in self.watchers:
            watch(entry)
        for duty in self.duties:
            self._pending_events += duty.after(self, entry)
        return latency

    def _doubts(self, bar: int) -> dict[str, Any] | None:
        """Return the counts of candles after `bar` where they are more than the candles since: a page of the disk, not with every bar."""
        doubts = self._assembler.doubts
        return doubts.state(bar) if doubts.is_changed or bar % CHECKPOINT_BARS == 0 else None

    def _note_latency(self, bar: int, now: int, latency: int) -> None:
        """Leave what a bar took, its own commit included, to the transaction of the next one."""
        self.journal.measured = (bar, latency)
        if latency > self.options.budget:
            text = f"bar {bar}: {latency / 1e6:.0f} ms from the closed bar to the journal, allowed are {self.options.budget / 1e6:.0f}"
            self._pending_events.append(Event(now, "slow", text))

    def _cancel_killed(self) -> None:
        """Drop pending entries under the kill switch before the market can fill them, as the engine does at its next bar."""
        if self.params.governor.emergency_stop:
            self.broker.cancel([order.id for order in self._orders.all() if order.kind == "entry"])

    def _change_params(self, bar: int, now: int) -> None:
        """Ask for other parameters; not at a bar that the broker saw with these ones, or dropped entries for, before a crash."""
        is_begun, self._is_killing = self._is_killing or self.broker.clock >= now, False
        if self.controls is None or is_begun:
            return
        with self.journal.transaction():  # a command is taken together with what it changes
            if (changed := self.controls.params(bar, now)) is None or changed[0] == self.params:
                return
            self.params, cause = changed
            self.engine.params = self.params
            self._version = self.journal.change(bar, self.params, self.models_about, cause)
        self.passed("changed")

    def _announced(self, now: int) -> list[Event]:
        """Tell of versions that no event tells of yet, one of a change before a crash included."""
        if self._version == self._told:
            return []
        causes, self._told = self.journal.causes(self._told), self._version
        return [Event(now, kind, cause) for kind, cause in causes]

    def _votes_at(self, close_time: int) -> Votes | None:
        if self._votes is None:
            return None
        if (row := self._row.get(close_time)) is not None:
            return self._votes[row : row + 1]
        silent = self._nobody(1)
        if self._votes.probs is not None:  # of as many horizons as the maps
            silent = replace(silent, probs=np.full((*silent.action.shape, self._votes.probs.shape[3]), np.nan))
        return replace(silent, maps=self._votes.maps)

    def _nobody(self, n: int) -> Votes:
        """Return the votes of nobody on n bars, which are worth nothing."""
        shape = (N_MODELS, n, len(self.feed.symbols))
        return Votes(np.full(shape, -1, np.int8), np.full(shape, np.nan), None, self.journal.voters)

    def _checkpoint(self) -> None:
        self.journal.checkpoint()
        self.broker.checkpoint()
        self._since_checkpoint = 0

    def _keep_state(self) -> None:
        """Write the state where the run ends, so that the next start has nothing to run again."""
        self.journal.keep(self._bar, self._clock, self.engine.state)
        self._since_snapshot = 0
        self._checkpoint()

    def _resume(self) -> int:
        """Stand where the journal ends: state, account, open orders. Returns the number of bars that it holds."""
        kept = self.journal.snapshot()
        if kept is None:
            self._begin()
            return 0
        bar, self._clock, state = kept
        check_rows(self.models, state)
        self.engine.restore(state, self.feed.symbols, self.feed.interval)
        versions = self.journal.versions()
        maps = {version: maps_of(about) for version, (_, about) in versions.items()}
        wanted, wanted_models = self.params, dict(self.models_about)
        for number, bars, votes, version in self.journal.bars_after(bar):
            self.engine.params = versions[version][0]
            if self.meta_of is not None:
                self.engine.meta_model = self.meta_of(versions[version][1])
            self.engine.run(bars, replace(votes, maps=maps[version]))
            bar, self._clock = number, int(bars.close_time[0])
        self.engine.meta_model = self.meta
        self._check_account(bar)
        self._bar = bar
        for _, bars, *_ in self.journal.bars_after(bar - REMEMBERED):
            self._assembler.remember(bars)
        if (counts := self.journal.doubts()) is not None:
            self._assembler.doubts.restore(counts)
            for _, bars, *_ in self.journal.bars_after(counts["bar"]):
                self._assembler.doubts.rows += ~np.isnan(bars.close[0])
        self._version, self._told = max(versions), self.journal.last_version()
        self._orders.restore(self.journal.open_orders())
        self._catch_up()
        if self._clock < (seen := self.broker.clock) - self.feed.interval:
            text = f"the journal ends at bar {bar}, the broker saw bars until {iso(seen)}: the end of its log was lost and is decided again"
            self._pending_events.append(Event(self._clock, "lost_bars", text))
        known, known_models = versions[self._version]
        self.params = self.engine.params = known
        self._is_killing = known.governor.emergency_stop and not versions[self._told][0].governor.emergency_stop
        if (wanted != known and self.controls is None) or wanted_models != known_models:
            self._check_continues(known, wanted)
            self.params = self.engine.params = wanted
            self._version = self.journal.change(bar + 1, wanted, wanted_models, "restarted with other parameters or models")
        return self._bar + 1

    @staticmethod
    def _check_continues(known: Params, wanted: Params) -> None:
        if known.features != wanted.features:
            raise UserError("features.* must stay those of the journal, was changed; start a new --journal for other features")

    def _begin(self) -> None:
        """Run history through features and regime as one block; nobody votes, so the account stays flat."""
        with self.feed_code():
            history = None if (told := self.feed.history()) is None else as_bars(told)
        if history is None:
            empty, none = np.empty((0, len(self.feed.symbols))), np.empty(0, np.int64)
            history = Bars(none, none, empty, empty, empty, empty, empty, self.feed.symbols, self.feed.interval)
        self.engine.run(history, self._nobody(history.n))
        self._assembler.remember(history)
        self.prepare(self.engine)
        self._bar = history.n - 1
        self._clock = int(history.close_time[-1]) if history.n else 0
        self.journal.begin(
            self._bar, self._clock, self.engine.state, self.params, self.models_about, self._assembler.doubts.state(self._bar)
        )

    def _check_account(self, bar: int) -> None:
        last, account = self.journal.last_bar(), self.engine.account
        if last is not None and (last[0] != bar or last[2] != digest_of(account.account, account.positions)):
            raise UserError(
                f"journal must give its own account again, did not at bar {bar} in {self.journal.path}; it was written by another "
                "version of this program, use that one or a new --journal"
            )

    def _catch_up(self) -> None:
        """Give the broker what it may have missed: after a power loss bars and orders, after a crash the orders of the last bar."""
        last = self._bar if self.broker.clock >= self._clock else self.journal.bar_at(self.broker.clock)
        given, dropped = self.journal.given(last), self.journal.dropped(last)
        versions = self.journal.versions()
        for number, bars, _, version in self.journal.bars_after(last):
            params = versions[version][0]
            self.broker.cancel(dropped.get(number - 1, []))
            self.broker.submit(given.get(number - 1, []))
            if params.governor.emergency_stop:
                self.broker.cancel(dropped.get(number, []))
            self.broker.advance(bars, params)
        self.broker.cancel(dropped.get(self._bar, []))
        self.broker.submit(self._orders.all())


def check_rows(models: Models | None, state: Mapping[str, Any]) -> None:
    """Raise UserError where a state, kept or running, does not hold what the models' windows look at. models: None for stored votes."""
    if models is None:
        return
    n_rows, _, n_columns = state["models.rows"].shape
    lookback = getattr(models, "lookback", 1)
    if lookback > n_rows + 1 or len(models.feature_names) != n_columns:
        raise UserError(
            f"models must take {n_columns} features and see at most {n_rows + 1} bars, as the journal keeps them, was "
            f"{len(models.feature_names)} and {lookback}; start a new --journal with them"
        )
