"""Decision kernel: ensemble, meta layer and arbiter, in this order, from votes and the market alone (`spec` 11).

Opinion comes before permission: no cell knows of a position or of another cell, so a block may be cut anywhere and everything here is
computed once for a whole sweep. Inside, cells are flat and pass the layers in chunks that stay in the second-level cache.
"""

import numpy as np

from qtcore.arbiter import advise, keep, score_cells, settle
from qtcore.chain.horizons import hear, hears_horizons, n_bids, n_heard, n_maps
from qtcore.chain.patterns import look_up, pattern_table
from qtcore.chain.price import (
    N_BIDS,
    N_PRICING,
    Bid,
    average_block,
    costs_rule,
    lean_on_votes,
    length_rule,
    map_at,
    no_map,
    price,
    price_rule,
    told,
    value,
)
from qtcore.check import as_array, check_probs
from qtcore.choices import BookKind, DecideRule, EnsembleRule, MetaMode, MetaVariant, MissingFill, PolicyBase
from qtcore.ensemble import average, weighted_score_rule
from qtcore.jit import kernel
from qtcore.meta.bet import judge_bets
from qtcore.meta.override import judge_learned
from qtcore.meta.policy import ask, judge_policy
from qtcore.params import Params
from qtcore.rules import Reason
from qtcore.slots import is_outvoted_rule, most_rule, slots, tally_rule, weigh_rule
from qtcore.types import ARBITER_INPUTS, F8, N_MODELS, REGIME_INPUTS, Code, Decisions, InputError, Source, Value, Verdict, Votes

CHUNK = 4096  # cells that pass the layers together; 0.6 MB of inputs and outputs


@kernel
def reset(codes, values, start, stop):
    """Write the meta columns of the cells [start, stop) as if nobody had been asked."""
    for i in range(np.uintp(start), np.uintp(stop)):
        codes[Code.VERDICT, i] = 0
        codes[Code.META_REASON, i] = 0
        codes[Code.META_ACTION, i] = -1
    for i in range(np.uintp(start), np.uintp(stop)):
        values[Value.META_CONFIDENCE, i] = np.nan


@kernel
def grade(action, confidence, params, codes, values, start, stop):
    """Flag in VERDICT the cells of [start, stop) whose base confidence is low: the ensemble's, or the weighted score (7.2)."""
    limit = params[0]["meta"]["low_confidence"]
    if params[0]["meta"]["policy_base"] == PolicyBase.SHARED:
        for i in range(np.uintp(start), np.uintp(stop)):
            codes[Code.VERDICT, i] = values[Value.ENSEMBLE_CONFIDENCE, i] < limit
        return
    fills, tie_break = params[0]["meta"]["missing_fill"] == MissingFill.HOLD_HALF, params[0]["ensemble"]["tie_break"]
    weights = params[0]["ensemble"]["weights"]
    for i in range(np.uintp(start), np.uintp(stop)):
        score = weighted_score_rule(action, confidence, i, weights, tie_break, fills)[1]
        codes[Code.VERDICT, i] = score < limit


@kernel
def restore(action, confidence, codes, values, start, stop):
    """Let a strong consensus that lost the weighted vote decide the cells [start, stop), with its voters' mean confidence (D-70)."""
    for i in range(np.uintp(start), np.uintp(stop)):
        reason = codes[Code.META_REASON, i]
        if reason < Reason.STRONG_CONSENSUS_SELL.value or reason > Reason.STRONG_CONSENSUS_BUY.value:
            continue
        actions = slots(action, i)
        sell, hold, buy, _ = tally_rule(actions)
        most, winner = most_rule(sell, hold, buy)
        if is_outvoted_rule(sell, hold, buy, np.int64(codes[Code.ENSEMBLE_ACTION, i])):
            codes[Code.RAW_ACTION, i] = winner
            values[Value.RAW_CONFIDENCE, i] = weigh_rule(actions, slots(confidence, i), winner) / most


