"""Custom layer check: whether a layer of one's own keeps the promises that ours keep. Each broken rule is named.

    check_layer(my_feature)          a function bars -> [n, S], or a `Feature` as `FeatureBank(custom=...)` takes it
    check_layer(my_judge)            f(votes, planes, params) -> (action [n, S], confidence [n, S]), as `Engine(judge=...)` takes it
    check_layer(my_govern_step)      a kernel with the arguments of `govern_step`, as `rebind(qtcore.trade, govern_step=...)` takes it
    check_layer(my_trade, "trade")   a whole trade loop, as `Engine(trade=...)` takes it
    check_layer(my_model, "meta_model")   a learned meta layer, as `Engine(meta_model=...)` takes it

The layer is run on awkward bars (holes, a late listing, a delisting, a jump) in one block, in random blocks and bar by bar, with another
future, with symbols in another order, and its inputs are compared before and after. A clean report is no proof of profit.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Engine, Feature, FeatureBank, Params
from qtcore.features.custom import own_features
from qtcore.own_code import own_code, said
from qtcore.types import Action, Bars, Votes
from research.errors import ProofError
from research.verify.awkward import awkward_world, fresh, permuted
from research.verify.causality import cut_points, rewrite_future
from research.verify.parity import random_future
from research.verify.rules import Arrays, Rule, World, arrays_of, attempt, blocks_of, differs, mutates
from research.verify.trading_layers import govern_rules, loop_rules, meta_rules, step_arguments

ROUNDING = 1e-6  # of a symbol's largest value: sums carried on in another order, never another future, which is compared by bits


@dataclass(frozen=True)
class LayerReport:
    """What `check_layer` or `check_model` found."""

    kind: str
    rules: tuple[Rule, ...]

    @property
    def passed(self) -> bool:
        """Whether all rules were kept."""
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the broken rules."""
        return tuple(rule.name for rule in self.rules if rule.broken)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return "\n".join([f"{self.kind}: {'passed' if self.passed else 'FAILED'}", *(f"  {rule}" for rule in self.rules)])


def check_layer(
    layer: Any,
    kind: str | None = None,
    params: Params | None = None,
    seed: int = 0,
    like: Bars | None = None,
    custom: Iterable[Feature] = (),
) -> LayerReport:
    """Try a researcher's own layer and name the rules it breaks.

    kind: `feature`, `judge`, `govern_step`, `trade` or `meta_model`; one of the first three is told from the arguments. params: what the
    layer is run with. like: bars whose times and symbols the trial has, with other prices; a feature that looks values up by time needs
    them. custom: own features that a judge reads. Raises UserError when the kind cannot be told.

    >>> from research.verify import check_layer
    >>> check_layer(lambda bars: bars.high - bars.low).failed
    ()
    >>> check_layer(lambda bars: bars.close / bars.close[-1]).failed
    ('future', 'cutting')
    """
    kinds: dict[str, Callable[[Any, Params, int, World], Iterator[Rule]]] = {
        "feature": _feature_rules,
        "judge": partial(_judge_rules, custom=own_features(custom)),
        "govern_step": govern_rules,
        "trade": loop_rules,
        "meta_model": meta_rules,
    }
    kind = kind or _kind_of(layer)
    if kind not in kinds:
        raise ProofError(f"kind must be one of {', '.join(kinds)}, was {kind!r}")
    params = params or Params()
    params = params if params.broker.max_holding_bars else params.with_values({"broker.max_holding_bars": 5})
    return LayerReport(kind, tuple(kinds[kind](layer, params, seed, awkward_world(seed, like))))


def _kind_of(layer: Any) -> str:
    if not callable(layer):
        return "feature"
    names = list(inspect.signature(getattr(layer, "py_func", layer)).parameters)
    kinds = {1: "feature", 3: "judge", len(step_arguments()): "govern_step"}
    if len(names) not in kinds:
        raise ProofError(
            f"kind must be told for a layer with {len(names)} arguments, was without; pass kind='feature', 'judge' or 'govern_step'"
        )
    return kinds[len(names)]


