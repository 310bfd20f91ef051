"""Dispatch of a sweep: settings are handed to the drivers, and their results put back in the caller's order."""

import numpy as np
from numpy.typing import NDArray

from qtcore.broker import traded_before
from qtcore.chain.decide import decide_block
from qtcore.chain.patterns import N_PATTERNS, N_SLICES, fill_table
from qtcore.chain.price import BETA, N_BIDS
from qtcore.choices import BookKind, DecideRule, MetaMode, Neutral, PolicyBase
from qtcore.jit import kernel, n_threads, prange
from qtcore.metrics import init_metrics
from qtcore.params import PARAMS, Params
from qtcore.portfolio import init_account
from qtcore.sweep.book_lanes import run_book_lanes
from qtcore.sweep.lanes import run_lanes
from qtcore.sweep.layout import BOOK, LANES, N_ACCOUNT, N_POSITION, REBALANCE_BARS, REFERENCE_CONFIDENCE, RESULTS
from qtcore.sweep.market import Market
from qtcore.sweep.plain import N_CODES, N_REGIMES, sweep_rows
from qtcore.sweep.rows import Driver, as_bytes, cut, number_rows, opinion_rows, suited, time_unit
from qtcore.types import F8, I8, N_ALONE, N_MODELS, N_UNPRICED, REGIME_METRICS, Bars, Code, InputError, Value, Verdict, Votes, slab

N_RESULTS = len(RESULTS)
__all__ = ["Bars", "Votes", "equity_at", "sweep", "sweep_with_equity"]  # the first two for the example


def sweep(market: Market, records: NDArray, n_chunks: int = 0) -> tuple[NDArray, NDArray]:
    """Run the chain once for every row of `records` (PARAMS [P]).

    Returns METRICS [P] and REGIME_METRICS [P, 15], or [0, 15] without regimes. n_chunks: pieces that threads take in turn, 0 for eight a
    thread. Raises InputError where a holding time was left to the label, or a row reads prices that the market does not hold.

    >>> hour = 3_600_000_000_000
    >>> bars = Bars(hour * np.arange(2), hour * np.arange(1, 3), *np.full((5, 2, 1), 100.0), ("BTCUSDT",), hour)
    >>> votes = Votes(np.full((5, 2, 1), -1, np.int8), np.full((5, 2, 1), np.nan))
    >>> from qtcore.features import FeatureBank
    >>> planes = FeatureBank(Params.profile("published"), bars.symbols, bars.interval, ()).compute(bars)
    >>> record = Params.profile("published").with_values({"broker.max_holding_bars": 5}).record()
    >>> sweep(Market.of(bars, votes, planes.arbiter, planes.regime), record)[0]["last_equity"].tolist()
    [10000.0]
    """
    return _run(market, records, np.empty(0, np.int64), n_chunks)[:2]


def sweep_with_equity(market: Market, records: NDArray, ends: NDArray[np.int64]) -> tuple[NDArray, NDArray, F8]:
    """Run the rows of `records` as `sweep` does; return their equity at the closes of the bars `ends` (ascending) too, [P, len(ends)]."""
    return _run(market, records, np.require(ends, np.int64, ["C", "W"]))


def equity_at(market: Market, records: NDArray, ends: NDArray[np.int64]) -> F8:
    """Run the rows of `records` and return their equity at the closes of the bars `ends` (ascending), [P, len(ends)]: e.g. of each day."""
    return sweep_with_equity(market, records, ends)[2]


def drivers(market: Market, records: NDArray) -> NDArray[np.int8]:
    """Say for every row of `records` (PARAMS [P]) who runs it in `sweep`, beside the other rows: `Driver` [P]."""
    if _is_plain(market) or not len(records):
        return np.full(len(records), Driver.REGIMES if market.cells.size else Driver.HORIZONS, np.int8)
    out = suited(market.bars, records)
    plain = cut(market.bars, records, market.probs.shape[2] > 1).plain
    out[plain] = np.where(out[plain] == Driver.LANES, Driver.FEW, out[plain])
    return out


def run_order(market: Market, records: NDArray) -> I8:
    """Return the numbers of `records` (PARAMS [P]) in the order in which the drivers run them: pieces of it are as quick as the whole."""
    lanes, plain = np.empty(0, np.int64), np.arange(len(records))
    if len(plain) and not _is_plain(market):
        chunks = cut(market.bars, records, market.probs.shape[2] > 1)
        lanes, plain = chunks.rows.reshape(-1), chunks.plain
        lanes = lanes[np.sort(np.unique(lanes, return_index=True)[1])]  # without what fills a chunk up
    return np.concatenate([lanes, _in_order(plain, _groups(market, records))])


