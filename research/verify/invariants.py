"""Decision invariants O-1..O-7 and G-1..G-5 (`spec` 11.6, 10.6), counted in NumPy from the stored columns alone.

O-8, O-9, O-10 and G-4 are claims about the function, not about its output: `parity` and `causality` test them by running it again.
"""

import numpy as np
from numpy.typing import NDArray

from qtcore.choices import DecideRule, DrawdownBasis, ExposureMode, FillAt, MetaMode, MissingFill
from qtcore.rules import Reason
from qtcore.types import F8, Action, Source, Verdict
from research.runs.money import BASIS_POINTS
from research.runs.round_trips import closes, opens, resized
from research.runs.tables import held_quantity
from research.verify.accounting import carried
from research.verify.causality import same_bits
from research.verify.claims import Claim, Mask
from research.verify.evidence import Evidence

CONSENSUS = 0.75  # share of votes from which O-1 and the guard of O-7 speak
OURS_ALONE = {"judge": ("O-1", "O-2", "O-4", "O-7"), "trade": ("O-5", "G-1", "G-2")}  # rules that an own layer may leave
LEDGER_TOLERANCE = 1e-9  # relative: sums of many notionals in another order than the kernel's


def check_invariants(run: Evidence) -> list[Claim]:
    """Return the claims O-1..O-7 and G-1, G-2, G-3, G-5, each with the number of cells it was checked on.

    What our own layer promises is not asked of the user's in its place.
    """
    theirs = {name for layer in run.own.chain for name in OURS_ALONE[layer]}
    opinion = priced_claims(run) if run.params.decide.rule == DecideRule.EDGE else opinion_claims(run)
    return [claim for claim in (*opinion, *governor_claims(run)) if claim.id not in theirs]


def priced_claims(run: Evidence) -> list[Claim]:
    """E-1 to E-3, with votes, O-5 and O-6: what an opinion with a price may do."""
    d, clock = run.planes, run.clock
    raw, lean, edge = d["raw_action"], d["lean"], d["edge"]
    acts, by_arbiter, everywhere = raw != Action.HOLD, d["source"] == Source.ARBITER, np.ones(raw.shape, bool)
    least = BASIS_POINTS * run.params.decide.min_edge
    side = np.where(by_arbiter, d["arbiter_action"] - 1, np.sign(lean))
    asked = (d["verdict"] == Verdict.ESCALATE) & run.params.arbiter.enabled
    costs = BASIS_POINTS * 2.0 * (run.params.broker.fee_rate + run.params.broker.slippage_rate)
    bounded = edge <= d["gross_edge"] - costs * (1.0 - LEDGER_TOLERANCE) if run.bars.funding is None else everywhere
    return [
        _voters(run),
        clock.cells("E-1", "what trades earns more than decide.min_edge after costs", "edge", acts, edge > least, edge - least),
        clock.cells("E-2", "the raw action is the side of the lean, or of the arbiter's score", "raw_action", acts, raw - 1 == side),
        clock.cells("E-3", "an edge is what costs leave of the gross edge", "edge", acts, bounded, edge),
        clock.cells(
            "O-3", "the arbiter is called where the ensemble is in doubt", "arbiter_action", everywhere, (d["arbiter_action"] >= 0) == asked
        ),
        *_last_word(run),
    ]