@kernel
def note_doubts(bids, params, codes, start, stop):
    """Write for the cells [start, stop) whether the ensemble is in doubt, so that the arbiter is asked (VERDICT), and whose bid trades."""
    broker, min_edge, asks = params[0]["broker"], params[0]["decide"]["min_edge"], params[0]["arbiter"]["enabled"] != 0
    costs, horizon = costs_rule(broker["fee_rate"], broker["slippage_rate"]), float(broker["max_holding_bars"])
    for i in range(np.uintp(start), np.uintp(stop)):
        j = i - np.uintp(start)
        carry, rate = length_rule(bids, j, horizon) * bids[Bid.CARRY, j], horizon * bids[Bid.CARRY, j]
        _, _, in_doubt, is_arbiter = price_rule(bids[Bid.ENSEMBLE, j], bids[Bid.ARBITER, j], costs, carry, rate, min_edge)
        verdict = codes[Code.VERDICT, i]
        codes[Code.VERDICT, i] = Verdict.ESCALATE.value if in_doubt & asks else verdict
        codes[Code.SOURCE, i] = Source.ARBITER.value if is_arbiter else Source.ENSEMBLE.value


@kernel
def decide_by_edge(
    action, confidence, said, arbiter, probs, problem, pricing, every_map, offset, params, codes, values, filled, every_bid, start, stop
):  # fmt: skip
    """Decide the cells [start, stop) by what their opinion earns after costs, and write down what meta layer and arbiter say to them.

    codes, values [9, 11 or 12, N]: read the ensemble's columns and LEAN; filled, every_bid: scratch. every_map: of all horizons.
    """
    lean, meta, maps = values[Value.LEAN], params[0]["meta"], every_map[: n_maps(every_map, action, said)]
    n_horizons = n_heard(action, said, params)
    bids = every_bid if n_horizons > 1 else every_bid[:N_BIDS]
    keep(codes, values, start, stop)
    if params[0]["arbiter"]["enabled"] != 0:
        score_cells(arbiter, values[Value.ARBITER_SCORE], start, stop)
    score = values[Value.ARBITER_SCORE]
    value(lean, pricing, score, probs[2], maps, offset, params, bids, start, stop, 0)
    if n_horizons > 1:
        hear(
            action, confidence, said, score, probs[2], pricing, every_map, offset, params, codes, values, filled, bids, start, stop
        )  # fmt: skip
    chosen, sure = codes[Code.RAW_ACTION], values[Value.RAW_CONFIDENCE]
    price(lean, bids, pricing, params, chosen, sure, values[Value.GROSS_EDGE :], start, stop, 0)
    first, is_asked = start, (meta["enabled"] != 0) & (meta["mode"] == MetaMode.BET)
    while first < stop and is_asked:
        f, end = map_at(maps, first + offset)
        judge_bets(lean, probs[2], problem, maps[f], codes, values, first, min(stop, end - offset))
        first = end - offset
    note_doubts(bids, params, codes, start, stop)
    first = start
    while first < stop and params[0]["arbiter"]["enabled"] != 0:
        f, end = map_at(maps, first + offset)
        in_use, last = maps[f]["arbiter_slope"] > 0.0, min(stop, end - offset)
        advise(arbiter, bids[Bid.ARBITER_WIN], in_use, codes, values, first, last, first - start)
        first = end - offset