def _run(market: Market, records: NDArray, ends: I8, n_chunks: int = 0) -> tuple[NDArray, NDArray, F8]:
    if np.any(records["broker"]["max_holding_bars"] == 0):
        raise InputError("broker.max_holding_bars must be above 0 in a sweep, was 0; put the label's horizon there")
    if np.any(records["decide"]["rule"] == DecideRule.EDGE) and not market.pricing.shape[2]:
        raise InputError("market must hold pricing where a row has decide.rule edge, was made without (Market.of)")
    is_book, width = records["governor"]["book"] == BookKind.CROSS_SECTION, market.bars.close.shape[1]
    if np.any(is_book) and width < 2:
        raise InputError(f"market must hold 2 symbols or more where a row has governor.book cross_section, was of {width}")
    if np.any(is_book & (records["governor"]["neutral"] >= Neutral.BETA)) and np.all(np.isnan(market.pricing[:, BETA])):
        raise InputError("market must hold betas where a row has governor.neutral beta, was made without (pricing_of)")
    p = len(records)
    metrics = np.repeat(init_metrics(0.0), p)
    regimes = np.zeros((p if market.cells.size else 0, N_REGIMES), REGIME_METRICS)
    equity = np.empty((p, len(ends)))
    plain = np.arange(p) if _is_plain(market) or p == 0 else _in_lanes(market, records, ends, metrics, equity)
    if len(plain):
        _plainly(market, records, plain, ends, n_chunks, metrics, regimes, equity)
    return metrics, regimes, equity


def _is_plain(market: Market) -> bool:
    """Whether the plain driver runs every row: lanes keep no metrics by regime, and hear one horizon."""
    return bool(market.cells.size) or market.n_horizons > 1


def _in_lanes(market: Market, records: NDArray, ends: I8, metrics: NDArray, equity: F8) -> I8:
    """Run what fits lanes; return the numbers of the rows that are left."""
    bars, has_model = market.bars, market.probs.shape[2] > 1
    chunks = cut(bars, records, has_model)
    n, n_lanes = bars.n, len(chunks.rows)
    if n_lanes == 0:
        return chunks.plain
    unit = time_unit(bars, int(records["governor"]["cooldown_minutes"].max()))
    keys = (bars.open_time - bars.open_time[0]) / unit, (bars.close_time - bars.open_time[0]) / unit
    pair = np.repeat(records[chunks.rows[:, 0]], 2)  # of a chunk: its opinion with a sound base confidence, and with a low one
    is_compared = (pair["meta"]["mode"] == MetaMode.POLICY) & (pair["meta"]["policy_base"] == PolicyBase.SHARED)
    always = np.tile([-1.0, 2.0], n_lanes)
    pair["meta"]["low_confidence"] = np.where(is_compared, always, pair["meta"]["low_confidence"])
    funding = np.empty((0, 0)) if bars.funding is None else bars.funding
    results, at_ends = np.empty((n_lanes, N_RESULTS, LANES)), np.empty((n_lanes, len(ends), LANES))
    n_pieces = min(n_threads(), n_lanes)
    sweep_lanes(
        bars.open, bars.high, bars.low, bars.close, funding, bars.open_time, bars.close_time, *keys, market.action, market.confidence,
        market.said, market.arbiter, market.regime, market.score, market.probs, market.problem, market.pricing, market.maps,
        as_bytes(pair).reshape(n_lanes, 2, -1), chunks.groups, chunks.settings, chunks.switches, chunks.numbers, ends, market.first,
        n_pieces, *market.buffers(n_pieces), results, at_ends,
    )  # fmt: skip
    rows = chunks.rows.reshape(-1)
    for k, name in enumerate(RESULTS):
        metrics[name][rows] = results[:, k].reshape(-1)
    metrics["n_bars"][rows] = n
    metrics["first_equity"][rows] = records["broker"]["initial_cash"][rows]
    equity[rows] = at_ends.swapaxes(1, 2).reshape(len(rows), len(ends))
    return chunks.plain


