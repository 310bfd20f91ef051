"""Does a layer of my own keep the promises that ours keep? Each broken rule is named.

    check_layer(my_feature)          a function bars -> [n, S], or a `Feature` as `FeatureBank(custom=...)` takes it
    check_layer(my_judge)            f(votes, planes, params) -> (action [n, S], confidence [n, S]), as `Engine(judge=...)` takes it
    check_layer(my_govern_step)      a kernel with the arguments of `govern_step`, as `rebind(trade, govern_step=...)` takes it

The layer is run on awkward bars (holes, a late listing, a delisting, a jump) in one block, in random blocks and bar by bar, with another
future, with symbols in another order, and its inputs are compared before and after. A clean report is no proof of profit.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Engine, FeatureBank, Params, rebind
from qtcore.chain.trade import TradeState, run_trade, trade
from qtcore.governor import govern_step
from qtcore.types import NEVER, NS_PER_HOUR, Action, Bars, Reason, Votes
from research.errors import UserError
from research.verify.causality import cut_points, first_difference, rewrite_future
from research.verify.parity import random_future

N_BARS, N_SYMBOLS = 240, 4
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
Arrays = dict[str, NDArray]


@dataclass(frozen=True)
class Rule:
    """One rule: kept, or broken with a sentence that says where."""

    name: str
    broken: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.broken or 'kept'}"


@dataclass(frozen=True)
class LayerReport:
    """What `check_layer` found."""

    kind: str
    rules: tuple[Rule, ...]

    @property
    def passed(self) -> bool:
        """Were all rules kept?"""
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the broken rules."""
        return tuple(rule.name for rule in self.rules if rule.broken)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return "\n".join([f"{self.kind}: {'passed' if self.passed else 'FAILED'}", *(f"  {rule}" for rule in self.rules)])


def check_layer(layer: Any, kind: str | None = None, params: Params | None = None, seed: int = 0) -> LayerReport:
    """Try a researcher's own layer and name the rules it breaks.

    kind: `feature`, `judge` or `govern_step`; by default told from the arguments. params: what the layer is run with.
    Raises UserError when the kind cannot be told.

    >>> from research.verify import check_layer
    >>> check_layer(lambda bars: bars.high - bars.low).failed
    ()
    >>> check_layer(lambda bars: bars.close / bars.close[-1]).failed
    ('future', 'cutting')
    """
    kinds: dict[str, Callable[[Any, Params, int], Iterator[Rule]]] = {
        "feature": _feature_rules,
        "judge": _judge_rules,
        "govern_step": _govern_rules,
    }
    kind = kind or _kind_of(layer)
    if kind not in kinds:
        raise UserError(f"kind must be one of {', '.join(kinds)}, was {kind!r}")
    return LayerReport(kind, tuple(kinds[kind](layer, params or Params().with_values({"broker.max_holding_bars": 5}), seed)))


def _kind_of(layer: Any) -> str:
    if not callable(layer):
        return "feature"
    names = list(inspect.signature(getattr(layer, "py_func", layer)).parameters)
    kinds = {1: "feature", 3: "judge", len(_step_arguments()): "govern_step"}
    if len(names) not in kinds:
        raise UserError(
            f"kind must be told for a layer with {len(names)} arguments, was without; pass kind='feature', 'judge' or 'govern_step'"
        )
    return kinds[len(names)]


def _step_arguments() -> list[str]:
    return list(inspect.signature(getattr(govern_step, "py_func", govern_step)).parameters)


def awkward_world(seed: int = 0) -> tuple[Bars, Votes]:
    """Make hourly bars with holes, a late listing, a delisting, a constant price and a jump, and random votes on them."""
    rng = np.random.default_rng(seed)
    n, width = N_BARS, N_SYMBOLS
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, (n, width)), axis=0))
    open_ = np.vstack([close[:1], close[:-1]])
    high, low = np.maximum(open_, close) * 1.003, np.minimum(open_, close) * 0.997
    volume = rng.lognormal(6.0, 1.0, (n, width))
    for plane in (open_, high, low, close):
        plane[90:110, 2] = plane[90, 2]
        plane[150:, 3] *= 10.0
    volume[60:75, 0] = 0.0
    holes = rng.integers(0, n, 6)
    for plane in (open_, high, low, close, volume):
        plane[:40, 1] = np.nan
        plane[200:, 2] = np.nan
        plane[120:123] = np.nan
        plane[holes, 0] = np.nan
    time = NS_PER_HOUR * (470_000 + np.arange(n, dtype=np.int64))
    bars = Bars(time, time + NS_PER_HOUR, open_, high, low, close, volume, SYMBOLS, NS_PER_HOUR)
    action = rng.integers(0, 3, (5, n, width)).astype(np.int8)
    confidence = rng.uniform(0.4, 1.0, action.shape)
    absent = (rng.random(action.shape) < 0.2) | np.isnan(close)
    return bars, Votes(np.where(absent, -1, action).astype(np.int8), np.where(absent, np.nan, confidence))