@kernel
def decide_block(
    action, confidence, said, arbiter, regime, probs, problem, pricing, maps, offset, params, codes, values, table, found, filled, bids
):  # fmt: skip
    """Decide N cells: every column of `codes` [11, N] int8 and `values` [5, 9, 11 or 12, N] float64 is written.

    Rows stand in `Code` and `Value`.

    action [5, N] int8, -1 absent; confidence [5, N], NaN absent; arbiter [6, N] `ARBITER_INPUTS` and regime [2, N] `REGIME_INPUTS`, NaN
    unknown; probs [3, N]: SELL HOLD BUY of the meta model, NaN where it is not ready, for which `problem` [N] is the reason; [3, 1] of
    NaN and [1] stand for every cell; table: `pattern_table` of the parameters; found: scratch, int32, its length is the chunk in which
    cells pass the layers. What `decide.rule = edge` reads, of any length else: said [5, 3 H N] or [5, 0] (`fill_in`), pricing [3, N]
    (`pricing_of`), maps MAP [H * F] and offset (`value`), and the scratch filled [5, >= 3 chunk], bids [7, >= chunk], or [19, >= chunk]
    where H is above 1.
    """
    n, meta, chunk = action.shape[1], params[0]["meta"], len(found)
    is_mean, is_priced = params[0]["ensemble"]["rule"] == EnsembleRule.MEAN, params[0]["decide"]["rule"] == DecideRule.EDGE
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        look_up(action, regime, table, found, codes, start, stop)
        if is_mean:
            average_block(
                action, confidence, said, 0, maps[: n_maps(maps, action, said)], offset, params, codes, values, filled, start, stop
            )
        else:
            average(action, confidence, params, codes, values, start, stop)
        if is_priced and not is_mean:
            lean_on_votes(codes, values, start, stop)
        reset(codes, values, start, stop)
        if is_priced:
            decide_by_edge(
                action, confidence, said, arbiter, probs, problem, pricing, maps, offset, params, codes, values, filled, bids, start, stop
            )  # fmt: skip
            continue
        if meta["enabled"] != 0 and meta["mode"] == MetaMode.POLICY:
            grade(action, confidence, params, codes, values, start, stop)
            escalated, outvoted, clear = judge_policy(found, codes, start, stop)
            if clear or (escalated and meta["variant"] == MetaVariant.LEARNED):
                escalated |= ask(probs, problem, params, codes, values, start, stop)
            if escalated and params[0]["arbiter"]["enabled"] != 0:
                settle(arbiter, params, codes, values, start, stop)
            else:
                keep(codes, values, start, stop)
            if outvoted:
                restore(action, confidence, codes, values, start, stop)
            continue
        keep(codes, values, start, stop)
        if meta["enabled"] != 0:
            judge_learned(action, probs, problem, params, codes, values, start, stop)
        if meta["enabled"] != 0 and meta["mode"] == MetaMode.OVERRIDE:
            restore(action, confidence, codes, values, start, stop)


def decide(
    votes: Votes,
    arbiter: F8,
    regime: F8,
    params: Params | np.ndarray,
    meta_probs: F8 | None = None,
    out: Decisions | None = None,
    meta_problem: Reason | np.ndarray = Reason.MODEL_NOT_LOADED,
    pricing: F8 | None = None,
    maps: np.ndarray | None = None,
) -> Decisions:
    """Decide a block; nothing is carried from one block to the next.

    votes: `[5, n, S]`, of H horizons. arbiter `[6, n, S]`: `ARBITER_INPUTS`; regime `[2, n, S]`: `REGIME_INPUTS`; NaN where not known.
    params: `Params` or its record. meta_probs `[3, n, S]`: SELL HOLD BUY of the meta model, NaN where it is not ready (`meta_problem`, one
    or `[n]`, is the reason that is then recorded); None: no model; in mode `bet` the third plane is the probability that the bet pays.
    pricing [3, n, S] (`pricing_of`) and maps (`maps_on`, of H horizons): for `decide.rule = edge`; without them there is no edge. out:
    decisions from `Decisions.empty(n, S)` to write into, else fresh ones. Values are trusted (`check.as_votes`).

    Raises InputError on wrong shapes.
    """
    n, n_symbols = votes.action.shape[1:]
    for name, array, rows in (
        ("votes.action", votes.action, N_MODELS),
        ("votes.confidence", votes.confidence, N_MODELS),
        ("arbiter", arbiter, len(ARBITER_INPUTS)),
        ("regime", regime, len(REGIME_INPUTS)),
        ("meta_probs", meta_probs, 3),
        ("pricing", pricing, N_PRICING),
    ):
        if array is not None and array.shape != (rows, n, n_symbols):
            raise InputError(f"{name} must be of shape [{rows}, {n}, {n_symbols}] (planes, bars, symbols), was {list(array.shape)}")
    check_probs(votes.probs, (N_MODELS, n, n_symbols))
    maps = no_map(votes.n_horizons) if maps is None else maps
    if len(maps) % votes.n_horizons or np.count_nonzero(maps["first"] == maps["first"][0]) != votes.n_horizons:
        raise InputError(f"maps must be as many for each of {votes.n_horizons} horizons, was {len(maps)}; ask maps_on for the same")
    probs = np.full((3, 1, 1), np.nan) if meta_probs is None else meta_probs
    record = params.record() if isinstance(params, Params) else params
    is_priced = record[0]["decide"]["rule"] == DecideRule.EDGE
    if out is None:
        is_book = record[0]["governor"]["book"] == BookKind.CROSS_SECTION
        out = Decisions.empty(n, n_symbols, is_priced, is_book, hears_horizons(record, votes.n_horizons))
    if pricing is None:
        pricing = np.full((N_PRICING, n if is_priced else 0, n_symbols), np.nan)
    codes, values = out.slabs
    if codes.shape[1:] != (n, n_symbols):
        raise InputError(f"out must hold [{n}, {n_symbols}] cells (bars, symbols), was {list(codes.shape[1:])}")
    chunk = min(CHUNK, max(1, n * n_symbols))
    decide_block(
        *told(votes),
        _flat(arbiter),
        _flat(regime),
        _flat(probs),
        np.repeat(np.asarray(meta_problem, np.int64).reshape(-1), n_symbols if np.ndim(meta_problem) else 1),
        _flat(pricing),
        maps,
        0,
        record,
        _flat(codes, np.int8),
        _flat(values),
        pattern_table(record),
        np.empty(chunk, np.int32),
        np.empty((N_MODELS, 3 * chunk if is_priced else 0)),
        np.empty((n_bids(votes.n_horizons), chunk if is_priced else 0)),
    )
    return out


