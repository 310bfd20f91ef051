"""Trials of own layers that trade or advise: a governor step, a whole trade loop, a learned meta layer."""

import inspect
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Params, rebind
from qtcore.chain.trade import UNPRICED, TradeState, run_trade, trade
from qtcore.choices import DecideRule
from qtcore.governor import govern_step
from qtcore.own_code import said
from qtcore.rules import Reason
from qtcore.types import NEVER, NS_PER_HOUR, Action, Bars
from research.verify.causality import cut_points, first_difference, rewrite_future
from research.verify.rules import Arrays, Rule, World, arrays_of, attempt, blocks_of, differs, mutates


def step_arguments() -> list[str]:
    """Names of the arguments of a governor step."""
    return list(inspect.signature(getattr(govern_step, "py_func", govern_step)).parameters)


def govern_rules(step: Any, params: Params, seed: int, world: World) -> Iterator[Rule]:
    """Try a governor step inside the trade loop, and alone on an account that it may not write to."""
    expected, given = step_arguments(), list(inspect.signature(getattr(step, "py_func", step)).parameters)
    yield Rule("signature", "" if len(given) == len(expected) else f"must take ({', '.join(expected)}), was ({', '.join(given)})")
    rules = list(loop_rules(rebind(trade, govern_step=step), params, seed, world))
    yield from rules
    if not rules[0].broken:
        yield attempt("mutated_input", lambda: _writes_state(step, params))


def loop_rules(loop: Any, params: Params, seed: int, world: World) -> Iterator[Rule]:
    """Try a trade loop on random signals: its answers, twice, in blocks, with another future, under the kill switch."""
    bars, votes = world
    action = np.where(votes.action[0] < 0, Action.HOLD, votes.action[0]).astype(np.int8)
    confidence = np.nan_to_num(votes.confidence[0])
    free = params.with_values({"governor.min_confidence": 0.0, "governor.max_drawdown": 1.0})

    def traded(on: Bars, edges: list[int]) -> Arrays:
        return _traded(loop, on, action, confidence, free, edges)

    try:
        whole = traded(bars, [0, bars.n])
    except (Exception, SystemExit) as error:  # see attempt
        yield Rule("runs", f"raised {said(error).splitlines()[0]}")
        return
    yield Rule("runs")
    yield Rule("range", _answers(whole, action, bars))
    approves = np.any(whole["governor_reason"] == Reason.APPROVED)
    yield Rule("approves", "" if approves else f"approves nothing in {bars.n} bars of random signals")
    yield attempt("repeatable", lambda: differs("run twice", whole, traded(bars, [0, bars.n]), bars))
    random, single = blocks_of(bars.n, seed)
    blocks = lambda edges: differs(f"in {len(edges) - 1} blocks", whole, traded(bars, edges), bars)  # noqa: E731
    yield attempt("cutting", lambda: blocks(random) or blocks(single))

    def future() -> str:
        past = {name: whole[name] for name in ("governor_reason", "size", "equity")}
        for cut in cut_points(bars.n, 3, seed):
            other = traded(rewrite_future(bars, cut, seed), [0, bars.n])
            if broken := differs(f"another future after bar {cut}", past, other, bars, cut):
                return broken
        return ""

    yield attempt("future", future)
    killed = _traded(loop, bars, action, confidence, free.with_values({"governor.emergency_stop": True}), [0, bars.n])
    yield Rule("kill_switch", "approves under the kill switch" if np.any(killed["size"] != 0.0) else "")


