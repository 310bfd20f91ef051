"""Lookup tables of vote patterns: the answers of the rules to all 1,024 patterns of five votes, computed once.

Winner, agreement and the policy's reason depend on who voted what, not on the market or the confidences (only whether the base confidence
is low). A cell therefore looks up one number in a table of 4 KB that stays in the first-level cache (2026-11: 0.5 ns a cell, where the
rules themselves took 1.9 in SIMD). Weights that follow the regime have one table for each of the nine slices.

A pattern is `sum((action + 1) * 4^slot)`. An entry holds, from the lowest bit: ensemble action 2, consensus 3, its count 3, voters 3 bits;
the policy's reason 5 and verdict 2 bits, first for a sound base confidence, then for a low one; 1 bit for a consensus that lost the
weighted vote (D-70).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qtcore.choices import MissingFill
from qtcore.ensemble import consensus_rule, regime_weights, slice_rule, winner_rule
from qtcore.jit import kernel
from qtcore.meta.policy import policy_rule
from qtcore.params import PARAMS
from qtcore.rules import Reason
from qtcore.slots import is_outvoted_rule, tally_rule
from qtcore.types import Code, Verdict

N_PATTERNS, N_SLICES = 1024, 9
OUTVOTED = 25  # the highest bit of an entry


@kernel
def pattern_rule(actions, weights, params):
    """Return the entry of one pattern: five actions, -1 absent; params [1]."""
    sell, hold, buy, n = tally_rule(actions)
    winner, is_tie = winner_rule(actions, weights, params[0]["ensemble"]["tie_break"])
    winner = 1 if n == 0 else winner
    n_winners = sell if winner == 0 else (hold if winner == 1 else buy)
    entry = winner | consensus_rule(n_winners, n, is_tie) << 2 | n_winners << 5 | n << 8
    meta, counted = params[0]["meta"], n
    fills = meta["missing_fill"] == MissingFill.HOLD_HALF
    if fills:  # the absent of the four base models count as HOLD (7.1)
        counted = n + (actions[0] < 0) + (actions[1] < 0) + (actions[2] < 0) + (actions[3] < 0)
    for is_low in range(2):
        reason = policy_rule(sell, hold + counted - n, buy, is_low, meta["consensus_threshold"], meta["disagreement_threshold"])
        reason = Reason.TOO_FEW_VOTERS.value if n == 1 else (Reason.NO_VALID_MODELS.value if n == 0 else reason)
        kept = Verdict.NONE.value if n < 2 else Verdict.DEFER.value
        verdict = Verdict.ESCALATE.value if reason >= Reason.SPLIT_VOTE.value else kept
        entry |= (reason | verdict << 5) << (11 + 7 * is_low)
    is_outvoted = n >= 2 and (entry >> 11 & 31) <= Reason.STRONG_CONSENSUS_BUY.value and is_outvoted_rule(sell, hold, buy, winner)
    return entry | (is_outvoted and not fills) << 25


@kernel
def fill_table(params, table):
    """Work out every pattern into `table` int32 [1024], or [9 * 1024] for weights that follow the regime."""
    given, factors = params[0]["ensemble"]["weights"], params[0]["ensemble"]["regime_factors"]
    for k in range(len(table) // 1024):
        weights = (given[0], given[1], given[2], given[3], given[4])
        if len(table) > 1024:
            weights = regime_weights(given, factors, k)
        for p in range(1024):
            low = np.int8((p & 3) - 1), np.int8((p >> 2 & 3) - 1), np.int8((p >> 4 & 3) - 1)
            actions = low[0], low[1], low[2], np.int8((p >> 6 & 3) - 1), np.int8((p >> 8 & 3) - 1)
            table[1024 * k + p] = pattern_rule(actions, weights, params)


def pattern_table(record: np.ndarray) -> NDArray[np.int32]:
    """Return the table of a `PARAMS` record; the last few are remembered."""
    return _pattern_table(record.tobytes())


@lru_cache(maxsize=8)
def _pattern_table(content: bytes) -> NDArray[np.int32]:
    record = np.frombuffer(content, PARAMS).copy()
    is_fixed = bool(np.all(record[0]["ensemble"]["regime_factors"] == 1.0))
    table = np.empty(N_PATTERNS if is_fixed else N_PATTERNS * N_SLICES, np.int32)
    fill_table(record, table)
    return table


@kernel(inline=True)
def number(action, found, start, stop):
    """Write the patterns of the cells [start, stop) of `action` [5, N] int8 into `found` [>= stop - start]."""
    first = np.uintp(start)
    for i in range(np.uintp(stop - start)):
        j = first + i
        low = np.int32(action[0, j]) + 4 * np.int32(action[1, j]) + 16 * np.int32(action[2, j])
        found[i] = low + 64 * np.int32(action[3, j]) + 256 * np.int32(action[4, j]) + 341


@kernel
def look_up(action, regime, table, found, codes, start, stop):
    """Look up the cells [start, stop): `found` [>= stop - start] int32 gets their entries, codes [11, N] the integer ensemble columns.

    action [5, N] int8; regime [2, N]: read only with nine tables.
    """
    first = np.uintp(start)
    number(action, found, start, stop)
    if len(table) > 1024:
        for i in range(np.uintp(stop - start)):
            found[i] += 1024 * slice_rule(regime[0, first + i], regime[1, first + i])
    for i in range(np.uintp(stop - start)):
        found[i] = table[np.uintp(found[i])]
    for i in range(np.uintp(stop - start)):
        j, entry = first + i, found[i]
        codes[Code.ENSEMBLE_ACTION, j] = entry & 3
        codes[Code.CONSENSUS, j] = entry >> 2 & 7
        codes[Code.CONSENSUS_COUNT, j] = entry >> 5 & 7
        codes[Code.N_VOTERS, j] = entry >> 8 & 7