def bids_of(votes: Votes, arbiter: F8, params: Params, meta_probs: F8 | None, pricing: F8, maps: np.ndarray) -> F8:
    """Value the opinion of a block, each cell of the horizon that speaks there: rows as in `Bid` and `horizons.Best`, [19, n * S].

    votes: of several horizons, all of which may speak; the rest as in `decide`.
    """
    n_cells, record = votes.action[0].size, params.record()
    codes, values = np.zeros((len(Code), n_cells), np.int8), np.empty((len(Value), n_cells))
    bids, filled = np.empty((n_bids(votes.n_horizons), n_cells)), np.empty((N_MODELS, 3 * n_cells))
    pays, score, prices = np.full(1, np.nan) if meta_probs is None else _flat(meta_probs)[2], np.empty(n_cells), _flat(pricing)
    score_cells(_flat(arbiter), score, 0, n_cells)
    first = maps[: len(maps) // votes.n_horizons]
    average_block(*told(votes), 0, first, 0, record, codes, values, filled, 0, n_cells)
    value(values[Value.LEAN], prices, score, pays, first, 0, record, bids, 0, n_cells, 0)
    hear(*told(votes), score, pays, prices, maps, 0, record, codes, values, filled, bids, 0, n_cells)
    return bids


def price_opinion(action: np.ndarray, confidence: F8, pricing: F8, maps: np.ndarray, params: Params, out: Decisions) -> None:
    """Put an opinion of one's own into priced decisions: a signed confidence, valued by the maps as the ensemble's lean is.

    action int8, confidence [n, S]; pricing, maps: as in `decide`. Neither meta layer nor arbiter is asked.
    """
    record = params.with_values({"meta.enabled": False, "arbiter.enabled": False}).record()
    codes, values = (_flat(slab, slab.dtype.type) for slab in out.slabs)
    n_cells, sure = action.size, confidence.reshape(-1)
    values[Value.LEAN] = np.where(action.reshape(-1) == 2, sure, np.where(action.reshape(-1) == 0, -sure, 0.0))
    lean, flat, bids = values[Value.LEAN], _flat(pricing), np.empty((N_BIDS, n_cells))
    value(lean, flat, np.full(1, np.nan), np.full(1, np.nan), maps, 0, record, bids, 0, n_cells, 0)
    raw = codes[Code.RAW_ACTION], values[Value.RAW_CONFIDENCE], values[Value.GROSS_EDGE :]
    price(lean, bids, flat, record, *raw, 0, n_cells, 0)


def _flat(planes: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """View `[K, n, S]` planes as `[K, n * S]` cells, as kernels want them."""
    return as_array(planes, dtype).reshape(len(planes), planes.shape[1] * planes.shape[2])
