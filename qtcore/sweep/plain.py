"""Plain driver: the kernels of a backtest under a parallel loop over rows of parameters.

A row compares its thresholds with what was computed once, unless the row before had the same opinion, trades block by block with its own
account, and leaves one METRICS record. Cutting a run into blocks changes no bit, so a row is the backtest of its parameters.

The quick way (`select_block`, 2026-11: about a fifth of the time of `decide_block`) covers the policy with thresholds that vary. Where
more than thresholds speak (another mode, weights that follow the regime, a lost majority, a learned model's answer) `decide_block` decides.
"""

import numpy as np

from qtcore.arbiter import opinion_rule, settle_rule
from qtcore.chain.decide import decide_block
from qtcore.chain.horizons import n_bids, n_heard
from qtcore.chain.patterns import N_PATTERNS, N_SLICES, fill_table
from qtcore.chain.price import N_BIDS
from qtcore.chain.trade import trade
from qtcore.choices import BookKind, DecideRule, MetaMode, MetaVariant, PolicyBase
from qtcore.jit import kernel, prange
from qtcore.metrics import update_metrics
from qtcore.params import PARAMS
from qtcore.rules import Reason
from qtcore.types import (
    ACCOUNT,
    CLOSED,
    FILL,
    METRICS,
    N_ALONE,
    N_BOOK,
    N_CLOSED,
    N_MODELS,
    N_UNPRICED,
    POSITION,
    REGIME_METRICS,
    Code,
    Value,
)

N_REGIMES = 15  # nine regimes, three volatilities, three trends
N_CODES, N_VALUES, N_MONEY = len(Code), len(Value), len(Value) - Value.GROSS_EDGE
N_BIDS_OF_SEVERAL = n_bids(2)
CLOSED_BYTES, FILL_BYTES = CLOSED.itemsize, FILL.itemsize


@kernel(parallel=True)
def sweep_rows(
    open_, high, low, close, funding, traded, open_time, close_time, action, confidence, said, arbiter, regime, pattern, score, probs,
    problem, pricing, maps, cells, account, positions, order, groups, bounds, ends, records, metrics, regimes, day_equity,
):  # fmt: skip
    """Run the rows of parameters, the pieces between `bounds` in parallel.

    open_ ... close_time: as `trade` takes them; traded: of shape (0, 0) where no row asks. action ... cells: as in `Market`. account,
    positions: fresh ones, as bytes. order [P]: rows, those of one group together; groups [3, P]: numbers of their ensemble, pattern table
    and opinion. ends [D]: bars whose equity is kept, ascending. records, metrics, regimes [P, bytes]: PARAMS in, METRICS with zeros, and
    REGIME_METRICS, and day_equity [P, D], written in place.
    """
    for c in prange(len(bounds) - 1):
        sweep_piece(
            open_, high, low, close, funding, traded, open_time, close_time, action, confidence, said, arbiter, regime, pattern, score,
            probs, problem, pricing, maps, cells, account, positions, order[bounds[c] : bounds[c + 1]], groups, ends, records, metrics,
            regimes, day_equity,
        )  # fmt: skip