def opinion_claims(run: Evidence) -> list[Claim]:
    """O-1 to O-7: what the opinion layers and the governor's last word may do."""
    d, meta, clock = run.planes, run.params.meta, run.clock
    count = np.stack([sum((d[f"{m}_action"] == a).astype(np.int64) for m in run.votes.names) for a in (0, 1, 2)])
    voters = count.sum(axis=0)
    winner = count.argmax(axis=0)
    is_meta, is_arbiter = _switches(run)
    is_policy, is_v5 = is_meta & (meta.mode == MetaMode.POLICY), is_meta & (meta.mode == MetaMode.V5)
    agreed = (voters >= 2) & (count.max(axis=0) >= CONSENSUS * voters)
    firm = agreed & (count.max(axis=0) >= meta.consensus_threshold * voters)
    raw, ensemble = d["raw_action"], d["ensemble_action"]
    kept = (raw == ensemble) & same_bits(d["raw_confidence"], d["ensemble_confidence"])
    outvoted = firm & (ensemble != winner) & (raw == winner)  # D-70
    by_arbiter = (d["source"] == Source.ARBITER) & (raw == d["arbiter_action"]) & same_bits(d["raw_confidence"], d["arbiter_confidence"])
    accepted = by_arbiter & np.isin(d["arbiter_reason"], (Reason.BUY_SIGNAL, Reason.SELL_SIGNAL))
    asked = (d["verdict"] == Verdict.ESCALATE) & is_arbiter
    counts_omitted = is_policy & (meta.missing_fill == MissingFill.OMIT)
    everywhere = np.ones(raw.shape, bool)
    return [
        _voters(run),
        clock.cells("O-1", "a consensus of 75 % is the raw action", "raw_action", firm & counts_omitted, raw == winner),
        clock.cells(
            "O-2",
            "the raw action is the ensemble's or the accepted arbiter's",
            "raw_action",
            everywhere & is_policy,
            _says(d, outvoted, accepted),
        ),
        clock.cells(
            "O-3", "the arbiter is called on escalation and only then", "arbiter_action", everywhere, (d["arbiter_action"] >= 0) == asked
        ),
        clock.cells(
            "O-4",
            "without an accepted override the raw opinion is the ensemble's, bit by bit",
            "raw_confidence",
            d["source"] == Source.ENSEMBLE,
            kept | outvoted,
            d["raw_confidence"] - d["ensemble_confidence"],
        ),
        *_last_word(run),
        clock.cells(
            "O-7", "the guard keeps v5 from changing a consensus", "raw_action", agreed & is_v5 & meta.consensus_guard, raw == ensemble
        ),
    ]


def _voters(run: Evidence) -> Claim:
    """Count the voters anew."""
    voters = sum((run.planes[f"{name}_action"] >= 0).astype(np.int64) for name in run.votes.names)
    everywhere = np.ones(run.planes["n_voters"].shape, bool)
    return run.clock.cells("votes", "n_voters is the number of models that voted", "n_voters", everywhere, run.planes["n_voters"] == voters)


def _last_word(run: Evidence) -> list[Claim]:
    """O-5 to O-6: what the governor's last word may be."""
    d, clock = run.planes, run.clock
    final, reason, raw = d["final_action"], d["governor_reason"], d["raw_action"]
    is_trade, everywhere = final != Action.HOLD, np.ones(raw.shape, bool)
    is_sized = (d["size"] != 0.0) & (np.sign(d["size"]) == final - 1)
    is_book = run.params.is_book  # it aims at weights: what it buys and sells is no answer to the action of one cell
    is_sure = is_book | (d["raw_confidence"] >= run.params.governor.min_confidence)
    approved = (reason == Reason.APPROVED) & is_sized & is_sure
    return [
        clock.cells("O-5", "a trade is approved, sized and confident enough", "final_action", is_trade, approved),
        clock.cells(
            "O-5b", "what is approved or sized is a trade", "size", (d["size"] != 0.0) | (reason == Reason.APPROVED), is_trade, d["size"]
        ),
        clock.cells(
            "O-6",
            "the governor only turns an action into HOLD",
            "final_action",
            everywhere & (not is_book),
            (final == raw) | (final == Action.HOLD),
        ),
    ]


