"""Metamorphic checks of the chain: another future, other symbols' order, a kill switch (`spec` O-9, O-10, G-5)."""

from dataclasses import replace
from typing import Any

import numpy as np

from qtcore.types import BOOK_COLUMNS, DECISION_COLUMNS, HORIZON_COLUMNS, MONEY_COLUMNS, Bars
from research.verify.causality import cut_points, rewrite_future
from research.verify.claims import Claim
from research.verify.evidence import Evidence
from research.verify.parity import Outputs, compare, random_future, run_once

N_CUTS = 4
# An own judge may look at the symbols as they stand; `check_layer` tells of it.
JUDGED = (
    "raw_action",
    "raw_confidence",
    *MONEY_COLUMNS,
    *BOOK_COLUMNS,
    *HORIZON_COLUMNS,
)
OPINION = (*DECISION_COLUMNS, *MONEY_COLUMNS, *BOOK_COLUMNS, *HORIZON_COLUMNS, "volatility", "trend_strength")


def check_reruns(run: Evidence, whole: Outputs, seed: int, report: Any) -> list[Claim]:
    """Rewrite the future after random cuts, permute the symbols, pull the kill switch. whole: outputs of the run in one block."""
    report("rewrite the future")
    causality = future_claims(run, whole, seed)
    report("permute the symbols")
    return [*causality, order_claim(run, whole, seed), kill_claim(run)]


def future_claims(run: Evidence, whole: Outputs, seed: int) -> list[Claim]:
    """O-9: bars and votes after each cut are replaced, everything before it must keep its bits."""
    past = {name: array for name, array in whole.items() if name != "cell_pnl"}  # the PnL of a cell is known one bar later
    parts = []
    for cut in cut_points(run.bars.n, N_CUTS, seed + 3):
        changed = run_once(run.engine(), rewrite_future(run.bars, cut, seed), random_future(run.votes, cut, seed))
        parts.append(compare(run.clock, "O-9", "", past, changed, rows=cut))
    first = min((p.first for p in parts if p.first is not None), key=lambda f: f.bar, default=None)
    text = f"another future after {len(parts)} random bars changes nothing before them"
    return [Claim("O-9", text, sum(p.checked for p in parts), sum(p.violated for p in parts), "values", first)]


def order_claim(run: Evidence, whole: Outputs, seed: int) -> Claim:
    """O-10: the opinion on a symbol does not depend on the column it stands in; sizes may, as capital is shared (10.6 c)."""
    order = np.random.default_rng([seed, 4]).permutation(len(run.bars.symbols))
    planes: dict[str, Any] = {
        name: np.ascontiguousarray(getattr(run.bars, name)[:, order]) for name in ("open", "high", "low", "close", "volume")
    }
    funding = None if run.bars.funding is None else np.ascontiguousarray(run.bars.funding[:, order])
    symbols = tuple(run.bars.symbols[i] for i in order)
    bars: Bars = replace(run.bars, symbols=symbols, funding=funding, **planes)
    votes = run.votes
    probs = None if votes.probs is None else np.ascontiguousarray(votes.probs[:, :, order])
    votes = replace(votes, action=votes.action[:, :, order], confidence=votes.confidence[:, :, order], probs=probs)
    permuted = run_once(run.engine(), bars, votes)
    said = [name for name in OPINION if name in whole and (run.own.judge is None or name not in JUDGED)]
    back = {name: permuted[name][:, np.argsort(order)] for name in said}
    return compare(run.clock, "O-10", "another order of the symbols changes no opinion", {name: whole[name] for name in said}, back)


def kill_claim(run: Evidence) -> Claim:
    """G-5: the same run under the kill switch opens nothing."""
    fills = run_once(run.engine({"governor.emergency_stop": True}), run.bars, run.votes)["fills"]
    text = "the same run under the kill switch opens nothing"
    n_entries = int(np.count_nonzero(fills["is_entry"] == 1))
    first = run.clock.offender(int(fills["bar"][0]), int(fills["symbol"][0]), "fills", 1.0) if n_entries else None
    return Claim("G-5 rerun", text, run.bars.n, n_entries, "bars", first)
