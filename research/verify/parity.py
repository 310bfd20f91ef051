"""Parity check: the same bits in one block, in random blocks and bar by bar. No tolerances, and the carried state counts.

Bar by bar costs Python calls, not arithmetic, so a long history is replayed bar by bar in stretches that start from carried state, and
in random blocks between them; the certificate says how many bars that were.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Engine, Result
from qtcore.types import BOOK_COLUMNS, DECISION_COLUMNS, FILL, HORIZON_COLUMNS, MONEY_COLUMNS, N_MODELS, Bars, Votes
from research.runs.folder import file_hashes
from research.runs.money import book_planes, money_planes
from research.verify.causality import first_difference, same_bits
from research.verify.claims import Claim, Clock, Offender
from research.verify.evidence import LINES, OUTCOMES, Evidence

MAX_SINGLE = 5_000  # bars that are replayed one at a time; shorter runs are replayed whole
STRETCH = 250  # bars of one stretch
N_BLOCKS = 24
BAR_COLUMNS = ("open", "high", "low", "close", "volume")

Outputs = dict[str, NDArray]


def outputs_of(results: Iterable[Result]) -> Outputs:
    """Join what an engine said about consecutive blocks: decisions, outcomes, lines, regime and fills, by column name."""
    parts = list(results)
    out: Outputs = {name: np.concatenate([getattr(r.decisions, name) for r in parts]) for name in DECISION_COLUMNS}
    out |= {name: np.concatenate([getattr(r, name) for r in parts]) for name in ("final_action", "governor_reason", "size", "pnl", *LINES)}
    priced = [money_planes(r.decisions) | book_planes(r.decisions) for r in parts]
    out |= {name: np.concatenate([planes[name] for planes in priced]) for name in (priced[0] if priced else ())}
    regime = [r.planes.regime for r in parts]
    for i, name in enumerate(("volatility", "trend_strength")):
        out[name] = np.concatenate([plane[i] for plane in regime])
    out["fills"] = np.concatenate([r.fills for r in parts])
    out["cell_pnl"] = np.concatenate([out["pnl"][1:], np.zeros_like(out["pnl"][:1])])
    return out


def stored_outputs(run: Evidence) -> Outputs:
    """Return the same columns as they lie in the folder; PnL per cell only."""
    names = (*DECISION_COLUMNS, *MONEY_COLUMNS, *BOOK_COLUMNS, *HORIZON_COLUMNS, *OUTCOMES, "volatility", "trend_strength")
    return {**{name: run.planes[name] for name in names if name in run.planes}, **run.lines, "fills": run.fills}


def file_claims(run: Evidence) -> list[Claim]:
    """Compare every stored array with its hash in the manifest, and the votes of the decisions with those of the predictions."""
    arrays = {f"bars.{name}": getattr(run.bars, name) for name in ("open_time", "close_time", *BAR_COLUMNS)}
    arrays |= {"votes.action": run.votes.action, "votes.confidence": run.votes.confidence, "fills": run.fills, **run.lines}
    arrays |= {f"decisions.{name}": plane for name, plane in run.planes.items()}
    if run.votes.probs is not None:
        arrays["votes.probs"] = run.votes.probs
    if run.votes.maps is not None:
        arrays["votes.maps"] = run.votes.maps
    if run.bars.funding is not None:
        arrays["bars.funding"] = run.bars.funding
    hashes = run.files.manifest["arrays"]
    wrong = [n for n in hashes if n not in arrays or hashlib.sha256(np.ascontiguousarray(arrays[n]).data).hexdigest() != hashes[n]]
    first = Offender(-1, "somewhere", "", wrong[0], 1.0) if wrong else None
    said: Outputs = {"action": run.votes.action, "confidence": run.votes.confidence, "label": run.planes["label"]}
    predicted: Outputs = {"action": run.predictions.action, "confidence": run.predictions.confidence, "label": run.predictions.labels}
    known = run.files.manifest.get("files", {})
    mine = file_hashes(run.files.path) if known else {}
    other = [name for name in known if mine.get(name) != known[name]]
    moved = Offender(-1, "somewhere", "", other[0], 1.0) if other else None
    votes = [_compare_plane(run.clock, name, said[name], predicted[name]) for name in said]
    offender = next((o for _, _, o in votes if o is not None), None)
    return [
        Claim("files", "every stored array has the hash of the manifest", len(hashes), len(wrong), "arrays", first),
        Claim("tables", "every table is as the backtest wrote it", len(known), len(other), "files", moved),
        Claim(
            "inputs",
            "votes and labels are those of the predictions",
            sum(v[0] for v in votes),
            sum(v[1] for v in votes),
            "values",
            offender,
        ),
    ]


def replay(run: Evidence, edges: Iterable[int]) -> tuple[Outputs, dict[str, NDArray]]:
    """Drive a fresh engine over the run's bars and votes, cut at `edges`. Returns outputs and final state."""
    engine = run.engine()
    cuts = sorted({0, run.bars.n, *edges})
    results = [engine.run(run.bars[a:b], run.votes[a:b]) for a, b in pairwise(cuts)]
    return outputs_of(results), engine.state