def _feature_rules(layer: Any, params: Params, seed: int, world: World) -> Iterator[Rule]:
    bars, _ = world
    is_function = inspect.isroutine(layer)
    raw = layer if is_function else one_plane(layer, params)

    def compute(world: Bars) -> Any:
        with own_code("a feature must return an array"):
            return raw(fresh(world))

    try:
        whole = np.asarray(compute(bars))
    except (Exception, SystemExit) as error:  # see attempt
        yield Rule("runs", f"raised {said(error)}")
        return
    yield Rule("runs")
    right = whole.shape == bars.close.shape and whole.dtype == np.float64
    yield Rule("shape", "" if right else f"must be float64 {list(bars.close.shape)}, was {whole.dtype} {list(whole.shape)}")
    if not right:
        return
    yield Rule("nan_rows", _holes(whole, bars))
    yield attempt("mutated_input", lambda: _spoils(raw, bars))
    yield attempt("repeatable", lambda: differs("run twice", {"feature": whole}, {"feature": compute(bars)}, bars))
    yield attempt("future", lambda: _future(compute, bars, whole, seed))
    yield _cut_rule(None if is_function else layer, compute, params, bars, whole, seed)
    order = np.random.default_rng(seed).permutation(len(bars.symbols))
    moved = {"feature": np.ascontiguousarray(whole[:, order])}
    yield attempt(
        "symbol_order", lambda: differs("symbols permuted", moved, {"feature": compute(permuted(bars, order))}, permuted(bars, order))
    )


def _spoils(compute: Callable[[Bars], Any], bars: Bars) -> str:
    given = fresh(bars)
    return mutates(lambda: compute(given), arrays_of(given))


def one_plane(feature: Any, params: Params) -> Callable[[Bars], NDArray]:
    """Wrap a `Feature` as a function of bars: a fresh bank, one block."""
    return lambda bars: FeatureBank(params, bars.symbols, bars.interval, (feature.name,), (feature,)).compute(bars)[feature.name].copy()


def _holes(plane: NDArray, bars: Bars) -> str:
    hole = np.isnan(bars.close)
    if np.isinf(plane).any():
        row, s = (int(i) for i in np.argwhere(np.isinf(plane))[0])
        return f"is infinite at bar {row} of {bars.symbols[s]}; guard the denominator"
    if (~np.isnan(plane[hole])).any():
        row, s = (int(i) for i in np.argwhere(hole & ~np.isnan(plane))[0])
        return f"must be NaN where the symbol has no bar, was {plane[row, s]:g} at bar {row} of {bars.symbols[s]}"
    return "is NaN everywhere" if np.isnan(plane).all() else ""


def _future(compute: Callable[[Bars], Any], bars: Bars, whole: NDArray, seed: int) -> str:
    for cut in cut_points(bars.n, 4, seed):
        changed = np.asarray(compute(rewrite_future(bars, cut, seed)))
        if broken := differs(f"another future after bar {cut}", {"feature": whole}, {"feature": changed}, bars, cut):
            return broken
    return ""


def _cut_rule(layer: Any, compute: Callable[[Bars], Any], params: Params, bars: Bars, whole: NDArray, seed: int) -> Rule:
    """Compare what every cutting gives with the whole; last digits, which follow the order of a sum, break a rule of their own."""
    rounded = ""
    try:
        for how, rows, cut in _cuttings(layer, compute, params, bars, seed):
            broken = differs(how, {"feature": whole}, {"feature": cut}, bars, rows)
            if broken and not _is_rounding(whole[:rows], cut[:rows]):
                return Rule("cutting", _too_short(layer, params, bars, seed) + broken)
            rounded = rounded or broken
    except (Exception, SystemExit) as error:  # see attempt
        return Rule("cutting", f"raised {said(error)}")
    return Rule("rounding", f"{rounded}, by rounding alone; the last digits of a live value may be others") if rounded else Rule("cutting")


def _too_short(layer: Any, params: Params, bars: Bars, seed: int) -> str:
    """Say that a feature needs a longer lookback, if with all bars before each block it gives the same in blocks as at once."""
    if layer is None:
        return ""
    longer = replace(layer, lookback=bars.n)
    bank, edges = FeatureBank(params, bars.symbols, bars.interval, (layer.name,), (longer,)), blocks_of(bars.n, seed)[0]
    try:
        whole = one_plane(longer, params)(fresh(bars))
        parts = np.concatenate([bank.compute(bars[a:b])[layer.name].copy() for a, b in pairwise(edges) if b > a])
    except Exception:  # the layer is a stranger's code: it may not bear so many holes before the first bar
        return ""
    if differs("", {"feature": whole}, {"feature": parts}, bars) and not _is_rounding(whole, parts):
        return ""
    return f"the feature {layer.name} needs more than its declared lookback of {layer.lookback} bars; "