def _plainly(market: Market, records: NDArray, plain: I8, ends: I8, n_chunks: int, metrics: NDArray, regimes: NDArray, equity: F8) -> None:
    """Run the rows `plain` with the plain driver."""
    bars, n_symbols = market.bars, market.bars.close.shape[1]
    groups = _groups(market, records)
    order = _in_order(plain, groups)
    funding = np.empty((0, 0)) if bars.funding is None else bars.funding
    traded = np.empty(bars.close.shape if np.any(records["broker"]["impact"][plain] > 0.0) else (0, 0))
    if len(traded):
        traded_before(bars.close, bars.volume, market.traded.copy(), traded)
    account, positions, _ = init_account(Params(), n_symbols)
    account["n_bars"] = market.first
    bounds = np.linspace(0, len(order), min(len(order), n_chunks or 8 * n_threads()) + 1).astype(np.int64)
    sweep_rows(
        bars.open, bars.high, bars.low, bars.close, funding, traded, bars.open_time, bars.close_time, market.action, market.confidence,
        market.said, market.arbiter, market.regime, market.pattern, market.score, market.probs, market.problem, market.pricing, market.maps,
        market.cells, slab(account), slab(positions), order, groups, bounds, ends, as_bytes(records), as_bytes(metrics), as_bytes(regimes),
        equity,
    )  # fmt: skip


def _groups(market: Market, records: NDArray) -> I8:
    """Give rows the numbers of their ensemble, their table of patterns and their opinion, [3, P]."""
    opinion = opinion_rows(records, market.probs.shape[2] > 1)
    meta, broker = opinion["meta"], records["broker"]
    is_priced = records["decide"]["rule"] == DecideRule.EDGE
    meta["low_confidence"] = records["meta"]["low_confidence"] * ~is_priced
    prices = [records["decide"]["rule"], records["decide"]["min_edge"] * is_priced, records["governor"]["book"] * is_priced]
    prices += [broker[name] * is_priced for name in ("fee_rate", "slippage_rate", "max_holding_bars")]
    table = [opinion["ensemble"], *(meta[name] for name in ("consensus_threshold", "disagreement_threshold", "missing_fill"))]
    return np.stack([number_rows(columns) for columns in (table[:1], table, [*table, meta, records["arbiter"], *prices])])


def _in_order(rows: I8, groups: I8) -> I8:
    """Order rows so that those of one ensemble, then of one table, then of one opinion follow each other."""
    ordered: I8 = rows[np.lexsort(groups[::-1, rows])]
    return ordered


@kernel(parallel=True)
def sweep_lanes(
    open_, high, low, close, funding, open_time, close_time, open_key, close_key, action, confidence, said, arbiter, regime, score, probs,
    problem, pricing, maps, pairs, groups, settings, switches, numbers, ends, first_bar, n_pieces, kind, sure, bids, known, results, equity,
):  # fmt: skip
    """Run chunks of settings, every `n_pieces`-th by the same thread.

    open_ ... close_time: as `trade` takes them; open_key, close_key [n]: times in the unit of the settings. action ... maps: as in
    `Market`. pairs [C, 2, bytes]: two PARAMS for the opinion of a chunk; groups [C]: name of the opinion; settings, switches, numbers:
    as in `Chunks`. ends [D]: bars whose equity is kept. first_bar: `Market.first`. kind, sure, bids, known: `Market.buffers`,
    at least `n_pieces`, updated in place. Outputs: results [C, N_RESULTS, 64], equity [C, D, 64].
    """
    for k in prange(n_pieces):  # numba sees it as int64, then as uint64: without the cast a second compilation
        lanes_piece(
            open_, high, low, close, funding, open_time, close_time, open_key, close_key, action, confidence, said, arbiter, regime, score,
            probs, problem, pricing, maps, pairs, groups, settings, switches, numbers, ends, first_bar, np.int64(k), n_pieces, kind[k],
            sure[k], bids[k], known[k : k + 1], results, equity,
        )  # fmt: skip