def compare(clock: Clock, id_: str, text: str, expected: Outputs, found: Outputs, rows: int | None = None) -> Claim:
    """Compare columns that both have, by bits, up to row `rows`; counts values, names the earliest difference."""
    checked, violated, first = 0, 0, None
    for name, ours in expected.items():
        if name not in found:
            continue
        a, b = (x if rows is None else _until(name, x, rows) for x in (ours, found[name]))
        if name == "fills":
            n, bad, offender = _compare_fills(clock, a, b)
        else:
            n, bad, offender = _compare_plane(clock, name, a, b)
        checked, violated = checked + n, violated + bad
        if offender is not None and (first is None or offender.bar < first.bar):
            first = offender
    return Claim(id_, text, checked, violated, "values", first)


def _until(name: str, array: NDArray, rows: int) -> NDArray:
    return array[array["bar"] < rows] if name == "fills" else array[:rows]


def _compare_plane(clock: Clock, name: str, a: NDArray, b: NDArray) -> tuple[int, int, Offender | None]:
    gap = first_difference(name, a, b)
    if gap is None:
        return a.size, 0, None
    n_bad = int(np.count_nonzero(~same_bits(a, b))) if a.shape == b.shape and a.dtype == b.dtype else max(a.size, 1)
    return a.size, n_bad, clock.offender(gap.bar, gap.symbol, gap.name, gap.distance)


def _compare_fills(clock: Clock, a: NDArray, b: NDArray) -> tuple[int, int, Offender | None]:
    """Compare two ledgers row by row; a ledger that ends early differs in every missing row."""
    n, names = min(len(a), len(b)), FILL.names or ()
    equal = np.stack([same_bits(a[name][:n].copy(), b[name][:n].copy()) for name in names]) if n else np.ones((len(names), 0), bool)
    n_bad = int(np.count_nonzero(~equal)) + len(names) * abs(len(a) - len(b))
    checked = len(names) * max(len(a), len(b))
    if n_bad == 0:
        return checked, 0, None
    if not equal.all():
        k = int(np.argmin(equal.all(axis=0)))
        name = names[int(np.argmin(equal[:, k]))]
        return checked, n_bad, clock.offender(int(a["bar"][k]), int(a["symbol"][k]), f"fills.{name}", float(a[name][k]) - float(b[name][k]))
    row = (a if len(a) > len(b) else b)[n]
    return checked, n_bad, clock.offender(int(row["bar"]), int(row["symbol"]), "fills", float("inf"))


def block_edges(n: int, seed: int) -> list[int]:
    """Random cuts, and blocks of one, two and three bars at both ends."""
    rng = np.random.default_rng([seed, 1])
    small = [1, 2, 4, n - 6, n - 3, n - 1]
    return [c for c in {*small, *(int(x) for x in rng.integers(1, max(n, 2), N_BLOCKS))} if 0 < c < n]


