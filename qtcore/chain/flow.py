"""Fused decision and trade loop: votes become equity block by block, and what each layer said is not stored.

`decide` writes down what every layer said, 51 bytes a cell. A backtest's money needs 9 of them, and those only until the next block: here
they stay in the second-level cache, which takes a sixth to a fifth off the time from votes to equity (2026-11). The rules are the same,
and so are the bits; `decide` fills in the rest from the same votes and planes when somebody looks.
"""

from collections.abc import Callable

import numpy as np

from qtcore.arbiter import blank_rule, opinion_rule, score_rule, settle_rule, signal_rule
from qtcore.chain.decide import CHUNK
from qtcore.chain.patterns import OUTVOTED, number, pattern_table
from qtcore.chain.trade import UNASKED, UNPRICED, TradeResult, TradeState, fill_capacity, trade
from qtcore.choices import DecideRule, EnsembleRule, MetaMode, MetaVariant, PolicyBase
from qtcore.ensemble import confidence_rule, slice_rule
from qtcore.features import Planes
from qtcore.jit import kernel
from qtcore.params import PARAMS, Params
from qtcore.rules import Reason
from qtcore.slots import slots, weigh_rule
from qtcore.types import FILL, Bars, Votes, slab

BLOCK = 4 * CHUNK  # cells that are decided, then traded: long enough that 15 us of Python do not count


@kernel
def opine_block(action, confidence, arbiter, regime, params_slab, table, found, first, raw_action, raw_confidence):
    """Decide the cells from `first` on as the policy's rules do, into raw_action, raw_confidence [C].

    action [5, N] int8, -1 absent; confidence [5, N]; arbiter [6, N] `ARBITER_INPUTS` and regime [2, N] `REGIME_INPUTS`, NaN unknown;
    params_slab: PARAMS as bytes; table: its `pattern_table`; found [C] int32: scratch.
    """
    params = params_slab.view(PARAMS)[0]
    meta, threshold, gate = params["meta"], params["arbiter"]["score_threshold"], params["arbiter"]["gate_confidence"]
    multipliers = params["ensemble"]["multipliers"]
    factors = (multipliers[0], multipliers[1], multipliers[2], multipliers[3])
    limit, n, start, asked = meta["low_confidence"], np.uintp(len(raw_action)), np.uintp(first), np.int32(0)
    may_ask = meta["enabled"] != 0 and params["arbiter"]["enabled"] != 0
    number(action, found, first, first + len(raw_action))
    if len(table) > 1024:
        for i in range(n):
            found[i] += 1024 * slice_rule(regime[0, start + i], regime[1, start + i])
    for i in range(n):
        found[i] = table[np.uintp(found[i])]
    for i in range(n):
        entry = found[i]
        total = weigh_rule(slots(action, start + i), slots(confidence, start + i), np.int8(entry & 3))
        base = confidence_rule(total, entry >> 5 & 7, entry >> 2 & 7, factors)
        reason = np.int32((entry >> 18 if base < limit else entry >> 11) & 31)
        is_asked = np.int32(reason >= Reason.SPLIT_VOTE.value)
        asked = np.int32(asked | is_asked)
        raw_action[i] = np.int8(entry & 3)
        raw_confidence[i] = base
        found[i] = is_asked
    for i in range(n if may_ask and asked != 0 else np.uintp(0)):
        rsi, macd, line, bb = arbiter[0, start + i], arbiter[1, start + i], arbiter[2, start + i], arbiter[3, start + i]
        volume, momentum = arbiter[4, start + i], arbiter[5, start + i]
        score = score_rule(signal_rule(rsi, macd, line, bb, volume, momentum))
        is_asked = (found[i] != 0) & (not blank_rule(rsi, macd, line, bb, volume, momentum))
        asked, sure = settle_rule(score, threshold)
        raw_action[i], raw_confidence[i], _ = opinion_rule(raw_action[i], raw_confidence[i], is_asked, np.int8(asked), sure, gate)


def flows(params: Params, n_cells: int) -> bool:
    """Whether `opine_block` is all there is to the opinion of a block of `n_cells`, and the block worth it.

    Nothing but the rules of the policy, no weights by which a large majority could lose the vote (D-70), and no volume to read.
    """
    meta = params.meta
    if params.decide.rule == DecideRule.EDGE or params.ensemble.rule == EnsembleRule.MEAN or params.broker.impact > 0.0:
        return False
    if n_cells <= CHUNK or params.stages or not meta.enabled:
        return n_cells > CHUNK and not params.stages
    is_ruled = meta.mode == MetaMode.POLICY and meta.variant == MetaVariant.PUBLISHED and meta.policy_base == PolicyBase.SHARED
    return is_ruled and not np.any(pattern_table(params.record()) >> OUTVOTED)


def flow(bars: Bars, votes: Votes, planes: Planes, params: Params, state: TradeState, loop: Callable[..., int] = trade) -> TradeResult:
    """Trade the votes on `bars`, deciding as it goes; `state` is carried on in place. Only where it `flows`.

    loop: `trade`, or an own one from `rebind`. Arrays are trusted (`as_bars`, `as_votes`).
    """
    n, n_symbols = bars.close.shape
    record = params.record()
    codes, values, lines = np.empty((2, n, n_symbols), np.int8), np.empty((2, n, n_symbols)), np.empty((4, n))
    ledger, reasons = np.empty(fill_capacity(params, bars.close_time, n_symbols), FILL), codes[1].view(np.uint8)
    rows = max(1, min(n, BLOCK // n_symbols))
    action, confidence, found = np.empty((rows, n_symbols), np.int8), np.empty((rows, n_symbols)), np.empty(rows * n_symbols, np.int32)
    opinion = [a.reshape(len(a), -1) for a in (votes.action, votes.confidence, planes.arbiter, planes.regime)]
    rules, scratch, whole_funding, k = (slab(record), pattern_table(record)), np.empty((2, n_symbols), np.uintp), np.empty((0, 0)), 0
    for first in range(0, n, rows):
        b = slice(first, min(first + rows, n))
        m = b.stop - first
        opine_block(*opinion, *rules, found, first * n_symbols, action[:m].reshape(-1), confidence[:m].reshape(-1))
        k += loop(
            bars.open[b], bars.high[b], bars.low[b], bars.close[b], whole_funding if bars.funding is None else bars.funding[b],
            UNASKED, bars.open_time[b], bars.close_time[b], action[:m], confidence[:m], *UNPRICED, record, state.account, state.positions,
            state.closed, state.lasts, scratch, codes[0, b], reasons[b], values[0, b], values[1, b], *lines[:, b], ledger[k:],
        )  # fmt: skip
    return TradeResult(codes[0], reasons, values[0], values[1], lines[0], lines[1], lines[2], lines[3], ledger[:k].copy())