@kernel(allocates=True)
def sweep_piece(
    open_, high, low, close, funding, traded, open_time, close_time, action, confidence, said, arbiter, regime, pattern, score, probs,
    problem, pricing, maps, cells, fresh_account, fresh_positions, rows, groups, ends, records, metrics, regimes, day_equity,
):  # fmt: skip
    """Run `rows` one after the other in buffers of their own; every array as in `sweep_rows`."""
    n, n_symbols = close.shape
    size = action.shape[2] // n_symbols
    raw_action, raw_confidence, base = np.empty((n, n_symbols), np.int8), np.empty((n, n_symbols)), np.empty(n * n_symbols)
    codes, values = np.empty((N_CODES, size * n_symbols), np.int8), np.empty((N_VALUES, size * n_symbols))
    table, found = np.empty(N_PATTERNS * N_SLICES, np.int32), np.empty(size * n_symbols, np.int32)
    n_priced = n if pricing.shape[2] > 0 else 0
    money, n_cells = np.empty((N_MONEY, n_priced, n_symbols)), size * n_symbols if n_priced > 0 else 0
    has_horizons = said.shape[2] > 3 * action.shape[2]
    filled, bids = np.empty((N_MODELS, 3 * n_cells)), np.empty((N_BIDS_OF_SEVERAL if has_horizons else N_BIDS, n_cells))
    lasts = np.zeros(n_symbols, np.int64)
    account, positions = fresh_account.copy(), fresh_positions.copy()
    closed, scratch = np.zeros(N_CLOSED * CLOSED_BYTES, np.uint8), np.empty((2, n_symbols), np.uintp)
    governed, amounts = np.empty((2, size, n_symbols), np.int8), np.empty((2, size, n_symbols))
    lines, fills = np.empty((4, size)), np.empty((3 * size + 3) * n_symbols * FILL_BYTES, np.uint8)
    known = np.full(3, -1)
    for row in rows:
        if groups[2, row] != known[2]:
            opine(
                action, confidence, said, arbiter, regime, pattern, score, probs, problem, pricing, maps, records[row],
                groups[:, row] != known, codes, values, table, found, filled, bids, base, raw_action.reshape(-1),
                raw_confidence.reshape(-1), money.reshape(N_MONEY, -1),
            )  # fmt: skip
            known[:] = groups[:, row]
        account[:] = fresh_account
        positions[:] = fresh_positions
        closed[:] = 0
        lasts[:] = 0
        start_row(records[row], account, metrics[row])
        is_priced = n_priced > 0 and records[row].view(PARAMS)[0]["decide"]["rule"] == DecideRule.EDGE
        is_book = is_priced and records[row].view(PARAMS)[0]["governor"]["book"] == BookKind.CROSS_SECTION
        is_heard = has_horizons and n_heard(action[0], said[0], records[row].view(PARAMS)) > 1
        for first in range(0, n, size):
            last = min(first + size, n)
            prices, shares = slice(first, last if is_priced else first), slice(first, last if is_book else first)
            lengths = slice(first, last if is_heard else first)
            before = account.view(ACCOUNT)[0]["equity"]
            k = trade(
                open_[first:last], high[first:last], low[first:last], close[first:last],
                funding[first:last], traded[first:last], open_time[first:last], close_time[first:last],
                raw_action[first:last], raw_confidence[first:last], money[0, prices], money[1, prices], money[2, prices],
                money[3, shares], money[4, shares], money[5, lengths],
                records[row].view(PARAMS), account.view(ACCOUNT),
                positions.view(POSITION), closed.view(CLOSED), lasts, scratch, governed[0, : last - first],
                governed[1, : last - first].view(np.uint8), amounts[0, : last - first], amounts[1, : last - first],
                lines[0, : last - first], lines[1, : last - first], lines[2, : last - first], lines[3, : last - first],
                fills.view(FILL),
            )  # fmt: skip
            update_metrics(metrics[row], lines[0, : last - first], lines[3, : last - first], fills[: k * FILL_BYTES])
            note_ends(ends, first, lines[0, : last - first], day_equity[row])
            if len(regimes) > 0:
                reasons = governed[1, : last - first].view(np.uint8)
                add_regimes(cells, first, reasons, amounts[1, : last - first], lines[0, : last - first], before, regimes[row])


@kernel
def note_ends(ends, first, equity, day_equity):
    """Copy the equity [m] of a block that begins at bar `first` to day_equity [D] where a bar of `ends` [D], ascending, lies in it."""
    for d in range(np.searchsorted(ends, first), np.searchsorted(ends, first + len(equity))):
        day_equity[d] = equity[ends[d] - first]


@kernel
def start_row(record, account_slab, metrics_slab):
    """Put the row's own cash into a fresh account and fresh metrics. record: PARAMS, account_slab, metrics_slab: all as bytes."""
    cash, account, metrics = record.view(PARAMS)[0]["broker"]["initial_cash"], account_slab.view(ACCOUNT)[0], metrics_slab.view(METRICS)[0]
    account["balance"] = cash
    account["equity"] = cash
    account["peak"] = cash
    metrics["first_equity"] = cash
    metrics["last_equity"] = cash
    metrics["peak"] = cash