def single_edges(n: int, seed: int) -> tuple[list[int], int]:
    """Cuts around every bar of the sampled stretches, and how many bars these are: all of them up to 5,000."""
    if n <= MAX_SINGLE:
        return list(range(n)), n
    rng = np.random.default_rng([seed, 2])
    starts = np.arange(0, n - STRETCH, STRETCH)
    chosen = sorted(rng.choice(len(starts), MAX_SINGLE // STRETCH, replace=False))
    edges = {int(starts[k]) + i for k in chosen for i in range(STRETCH + 1)}
    return sorted({*edges, *block_edges(n, seed)}), len(chosen) * STRETCH


def check_parity(run: Evidence, seed: int, report: Any) -> tuple[list[Claim], Outputs, int]:
    """Replay in one block, in random blocks and bar by bar; compare with the folder and with each other.

    Returns the claims, the outputs of the one-block replay, and the number of bars that were replayed one at a time. report(text) is called
    before each replay.
    """
    clock = run.clock
    report("replay in one block")
    whole, state = replay(run, [])
    text = "the run again from bars, votes and parameters equals the stored arrays"
    claims = [*file_claims(run), compare(clock, "replay", text, stored_outputs(run), whole)]
    report("replay in random blocks")
    parts, parts_state = replay(run, block_edges(run.bars.n, seed))
    claims.append(compare(clock, "O-8", "in random blocks it says the same", whole, parts))
    claims.append(compare_state("O-8 state", "random blocks leave the same state", state, parts_state))
    report("replay bar by bar")
    edges, n_single = single_edges(run.bars.n, seed)
    parts, parts_state = replay(run, edges)
    claims.append(compare(clock, "O-8 bar by bar", f"bar by bar it says the same ({n_single} of {run.bars.n} bars)", whole, parts))
    claims.append(compare_state("O-8 bar state", "bar by bar leaves the same state", state, parts_state))
    expected, found = ({name: outputs[name] for name in ("governor_reason", "size")} for outputs in (whole, parts))
    claims.append(compare(clock, "G-4", "live, one bar at a time, allocates the same", expected, found))
    return claims, whole, n_single


def compare_state(id_: str, text: str, expected: dict[str, NDArray], found: dict[str, NDArray]) -> Claim:
    """Compare carried arrays byte by byte; the first array that differs is named as the column."""
    n_bytes = sum(array.nbytes for array in expected.values())
    if set(expected) != set(found):
        name = min(set(expected) ^ set(found))
        return Claim(id_, text, n_bytes, n_bytes, "bytes", Offender(-1, "at the end", "", name, float("inf")))
    bad, first = 0, None
    for name, array in expected.items():
        a, b = (np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8) for x in (array, found[name]))
        differing = int(np.count_nonzero(a != b)) if len(a) == len(b) else max(len(a), len(b))
        bad += differing
        if differing and first is None:
            first = Offender(-1, "at the end", "", name, float(differing))
    return Claim(id_, text, n_bytes, bad, "bytes", first)


def random_future(votes: Votes, after: int, seed: int) -> Votes:
    """Return votes whose rows from `after` on are shuffled in time and said by others.

    Of the voters heard before, every second one falls silent. Who was first heard later is not heard at all, and who never was speaks.
    """
    rng = np.random.default_rng([seed, after])
    order = np.arange(votes.action.shape[1])
    order[after:] = rng.permutation(order[after:])
    before, later = ((votes.action[:, rows] >= 0).any(axis=(1, 2)) for rows in (slice(after), slice(after, None)))
    speaks, speaker = np.asarray(~(before | later)), np.arange(N_MODELS)
    speaks[rng.permutation(np.flatnonzero(before))[1::2]] = True
    if later.any():
        speaker[~later] = np.flatnonzero(later)[0]  # whose words they take

    def other(plane: NDArray, absent: float) -> NDArray:
        out = plane.copy()
        out[:, after:] = plane[speaker][:, order[after:]]
        out[~speaks, after:] = absent
        return out

    probs = None if votes.probs is None else other(votes.probs, np.nan)
    return replace(votes, action=other(votes.action, -1), confidence=other(votes.confidence, np.nan), probs=probs)


def run_once(engine: Engine, bars: Bars, votes: Votes) -> Outputs:
    """One block through a fresh engine."""
    return outputs_of([engine.run(bars, votes)])