def _switches(run: Evidence) -> tuple[Mask, Mask]:
    """Whether meta layer and arbiter are on. One answer a bar [n, 1] each, as stages change them."""
    is_meta, is_arbiter = np.empty((run.bars.n, 1), bool), np.empty((run.bars.n, 1), bool)
    for rows, params in run.params.spans(run.bars.close_time):
        is_meta[rows], is_arbiter[rows] = params.meta.enabled, params.arbiter.enabled
    return is_meta, is_arbiter


def _says(d: dict[str, NDArray], outvoted: Mask, accepted: Mask) -> Mask:
    """Whether the raw action is said by a layer that policy mode listens to."""
    own = (d["source"] == Source.ENSEMBLE) & ((d["raw_action"] == d["ensemble_action"]) | outvoted)
    return np.asarray(own | accepted)


def governor_claims(run: Evidence) -> list[Claim]:
    """G-1, G-2, G-3 and G-5: sizes, exposure, closing exactly once, kill switch."""
    governor, clock = run.params.governor, run.clock
    base = decided_on(run)
    size, exposure = run.planes["size"], run.lines["exposure"]
    largest = (base * governor.max_position)[:, None]
    is_sized = size != 0.0
    limit = base * governor.max_exposure
    approves = is_sized.any(axis=1) & (governor.exposure_mode == ExposureMode.PROJECTED)
    entries = run.fills["is_entry"] == 1
    is_killed = np.full(len(run.fills), governor.emergency_stop)
    held = exposure_of(run)
    gap, start = np.abs(held - exposure), run.lines["equity"][0]
    after, total = np.abs(size), exposure
    if run.params.is_book:
        after, total = _booked(run)
        largest, limit, approves = largest * (1.0 + LEDGER_TOLERANCE), limit * (1.0 + LEDGER_TOLERANCE), is_sized.any(axis=1)
    return [
        clock.cells("G-1", "no position exceeds max_position", "size", is_sized, after <= largest, after - largest),
        clock.bars("G-2", "after every approval the exposure is within max_exposure", "exposure", approves, total <= limit, total - limit),
        clock.bars(
            "G-2b", "exposure is what fills and approvals add up to", "exposure", base == base, gap <= LEDGER_TOLERANCE * start, gap
        ),
        *_closed_once(run),
        clock.rows("G-5", "no entry under the kill switch", "is_entry", run.fills["bar"], run.fills["symbol"], ~(entries & is_killed)),
    ]


def _booked(run: Evidence) -> tuple[F8, F8]:
    """Return what a book's approvals lead to, at the closes: each position with what is added [n, S], and all of them at least [n], quote.

    Of what was ordered to become smaller, and of what a fill at this close moved before it was asked, at least nothing is left.
    """
    size, reason = run.planes["size"], run.planes["governor_reason"]
    worth = held_quantity(_before_the_close(run), run.bars.close.shape) * carried(run.bars.close)
    worth = np.where(np.isnan(worth), 0.0, worth)
    goes_on = np.where(worth * size < 0.0, 0.0, worth)  # a position on the other side leaves first
    leaves = np.isin(reason, (Reason.EXIT_SIGNAL, Reason.REDUCED, Reason.EMERGENCY_STOP_ACTIVE))
    return np.abs(goes_on + size), np.abs(np.where(leaves, 0.0, goes_on) + size).sum(axis=1)


def _before_the_close(run: Evidence) -> NDArray:
    """Return the fills that a decision at the close of their bar had seen."""
    fills = run.fills
    is_own = (fills["time"] == run.bars.close_time[fills["bar"]]) & (run.params.broker.fill == FillAt.CLOSE)
    is_own &= ~np.isin(fills["reason"], (Reason.STOP, Reason.DELISTED))
    seen = fills.copy()
    seen["bar"] += is_own  # in the next bar's books
    return seen[seen["bar"] < run.bars.n]