@kernel
def opine(
    action, confidence, said, arbiter, regime, pattern, score, probs, problem, pricing, maps, record, is_new, codes, values, table, found,
    filled, bids, base, raw_action, raw_confidence, money,
):  # fmt: skip
    """Decide every cell with one row of parameters (`record`, bytes) into raw_action, raw_confidence [N], and money [6, N] or [6, 0].

    action ... maps: as in `Market`. is_new [3]: ensemble, pattern table and opinion, whether each differs from before. codes [11, C],
    values [12, C], found [C], filled [5, 3 C], bids [7 or 19, C]: scratch of a block; table: room for nine pattern tables; base [N]:
    confidence of the ensemble. Both are kept.
    """
    params, size = record.view(PARAMS), len(found)
    is_fixed = True
    for factor in params[0]["ensemble"]["regime_factors"]:
        is_fixed &= factor == 1.0
    meta = params[0]["meta"]
    is_policy = meta["enabled"] != 0 and meta["mode"] == MetaMode.POLICY and meta["variant"] == MetaVariant.PUBLISHED
    is_priced = params[0]["decide"]["rule"] == DecideRule.EDGE
    is_book = is_priced and params[0]["governor"]["book"] == BookKind.CROSS_SECTION
    is_heard = n_heard(action[0], said[0], params) > 1
    n_values = N_VALUES if is_heard else N_BOOK if is_book else N_ALONE if is_priced else N_UNPRICED
    is_quick = is_fixed and is_policy and meta["policy_base"] == PolicyBase.SHARED
    patterns = table[:N_PATTERNS] if is_fixed else table
    if is_new[1]:
        fill_table(params, patterns)
    for b in range(len(action)):
        start = b * size
        stop = min(start + size, len(base))
        if is_quick and not is_new[0]:
            actions, confidences = raw_action[start:stop], raw_confidence[start:stop]
            if select_block(pattern[b], score[b], base[start:stop], patterns, params, probs.shape[2] > 1, found, actions, confidences):
                continue
        answers, silent = probs[min(b, len(probs) - 1)], problem[min(b, len(problem) - 1)]
        told, prices, offset = said[min(b, len(said) - 1)], pricing[min(b, len(pricing) - 1)], b * size
        decide_block(
            action[b], confidence[b], told, arbiter[b], regime[b], answers, silent, prices, maps, offset, params, codes,
            values[:n_values], patterns, found, filled, bids,
        )  # fmt: skip
        for i in range(stop - start):
            raw_action[start + i] = codes[Code.RAW_ACTION, i]
            raw_confidence[start + i] = values[Value.RAW_CONFIDENCE, i]
            base[start + i] = values[Value.ENSEMBLE_CONFIDENCE, i]
        for k in range(n_values - Value.GROSS_EDGE if is_priced and money.shape[1] > 0 else 0):
            for i in range(stop - start):
                money[k, start + i] = values[Value.GROSS_EDGE + k, i]


@kernel
def select_block(pattern, score, base, table, params, has_model, found, raw_action, raw_confidence):
    """Decide a block under the policy from what was worked out before. Returns False where more than thresholds must be asked.

    pattern, score, found [C] (the last is scratch); base, raw_action, raw_confidence [m], m <= C; table: the pattern table of `params`;
    has_model: a learned model may be asked about clear cells. Then, and where a majority lost the vote (D-70), what is written does not
    count.
    """
    limit, is_enabled = params[0]["meta"]["low_confidence"], params[0]["arbiter"]["enabled"] != 0
    threshold, gate, special = params[0]["arbiter"]["score_threshold"], params[0]["arbiter"]["gate_confidence"], np.int32(0)
    for i in range(np.uintp(len(base))):
        found[i] = table[np.uintp(pattern[i])]
    for i in range(np.uintp(len(base))):
        entry, kept, size = found[i], base[i], score[i]
        reason = (np.int32(entry >> 18) if kept < limit else np.int32(entry >> 11)) & np.int32(31)
        is_asked = is_enabled & (reason >= Reason.SPLIT_VOTE.value)
        asked, sure = settle_rule(size, threshold)
        is_clear = has_model & (reason == Reason.CLEAR_ENSEMBLE_NO_MODEL.value)
        special = np.int32(special | np.int32(entry >> 25) | np.int32(is_clear))
        raw_action[i], raw_confidence[i], _ = opinion_rule(np.int8(entry & 3), kept, is_asked, np.int8(asked), sure, gate)
    return special == 0


@kernel(allocates=True)
def add_regimes(cells, first, reasons, pnl, equity, before, regimes_slab):
    """Book the block's money where it was decided: what a symbol earns in bar t belongs to its regime at t - 1 (`spec` D-94).

    cells [n, S]: regimes of the whole run; reasons, pnl [m, S], equity [m]: of the block that begins at bar `first`; before: equity at its
    start. regimes_slab: REGIME_METRICS [15] as bytes, in place.
    """
    regimes, earned = regimes_slab.view(REGIME_METRICS), np.zeros(N_REGIMES)
    for t in range(len(equity)):
        earned[:] = 0.0
        at = max(first + t - 1, 0)
        for s in range(pnl.shape[1]):
            earned[cells[at, s]] += pnl[t, s]
            if reasons[t, s] == Reason.APPROVED:
                now = cells[first + t, s]
                regimes[now]["n_approved"] += 1
                regimes[9 + now // 3]["n_approved"] += 1
                regimes[12 + now % 3]["n_approved"] += 1
        for cell in range(9):
            earned[9 + cell // 3] += earned[cell]
            earned[12 + cell % 3] += earned[cell]
        for i in range(N_REGIMES):
            ret = earned[i] / before if before > 0.0 else 0.0
            regimes[i]["pnl"] += earned[i]
            regimes[i]["sum_ret"] += ret
            regimes[i]["sum_ret2"] += ret * ret
        before = equity[t]