def _blocks(n: int, seed: int) -> list[list[int]]:
    """Two ways to cut: at random, and bar by bar."""
    return [[0, *cut_points(n, 7, seed), n], list(range(n + 1))]


def _differs(what: str, expected: Arrays, found: Arrays, rows: int | None = None) -> str:
    for name, array in expected.items():
        gap = first_difference(name, array[:rows], found[name][:rows])
        if gap is not None:
            symbol = "" if gap.symbol is None else f" of {SYMBOLS[gap.symbol]}"
            return f"{what}: {gap.name}{symbol} differs first at bar {gap.bar}, {gap.left:g} against {gap.right:g}"
    return ""


def _attempt(name: str, check: Callable[[], str]) -> Rule:
    """Run one check; an exception breaks its rule."""
    try:
        return Rule(name, check())
    except Exception as error:  # the layer is a stranger's code: whatever it raises is the finding
        return Rule(name, f"raised {type(error).__name__}: {error}")


def _arrays_of(*things: Any) -> list[NDArray]:
    """Every array reachable from dataclasses, one level deep."""
    found: list[NDArray] = []
    for thing in things:
        values = [thing] if isinstance(thing, np.ndarray) else list(vars(thing).values())
        found += [v for v in values if isinstance(v, np.ndarray)]
    return found


def _mutates(call: Callable[[], Any], inputs: list[NDArray]) -> str:
    before = [array.tobytes() for array in inputs]
    call()
    changed = sum(array.tobytes() != old for array, old in zip(inputs, before))
    return f"{changed} of its input arrays were changed; work on copies" if changed else ""


def _fresh(thing: Any) -> Any:
    """Copy bars or votes with their arrays: what one call does to its inputs may not reach the next."""
    return replace(thing, **{name: value.copy() for name, value in vars(thing).items() if isinstance(value, np.ndarray)})


def _permuted(bars: Bars, order: NDArray[np.int64]) -> Bars:
    planes: dict[str, Any] = {k: np.ascontiguousarray(getattr(bars, k)[:, order]) for k in ("open", "high", "low", "close", "volume")}
    return replace(bars, symbols=tuple(bars.symbols[i] for i in order), **planes)


def _feature_rules(layer: Any, params: Params, seed: int) -> Iterator[Rule]:
    bars, _ = awkward_world(seed)
    is_function = inspect.isroutine(layer)
    raw = layer if is_function else _bank_of(layer, params)

    def compute(world: Bars) -> Any:
        return raw(_fresh(world))

    try:
        whole = np.asarray(compute(bars))
    except Exception as error:  # see _attempt
        yield Rule("runs", f"raised {type(error).__name__}: {error}")
        return
    yield Rule("runs")
    right = whole.shape == bars.close.shape and whole.dtype == np.float64
    yield Rule("shape", "" if right else f"must be float64 {list(bars.close.shape)}, was {whole.dtype} {list(whole.shape)}")
    if not right:
        return
    yield Rule("nan_rows", _holes(whole, bars))
    yield _attempt("mutated_input", lambda: _spoils(raw, bars))
    yield _attempt("repeatable", lambda: _differs("run twice", {"feature": whole}, {"feature": compute(bars)}))
    yield _attempt("future", lambda: _future(compute, bars, whole, seed))
    yield _attempt("cutting", lambda: _cut_feature(None if is_function else layer, compute, params, bars, whole, seed))
    order = np.random.default_rng(seed).permutation(N_SYMBOLS)
    moved = {"feature": np.ascontiguousarray(whole[:, order])}
    yield _attempt("symbol_order", lambda: _differs("symbols permuted", moved, {"feature": compute(_permuted(bars, order))}))


def _spoils(compute: Callable[[Bars], Any], bars: Bars) -> str:
    given = _fresh(bars)
    return _mutates(lambda: compute(given), _arrays_of(given))


def _bank_of(feature: Any, params: Params) -> Callable[[Bars], NDArray]:
    """Wrap a `Feature` as a function of bars: a fresh bank, one block."""
    return lambda bars: FeatureBank(params, bars.symbols, bars.interval, (feature.name,), (feature,)).compute(bars)[feature.name].copy()


def _holes(plane: NDArray, bars: Bars) -> str:
    hole = np.isnan(bars.close)
    if np.isinf(plane).any():
        row, s = (int(i) for i in np.argwhere(np.isinf(plane))[0])
        return f"is infinite at bar {row} of {SYMBOLS[s]}; guard the denominator"
    if (~np.isnan(plane[hole])).any():
        row, s = (int(i) for i in np.argwhere(hole & ~np.isnan(plane))[0])
        return f"must be NaN where the symbol has no bar, was {plane[row, s]:g} at bar {row} of {SYMBOLS[s]}"
    return "is NaN everywhere" if np.isnan(plane).all() else ""