def decided_on(run: Evidence) -> F8:
    """Return the base of sizes and limits [n] as decisions found it, quote: before what they fill at the same close (`fill = close`)."""
    is_equity = run.params.governor.drawdown_basis == DrawdownBasis.EQUITY
    base = run.lines["equity" if is_equity else "balance"]
    if run.params.broker.fill != FillAt.CLOSE:
        return base
    is_later = run.fills["time"] == run.bars.close_time[run.fills["bar"]]
    fills = run.fills[is_later & ~np.isin(run.fills["reason"], (Reason.STOP, Reason.DELISTED, Reason.LIQUIDATED))]
    change = -(fills["fee"] + fills["slippage"]) if is_equity else fills["pnl"] - fills["funding"]
    before = base - np.bincount(fills["bar"], change, len(base))
    return np.where(run.lines["equity"] > 0.0, before * (1.0 + LEDGER_TOLERANCE), np.inf)  # of a ruined account nothing is left to tell


def exposure_of(run: Evidence) -> F8:
    """Notional of the positions held at each close plus what is ordered then [n], from fills and sizes alone."""
    trades, n = run.trades, run.bars.n
    size = np.abs(run.planes["size"]).sum(axis=1)
    pending = sum(np.concatenate([np.zeros(late), size[: n - late]]) for late in range(run.params.broker.fill.delay))
    change, last = np.zeros(n + 1), trades.entry["notional"].copy()
    np.add.at(change, trades.entry["bar"], last)
    for rows in resized(run.fills):
        qty, held = rows[0]["qty"], rows[0]["notional"]
        for row in rows[1:][~closes(rows[1:])]:
            after = held + row["notional"] if row["is_entry"] == 1 else held * (qty + row["qty"]) / qty
            change[row["bar"]] += after - held
            qty, held = qty + row["qty"], after
        last[np.searchsorted(trades.entry["trade_id"], rows["trade_id"][0])] = held
    np.add.at(change, trades.last, -last)
    return np.asarray(np.cumsum(change)[:n] + pending * (run.lines["equity"] > 0.0))


def _closed_once(run: Evidence) -> list[Claim]:
    """G-3: every trade id is opened once, closed at most once and not before, down to nothing, and is one row among the trades.

    What the fills leave open is closed in the table of trades at the end of the data, and nothing else is.
    """
    fills, clock, trades = run.fills, run.clock, run.trades
    ids, inverse = np.unique(fills["trade_id"], return_inverse=True)
    entries, exits = (np.bincount(inverse[which], minlength=len(ids)) for which in (opens(fills), closes(fills)))
    table = run.files.frame("trades", columns=["trade_id", "exit_reason"])
    listed, reason = table["trade_id"].to_numpy(), table["exit_reason"].to_numpy()
    once = np.bincount(np.searchsorted(ids, listed[np.isin(listed, ids)]), minlength=len(ids)) == 1
    good = (entries == 1) & (exits <= 1) & once
    held = trades.entry["qty"].copy()
    for rows in resized(fills):
        held[np.searchsorted(trades.entry["trade_id"], rows["trade_id"][0])] = sum(rows["qty"][~closes(rows)].tolist())
    fair = ~trades.closed | ((trades.exit["bar"] >= trades.entry["bar"]) & (trades.exit["qty"] == -held))
    at = np.searchsorted(ids, trades.entry["trade_id"])
    good[at[at < len(ids)]] &= fair[at < len(ids)]
    text = "every position is opened once, closed at most once and listed once"
    claims = [clock.rows("G-3", text, "trade_id", fills["bar"], fills["symbol"], good[inverse])]
    expected = np.where(trades.closed, trades.exit["reason"], Reason.END_OF_DATA)
    given = dict(zip(listed.tolist(), reason.tolist()))
    found = np.array([given.get(int(k), -1) for k in trades.entry["trade_id"]], np.int64)
    text = "what is open at the end is closed in the table of trades"
    bar, symbol = trades.entry["bar"], trades.entry["symbol"]
    return [*claims, clock.rows("G-3 end", text, "exit_reason", bar, symbol, found == expected, found - expected)]