@kernel(allocates=True)
def lanes_piece(
    open_, high, low, close, funding, open_time, close_time, open_key, close_key, action, confidence, said, arbiter, regime, score, probs,
    problem, pricing, maps, pairs, groups, settings, switches, numbers, ends, first_bar, first, step, kind, sure, bids, known, results,
    equity,
):  # fmt: skip
    """Run the chunks first, first + step, ... in buffers of their own: kind and sure [n, S], bids [7, n * S], known [1].

    The rest as in `sweep_lanes`.
    """
    n, n_symbols = close.shape
    block = action.shape[2]
    codes, values = np.empty((N_CODES, block), np.int8), np.empty((N_ALONE, block))
    table, found = np.empty(N_PATTERNS * N_SLICES, np.int32), np.empty(block, np.int32)
    scores = score.reshape(-1)[: n * n_symbols].reshape(n, n_symbols)
    a, p = np.empty(N_ACCOUNT), np.empty((n_symbols, N_POSITION))
    marks, flags, n_priced = np.empty((4, n_symbols)), np.empty((7, n_symbols), np.int64), min(block, bids.shape[1])
    filled, scratch = np.empty((N_MODELS, 3 * n_priced)), np.empty((N_BIDS, n_priced))
    for c in range(first, len(groups), step):
        if groups[c] != known[0]:
            known[0] = groups[c]
            for is_low in range(2):
                lay_out(
                    action, confidence, said, arbiter, regime, probs, problem, pricing, maps, pairs[c, is_low], is_low, codes, values,
                    table, found, filled, scratch, kind.reshape(-1), sure.reshape(-1), bids,
                )  # fmt: skip
        is_priced = pairs[c, 0].view(PARAMS)[0]["decide"]["rule"] == DecideRule.EDGE
        if is_priced and switches[c, BOOK] == BookKind.CROSS_SECTION:
            run_book_lanes(
                open_, high, low, close, funding, open_time, close_time, open_key, close_key, sure, bids, pricing, settings[c], switches[c],
                first_bar, np.int64(numbers[c, REBALANCE_BARS]), ends, a, p, marks, flags, equity[c],
            )  # fmt: skip
        else:
            run_lanes(
                open_, high, low, close, funding, close_time, open_key, close_key, kind, sure, scores, bids, is_priced, settings[c],
                switches[c], numbers[c, REFERENCE_CONFIDENCE], ends, a, p, marks, flags, equity[c],
            )  # fmt: skip
        results[c, :, :] = a[: N_RESULTS * LANES].reshape(N_RESULTS, LANES)


@kernel
def lay_out(
    action, confidence, said, arbiter, regime, probs, problem, pricing, maps, record, is_low, codes, values, table, found, filled, scratch,
    kind, sure, bids,
):  # fmt: skip
    """Decide every cell but for the arbiter, whose thresholds lanes compare; or value it before costs, which lanes compare.

    action ... maps: as in `Market`; record: PARAMS as bytes; codes [11, C], values [9, C], table, found [C], filled [5, 3 C] and scratch
    [7, C]: scratch. First call, is_low 0: kind [N] int8 gets the action, and 4 where the arbiter is called, sure [N] the confidence. Second
    call, is_low 1: kind gets 8 where a low base confidence calls it. Where opinions have a price the first call fills bids [7, N],
    kind holds HOLD, and sure the lean.
    """
    params, size = record.view(PARAMS), len(found)
    is_fixed = True
    for factor in params[0]["ensemble"]["regime_factors"]:
        is_fixed &= factor == 1.0
    patterns = table[:N_PATTERNS] if is_fixed else table
    is_priced = params[0]["decide"]["rule"] == DecideRule.EDGE
    if is_priced and is_low != 0:
        return
    fill_table(params, patterns)
    for b in range(len(action)):
        answers, silent = probs[min(b, len(probs) - 1)], problem[min(b, len(problem) - 1)]
        told, prices, start = said[min(b, len(said) - 1)], pricing[min(b, len(pricing) - 1)], b * size
        decide_block(
            action[b], confidence[b], told, arbiter[b], regime[b], answers, silent, prices, maps, start, params, codes,
            values[:N_ALONE if is_priced else N_UNPRICED], patterns, found, filled, scratch,
        )  # fmt: skip
        for i in range(min(size, len(kind) - start) if is_priced else 0):
            kind[start + i] = 1
            sure[start + i] = values[Value.LEAN, i]
            for row in range(N_BIDS):
                bids[row, start + i] = scratch[row, i]
        if is_priced:
            continue
        for i in range(min(size, len(kind) - start)):
            is_called = codes[Code.VERDICT, i] == Verdict.ESCALATE
            chosen, held = codes[Code.RAW_ACTION, i], values[Value.RAW_CONFIDENCE, i]
            if is_called:
                chosen, held = codes[Code.ENSEMBLE_ACTION, i], values[Value.ENSEMBLE_CONFIDENCE, i]
            if is_low == 0:
                kind[start + i] = chosen + 4 * is_called
                sure[start + i] = held
            else:
                kind[start + i] += 8 * is_called