def _future(compute: Callable[[Bars], Any], bars: Bars, whole: NDArray, seed: int) -> str:
    for cut in cut_points(bars.n, 4, seed):
        changed = np.asarray(compute(rewrite_future(bars, cut, seed)))
        if broken := _differs(f"another future after bar {cut}", {"feature": whole}, {"feature": changed}, cut):
            return broken
    return ""


def _cut_feature(layer: Any, compute: Callable[[Bars], Any], params: Params, bars: Bars, whole: NDArray, seed: int) -> str:
    """Compare with blocks through a bank that carries state; a plain function has none, so its input is cut off instead."""
    if layer is None:
        for stop in cut_points(bars.n, 8, seed):
            if broken := _differs(f"bars cut off after {stop}", {"feature": whole}, {"feature": np.asarray(compute(bars[:stop]))}, stop):
                return broken
        return ""
    for edges in _blocks(bars.n, seed):
        bank = FeatureBank(params, bars.symbols, bars.interval, (layer.name,), (layer,))
        parts = [bank.compute(bars[a:b])[layer.name].copy() for a, b in pairwise(edges) if b > a]
        if broken := _differs(f"in {len(parts)} blocks", {"feature": whole}, {"feature": np.concatenate(parts)}):
            return broken
    return ""


def _judge_rules(judge: Any, params: Params, seed: int) -> Iterator[Rule]:
    bars, votes = awkward_world(seed)
    given: list[tuple[Any, ...]] = []

    def spy(*inputs: Any) -> tuple[NDArray, NDArray]:
        given.append(inputs)
        return np.full(bars.close.shape, Action.HOLD, np.int8), np.zeros(bars.close.shape)

    Engine(params, judge=spy).run(_fresh(bars), _fresh(votes))
    inputs = given[0]
    before = [array.tobytes() for array in _arrays_of(*inputs[:2])]
    try:
        action, confidence = (np.array(x) for x in judge(*inputs))
    except Exception as error:  # see _attempt
        yield Rule("runs", f"raised {type(error).__name__}: {error}")
        return
    yield Rule("runs")
    right = action.shape == confidence.shape == bars.close.shape
    yield Rule(
        "shape", "" if right else f"must be two arrays {list(bars.close.shape)}, was {list(action.shape)} and {list(confidence.shape)}"
    )
    if not right:
        return
    changed = [array.tobytes() for array in _arrays_of(*inputs[:2])] != before
    yield Rule("mutated_input", "the votes or planes it was given were changed; work on copies" if changed else "")
    broken = _opinion_range(action, confidence)
    yield Rule("range", broken)
    if broken:
        return  # the engine refuses such an opinion

    def opinion(world: Bars, voted: Votes, edges: list[int]) -> Arrays:
        engine = Engine(params, judge=judge)
        parts = [engine.run(_fresh(world[a:b]), _fresh(voted[a:b])).decisions for a, b in pairwise(edges) if b > a]
        return {name: np.concatenate([getattr(d, name) for d in parts]) for name in ("raw_action", "raw_confidence")}

    whole = opinion(bars, votes, [0, bars.n])
    yield _attempt("repeatable", lambda: _differs("run twice", whole, opinion(bars, votes, [0, bars.n])))
    random, single = _blocks(bars.n, seed)
    blocks = lambda edges: _differs(f"in {len(edges) - 1} blocks", whole, opinion(bars, votes, edges))  # noqa: E731
    yield _attempt("cutting", lambda: blocks(random) or blocks(single))

    def future() -> str:
        for cut in cut_points(bars.n, 3, seed):
            other = opinion(rewrite_future(bars, cut, seed), random_future(votes, cut, seed), [0, bars.n])
            if broken := _differs(f"another future after bar {cut}", whole, other, cut):
                return broken
        return ""

    yield _attempt("future", future)
    order = np.random.default_rng(seed).permutation(N_SYMBOLS)
    moved = {name: np.ascontiguousarray(plane[:, order]) for name, plane in whole.items()}
    shuffled = Votes(np.ascontiguousarray(votes.action[:, :, order]), np.ascontiguousarray(votes.confidence[:, :, order]))
    yield _attempt("symbol_order", lambda: _differs("symbols permuted", moved, opinion(_permuted(bars, order), shuffled, [0, bars.n])))