def meta_rules(model: Any, params: Params, seed: int, world: World) -> Iterator[Rule]:
    """Rows are what the engine makes of votes and planes, so a model that looks at its row and the time alone knows no later bar."""
    close_time = world[0].close_time
    rows = np.random.default_rng(seed).uniform(0.0, 1.0, (len(close_time), len(model.feature_names)))
    given = rows.copy()
    try:
        whole = np.asarray(model.answer(given, close_time))
    except (Exception, SystemExit) as error:  # see attempt
        yield Rule("runs", f"raised {said(error)}")
        return
    yield Rule("runs")
    right = whole.shape == (len(rows), 3)
    yield Rule("shape", "" if right else f"must be [{len(rows)}, 3], was {list(whole.shape)}")
    if not right:
        return
    known = ~np.isnan(whole).any(axis=1)
    sound = ((whole >= 0.0) & (whole <= 1.0)).all(axis=1) & (np.abs(whole.sum(axis=1) - 1.0) < 1e-6)
    yield Rule("range", "" if sound[known].all() else f"probabilities must sum to 1, was {whole[known & ~sound][0]}")
    yield Rule("mutated_input", "" if given.tobytes() == rows.tobytes() else "the rows it was given were changed; work on a copy")
    yield attempt("repeatable", lambda: _same_answer("asked twice", whole, model.answer(rows, close_time)))
    single = lambda: np.concatenate([model.answer(rows[i : i + 1].copy(), close_time[i : i + 1]) for i in range(len(rows))])  # noqa: E731
    yield attempt("cutting", lambda: _same_answer("asked a row at a time", whole, single()))


def _same_answer(what: str, expected: NDArray, found: Any) -> str:
    gap = first_difference("the answer", expected, np.asarray(found))
    return "" if gap is None else f"{what}: {gap.name} differs first in row {gap.bar}, {gap.left:g} against {gap.right:g}"


def _traded(loop: Any, bars: Bars, action: NDArray, confidence: NDArray, params: Params, edges: list[int]) -> Arrays:
    """Trade in blocks; outputs, and the final state as bytes."""
    state = TradeState.fresh(params, len(bars.symbols))
    cut = np.ascontiguousarray
    edge, risk = np.where(action == Action.HOLD, -0.001, 0.002), np.full(action.shape, 0.01)
    shares = (0.002 * (action - 1), np.ones(action.shape)) if params.is_book else UNPRICED[:2]
    is_priced, parts = params.decide.rule == DecideRule.EDGE, []
    for a, b in pairwise(edges):
        money = (edge[a:b], edge[a:b], risk[a:b], shares[0][a:b], shares[1][a:b], UNPRICED[0]) if is_priced else UNPRICED
        if b > a:
            parts.append(run_trade(bars[a:b], cut(action[a:b]), cut(confidence[a:b]), params, state, loop, money))
    out = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("governor_reason", "size", "equity", "balance")}
    return out | {f"state.{name}": np.frombuffer(array.tobytes(), np.uint8) for name, array in vars(state).items()}


def _answers(whole: Arrays, action: NDArray, bars: Bars) -> str:
    size, reason = whole["size"], whole["governor_reason"]
    approved = reason == Reason.APPROVED
    for bad, rule in (
        (~np.isfinite(size), "a notional must be finite"),
        (approved & (np.sign(size) != action - 1), "an approved notional must be positive for BUY and negative for SELL"),
        (~np.isin(reason, [int(r) for r in Reason]) | (reason == Reason.NONE), "a refusal must give a code of Reason"),
    ):
        if bad.any():
            row, s = (int(i) for i in np.argwhere(bad)[0])
            return f"{rule}, was {size[row, s]:g} with reason {reason[row, s]} at bar {row} of {bars.symbols[s]}"
    return ""


def _writes_state(step: Any, params: Params) -> str:
    """Ask once, outside the loop: the account and the position must keep their bytes."""
    state, record = TradeState.fresh(params, 1), params.record()
    values = {
        "side": 1.0,
        "confidence": 0.9,
        "edge": 0.002,
        "risk": 0.01,
        "symbol": 0,
        "now": 470_000 * NS_PER_HOUR,
        "loss_time": NEVER,
        "win_rate": 0.55,
        "payoff": 1.5,
        "account": state.account[0],
        "position": state.positions[0],
        "params": record[0],
    }
    arrays = [*arrays_of(state), record]
    broken = mutates(lambda: step(*(values[name] for name in step_arguments())), arrays)
    return "the account, the position or the parameters were changed; a governor reads and answers, it writes nothing" if broken else ""