def _is_rounding(a: NDArray, b: NDArray) -> bool:
    """Whether two planes [n, S] know the same cells, and differ by little beside the largest value of each symbol."""
    known = ~np.isnan(a)
    if a.shape != b.shape or not np.array_equal(known, ~np.isnan(b)):
        return False
    a, b = np.where(known, a, 0.0), np.where(known, b, 0.0)
    return bool((np.abs(a - b) <= ROUNDING * np.abs(a).max(axis=0, initial=0.0)).all())


def _cuttings(
    layer: Any, compute: Callable[[Bars], Any], params: Params, bars: Bars, seed: int
) -> Iterator[tuple[str, int | None, NDArray]]:
    """Yield how the bars were cut, how many rows count (None all), and the plane: by blocks through a bank, which carries state.

    A plain function has no state, so its input is cut off instead.
    """
    if layer is None:
        for stop in cut_points(bars.n, 8, seed):
            yield f"bars cut off after {stop}", stop, np.asarray(compute(bars[:stop]))
        return
    for edges in blocks_of(bars.n, seed):
        bank = FeatureBank(params, bars.symbols, bars.interval, (layer.name,), (layer,))
        parts = [bank.compute(bars[a:b])[layer.name].copy() for a, b in pairwise(edges) if b > a]
        yield f"in {len(parts)} blocks", None, np.concatenate(parts)


def _judge_rules(judge: Any, params: Params, seed: int, world: World, custom: tuple[Feature, ...]) -> Iterator[Rule]:
    bars, votes = world
    given: list[tuple[Any, ...]] = []

    def spy(*inputs: Any) -> tuple[NDArray, NDArray]:
        given.append(inputs)
        return np.full(bars.close.shape, Action.HOLD, np.int8), np.zeros(bars.close.shape)

    Engine(params, judge=spy, custom=custom).run(fresh(bars), fresh(votes))
    inputs = given[0]
    before = [array.tobytes() for array in arrays_of(*inputs[:2])]
    try:
        with own_code("judge must return actions and confidences"):
            action, confidence = (np.array(x) for x in judge(*inputs))
    except (Exception, SystemExit) as error:  # see attempt
        yield Rule("runs", f"raised {said(error)}")
        return
    yield Rule("runs")
    right = action.shape == confidence.shape == bars.close.shape
    yield Rule(
        "shape", "" if right else f"must be two arrays {list(bars.close.shape)}, was {list(action.shape)} and {list(confidence.shape)}"
    )
    if not right:
        return
    changed = [array.tobytes() for array in arrays_of(*inputs[:2])] != before
    yield Rule("mutated_input", "the votes or planes it was given were changed; work on copies" if changed else "")
    broken = _opinion_range(action, confidence)
    yield Rule("range", broken)
    if broken:
        return  # the engine refuses such an opinion

    def opinion(world: Bars, voted: Votes, edges: list[int]) -> Arrays:
        engine = Engine(params, judge=judge, custom=custom)
        parts = [engine.run(fresh(world[a:b]), fresh(voted[a:b])).decisions for a, b in pairwise(edges) if b > a]
        names = ("raw_action", "raw_confidence") if parts[0].lean is None else ("lean",)  # with a price nothing else is the judge's own
        return {name: np.concatenate([getattr(d, name) for d in parts]) for name in names}

    whole = opinion(bars, votes, [0, bars.n])
    yield attempt("repeatable", lambda: differs("run twice", whole, opinion(bars, votes, [0, bars.n]), bars))
    random, single = blocks_of(bars.n, seed)
    blocks = lambda edges: differs(f"in {len(edges) - 1} blocks", whole, opinion(bars, votes, edges), bars)  # noqa: E731
    yield attempt("cutting", lambda: blocks(random) or blocks(single))

    def future() -> str:
        for cut in cut_points(bars.n, 3, seed):
            other = opinion(rewrite_future(bars, cut, seed), random_future(votes, cut, seed), [0, bars.n])
            if broken := differs(f"another future after bar {cut}", whole, other, bars, cut):
                return broken
        return ""

    yield attempt("future", future)
    order = np.random.default_rng(seed).permutation(len(bars.symbols))
    moved = {name: np.ascontiguousarray(plane[:, order]) for name, plane in whole.items()}
    action, confidence = np.ascontiguousarray(votes.action[:, :, order]), np.ascontiguousarray(votes.confidence[:, :, order])
    shuffled = Votes(action, confidence, None, votes.names)
    yield attempt("symbol_order", lambda: differs("symbols permuted", moved, opinion(permuted(bars, order), shuffled, [0, bars.n]), bars))


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