def _opinion_range(action: NDArray, confidence: NDArray) -> str:
    bad = ~np.isin(action, (Action.SELL, Action.HOLD, Action.BUY))
    if bad.any():
        return f"actions must be 0, 1 or 2 in every cell, also without votes, was {action[bad][0]} at bar {int(np.argwhere(bad)[0][0])}"
    bad = ~((confidence >= 0.0) & (confidence <= 1.0))
    if bad.any():
        return (
            f"confidence must be in [0, 1] in every cell, also without votes, was {confidence[bad][0]} at bar {int(np.argwhere(bad)[0][0])}"
        )
    return ""


def _govern_rules(step: Any, params: Params, seed: int) -> Iterator[Rule]:
    expected, given = _step_arguments(), list(inspect.signature(getattr(step, "py_func", step)).parameters)
    yield Rule("signature", "" if len(given) == len(expected) else f"must take ({', '.join(expected)}), was ({', '.join(given)})")
    bars, votes = awkward_world(seed)
    action = np.where(votes.action[0] < 0, Action.HOLD, votes.action[0]).astype(np.int8)
    confidence = np.nan_to_num(votes.confidence[0])
    free = params.with_values({"governor.min_confidence": 0.0, "governor.max_drawdown": 1.0})
    try:
        loop = rebind(trade, govern_step=step)
        whole = _traded(loop, bars, action, confidence, free, [0, bars.n])
    except Exception as error:  # see _attempt
        yield Rule("runs", f"raised {type(error).__name__}: {str(error).splitlines()[0]}")
        return
    yield Rule("runs")
    yield Rule("range", _answers(whole, action))
    yield _attempt("mutated_input", lambda: _writes_state(step, free))
    yield _attempt("repeatable", lambda: _differs("run twice", whole, _traded(loop, bars, action, confidence, free, [0, bars.n])))
    random, single = _blocks(bars.n, seed)
    blocks = lambda edges: _differs(f"in {len(edges) - 1} blocks", whole, _traded(loop, bars, action, confidence, free, edges))  # noqa: E731
    yield _attempt("cutting", lambda: blocks(random) or blocks(single))

    def future() -> str:
        past = {name: whole[name] for name in ("governor_reason", "size", "equity")}
        for cut in cut_points(bars.n, 3, seed):
            other = _traded(loop, rewrite_future(bars, cut, seed), action, confidence, free, [0, bars.n])
            if broken := _differs(f"another future after bar {cut}", past, other, cut):
                return broken
        return ""

    yield _attempt("future", future)
    killed = _traded(loop, bars, action, confidence, free.with_values({"governor.emergency_stop": True}), [0, bars.n])
    yield Rule("kill_switch", "approves under the kill switch" if np.any(killed["size"] != 0.0) else "")


def _traded(loop: Any, bars: Bars, action: NDArray, confidence: NDArray, params: Params, edges: list[int]) -> Arrays:
    """Trade in blocks; outputs, and the final state as bytes."""
    state = TradeState.fresh(params, len(bars.symbols))
    cut = np.ascontiguousarray
    parts = [run_trade(bars[a:b], cut(action[a:b]), cut(confidence[a:b]), params, state, loop) for a, b in pairwise(edges) if b > a]
    out = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("governor_reason", "size", "equity", "balance")}
    return out | {f"state.{name}": np.frombuffer(array.tobytes(), np.uint8) for name, array in vars(state).items()}


def _answers(whole: Arrays, action: NDArray) -> str:
    size, reason = whole["size"], whole["governor_reason"]
    approved = reason == Reason.APPROVED
    for bad, rule in (
        (~np.isfinite(size), "a notional must be finite"),
        (approved & (np.sign(size) != action - 1), "an approved notional must be positive for BUY and negative for SELL"),
        (~np.isin(reason, [int(r) for r in Reason]) | (reason == Reason.NONE), "a refusal must give a code of Reason"),
    ):
        if bad.any():
            row, s = (int(i) for i in np.argwhere(bad)[0])
            return f"{rule}, was {size[row, s]:g} with reason {reason[row, s]} at bar {row} of {SYMBOLS[s]}"
    return "" if approved.any() else "approves nothing in 240 bars of random signals"


def _writes_state(step: Any, params: Params) -> str:
    """Ask once, outside the loop: the account and the position must keep their bytes."""
    state, record = TradeState.fresh(params, N_SYMBOLS), params.record()
    values = {
        "side": 1.0,
        "confidence": 0.9,
        "symbol": 0,
        "now": 470_000 * NS_PER_HOUR,
        "loss_time": NEVER,
        "win_rate": 0.55,
        "payoff": 1.5,
        "account": state.account[0],
        "position": state.positions[0],
        "params": record[0],
    }
    arrays = [*_arrays_of(state), record]
    broken = _mutates(lambda: step(*(values[name] for name in _step_arguments())), arrays)
    return "the account, the position or the parameters were changed; a governor reads and answers, it writes nothing" if broken else ""
