"""Driver assignment: which driver runs a setting, and beside which others. Settings that differ only in thresholds share lanes.

Lanes take every opinion, and every parameter that its declaration does not leave to the plain driver (`qtcore.declare.Lane`); what
chooses a branch instead of a number must be the same in all lanes of a chunk. Lanes that are alike act in the same bars, so settings are
sorted before they are cut.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.choices import BookKind, DecideRule, MetaMode, MetaVariant, PolicyBase
from qtcore.declare import Lane
from qtcore.params import PARAMS, Params, lanes_of
from qtcore.sweep.layout import LANES, NUMBERS, SETTINGS, SWITCHES
from qtcore.types import F8, I8, N_MODELS, NS_PER_MINUTE, Bars

LEAST = 24  # rows of a kind from which a chunk of lanes is quicker than the plain driver; 13 were twice as slow (2026-11)
ALIKE = ("max_daily_trades", "min_confidence", "score_threshold")  # what says most about when a lane acts
OF_SYMBOLS = ("sizing_mode", "exposure_mode", "order", "reference_confidence")  # of switches and numbers: what a book does not read
OF_BOOKS = ("neutral", "rebalance_bars")  # what it alone reads
EXACT = 2**53  # integers below it are exact in float64
SHARES = np.unique([k / n for n in range(1, N_MODELS + 1) for k in range(1, n + 1)])  # that a vote can reach
DISSENT = np.unique([1.0 - k / n for n in range(1, N_MODELS + 1) for k in range(1, n + 1)])


class Driver(IntEnum):
    """Who runs a setting: lanes, or the plain driver because of what is named."""

    LANES = 0
    REGIMES = 1  # metrics by regime are kept
    TIMES = 2  # float64 cannot hold the times of the bars exactly
    HOLES = 3  # a bar has an open or a close without the other
    FEW = 4  # fewer than LEAST settings of its kind
    HORIZONS = 5  # voters speak of several horizons
    PARAMETER = 8  # and above: the first parameter whose value lanes do not take, 8 + its number in the order of declaration


IN_LANES = lanes_of()


def driver_name(code: int) -> str:
    """Name a driver's code: that of `Driver`, or the parameter that needs the plain one.

    >>> driver_name(Driver.FEW), driver_name(Driver.PARAMETER)
    ('few', 'features.feature_set')
    """
    return Driver(code).name.lower() if code < Driver.PARAMETER else list(IN_LANES)[code - Driver.PARAMETER]


@dataclass(frozen=True)
class Chunks:
    """Settings in chunks of 64 lanes.

    rows [C, 64]: numbers of the rows; a chunk that is not full repeats its last one. settings [C, N_SETTINGS * 64],
    switches [C, N_SWITCHES], numbers [C, N_NUMBERS]: what `run_lanes` and `run_book_lanes` take. groups [C]: name of the
    opinion, a hash of its content. plain [Q]: the rows that the plain driver runs.
    """

    rows: I8
    settings: F8
    switches: I8
    numbers: F8
    groups: I8
    plain: I8


def time_unit(bars: Bars, cooldown_minutes: int) -> int:
    """Return the largest unit, ns, in which all times and cooldowns are whole; 0 where float64 cannot hold them exactly."""
    if bars.n == 0:
        return 0
    start = int(bars.open_time[0])
    unit = int(np.gcd.reduce(np.concatenate([bars.open_time - start, bars.close_time - start, [NS_PER_MINUTE]])))
    span = int(bars.close_time.max()) - start + cooldown_minutes * NS_PER_MINUTE
    return unit if span // unit < EXACT else 0


def suited(bars: Bars, records: NDArray) -> NDArray[np.int8]:
    """Return for every row of PARAMS [P] the `Driver` that its parameters, as they are declared, and the bars ask for."""
    out = np.full(len(records), Driver.LANES, np.int8)
    if not time_unit(bars, int(records["governor"]["cooldown_minutes"].max(initial=0))):
        out[:] = Driver.TIMES
    elif np.any(np.isnan(bars.open) != np.isnan(bars.close)):
        out[:] = Driver.HOLES
    else:
        off = Params.profile("published").record()[0]
        for number, (name, lanes) in reversed(list(enumerate(IN_LANES.items()))):
            layer, key = name.split(".")
            if key in (PARAMS[layer].names or ()) and (known := lanes.known(off[layer][key])) is not None:
                out[~_is_one_of(records[layer][key], known)] = Driver.PARAMETER + number
    return out


def _is_one_of(column: NDArray, known: tuple[Any, ...]) -> NDArray[np.bool_]:
    """Say which rows of a column [P] or [P, K] hold one of the values."""
    return np.any([(column == value).reshape(len(column), -1).all(axis=1) for value in known], axis=0)


def columns_of(rows: NDArray, kind: Lane) -> list[NDArray]:
    """Return the columns of the parameters that lanes take in one way."""
    names = [name.split(".") for name, lanes in IN_LANES.items() if lanes.kind == kind]
    return [rows[layer][key] for layer, key in names]


def opinion_columns(rows: NDArray) -> list[NDArray]:
    """Return what makes an opinion; `low_confidence` is a row of the lanes, but not on every basis of the policy.

    Where opinions have a price, lanes do not compare whether there is an arbiter.
    """
    asks = rows["arbiter"]["enabled"] * (rows["decide"]["rule"] == DecideRule.EDGE)
    return [*columns_of(rows, Lane.OPINION), rows["meta"]["low_confidence"], asks]


def opinion_rows(records: NDArray, has_model: bool) -> NDArray:
    """Return the rows PARAMS [P] with everything of the opinion levelled that cannot make a difference between lanes.

    Lanes compare low_confidence themselves, and the arbiter's thresholds. Shares of at most five votes take few values.
    """
    rows = records.copy()
    meta, is_policy = rows["meta"], rows["meta"]["mode"] == MetaMode.POLICY
    is_shared = is_policy & (meta["policy_base"] == PolicyBase.SHARED)
    meta["low_confidence"] = np.where(is_shared, 0.0, meta["low_confidence"])
    for name, levels in (("consensus_threshold", SHARES), ("disagreement_threshold", DISSENT)):
        meta[name] = np.where(is_policy, np.searchsorted(levels, meta[name]), meta[name])
    for name in ("override_threshold", "v5_threshold", "consensus_guard"):
        meta[name] = np.where(is_policy, 0, meta[name])
    if not has_model:
        meta["entropy_threshold"] = 0.0
        meta["variant"] = np.where(is_policy, MetaVariant.PUBLISHED, meta["variant"])
    is_priced = records["decide"]["rule"] == DecideRule.EDGE
    rows["meta"][(records["meta"]["enabled"] == 0) | is_priced] = np.zeros((), rows["meta"].dtype)
    meta["enabled"] = np.where(is_priced, records["meta"]["enabled"] * has_model, meta["enabled"])
    return rows


def number_rows(columns: list[NDArray]) -> I8:
    """Give rows [P] numbers by content: equal in all `columns`, equal numbers."""
    table = np.concatenate([as_bytes(column) for column in columns], axis=1)
    numbers: I8 = np.unique(table.view(f"V{table.shape[1]}"), return_inverse=True)[1].reshape(-1).astype(np.int64)
    return numbers


def as_bytes(records: NDArray) -> NDArray[np.uint8]:
    """View records [P] or [P, K] as a row of plain bytes for each of the P; a copy where they do not lie side by side."""
    width = records.dtype.itemsize * (records.size // max(1, len(records)))
    return np.require(records, None, ["C", "W"]).reshape(-1).view(np.uint8).reshape(len(records), width)


def cut(bars: Bars, records: NDArray, has_model: bool) -> Chunks:
    """Cut the rows PARAMS [P] into chunks of lanes; few of a kind are left to the plain driver."""
    opinion = opinion_rows(records, has_model)
    groups, switches, numbers = number_rows(opinion_columns(opinion)), _switches(records), _numbers(records)
    kinds = number_rows([groups, switches, numbers])
    settings = _settings(records, time_unit(bars, int(records["governor"]["cooldown_minutes"].max(initial=0))))
    is_suited = suited(bars, records) == Driver.LANES
    rows, plain, chunks = np.flatnonzero(is_suited), [np.flatnonzero(~is_suited)], []
    rows = rows[np.argsort(kinds[rows], kind="stable")]
    for same in np.split(rows, np.flatnonzero(np.diff(kinds[rows])) + 1) if len(rows) else ():
        kind = put_alike_together(same, [_hurdles(records), *(settings[:, SETTINGS.index(name)] for name in ALIKE)])
        n = len(kind) // LANES * LANES
        n = len(kind) if len(kind) - n >= LEAST else n
        plain.append(kind[n:])
        chunks += [kind[np.minimum(np.arange(start, start + LANES), n - 1)] for start in range(0, n, LANES)]
    table = np.array(chunks, np.int64).reshape(len(chunks), LANES)
    lanes = np.ascontiguousarray(settings[table].swapaxes(1, 2)).reshape(len(chunks), len(SETTINGS) * LANES)
    first = table[:, 0]
    names = _names(opinion[first])
    return Chunks(table, lanes, switches[first], numbers[first], names, np.sort(np.concatenate(plain)))


def _names(opinion: NDArray) -> I8:
    """Name opinions [C] by their content, so that names mean the same in every call."""
    content = np.concatenate([as_bytes(column) for column in opinion_columns(opinion)], axis=1)
    return np.array([hash(row.tobytes()) for row in content], np.int64)


def put_alike_together(rows: I8, columns: list[F8]) -> I8:
    """Order `rows` so that those of a chunk are near each other in `columns` [P]: cut by the first that varies, each piece by the next."""
    columns = [column for column in columns if np.ptp(column[rows]) > 0.0]
    if not columns:
        return rows
    n_pieces = max(1, round((len(rows) / LANES) ** (1.0 / len(columns))))
    pieces = np.array_split(rows[np.argsort(columns[0][rows], kind="stable")], n_pieces)
    return np.concatenate([put_alike_together(piece, columns[1:]) for piece in pieces])


def _hurdles(records: NDArray) -> F8:
    """Return what an edge before costs must exceed, [P]; 0.0 where opinions have no price."""
    broker, decide = records["broker"], records["decide"]
    hurdle: F8 = 2.0 * (broker["fee_rate"] + broker["slippage_rate"]) + decide["min_edge"]  # an order alone: `costs_rule` takes scalars
    return np.where(decide["rule"] == DecideRule.EDGE, hurdle, 0.0)


def _settings(records: NDArray, unit: int) -> F8:
    """Take what lanes compare with, [P, N_SETTINGS]."""
    arbiter = records["arbiter"]
    rows = {name.split(".")[1]: name.split(".")[0] for name, lanes in IN_LANES.items() if lanes.kind == Lane.ROW and not lanes.row}
    columns = {key: records[layer][key] for key, layer in rows.items()}
    columns["gate_confidence"] = np.where(arbiter["enabled"] != 0, arbiter["gate_confidence"], np.inf)  # that nothing passes
    columns["cooldown_minutes"] = columns["cooldown_minutes"] * (NS_PER_MINUTE // max(1, unit))
    return np.stack([columns[name].astype(np.float64) for name in SETTINGS], axis=1)


def _switches(records: NDArray) -> I8:
    """Take the switches that must be the same in all lanes of a chunk, [P, N_SWITCHES]; 0 for those that a setting does not read."""
    return _columns(records, Lane.SWITCH, SWITCHES).astype(np.int64)


def _numbers(records: NDArray) -> F8:
    """Take the numbers that must be the same in all lanes of a chunk, [P, N_NUMBERS]; 0 for those that a setting does not read."""
    return _columns(records, Lane.NUMBER, NUMBERS).astype(np.float64)


def _columns(records: NDArray, kind: Lane, names: tuple[str, ...]) -> NDArray:
    declared = {name.split(".")[1]: name.split(".")[0] for name, lanes in IN_LANES.items() if lanes.kind == kind}
    is_book = records["governor"]["book"] == BookKind.CROSS_SECTION
    unread = {**dict.fromkeys(OF_SYMBOLS, is_book), **dict.fromkeys(OF_BOOKS, ~is_book)}
    return np.stack([np.where(unread.get(name, False), 0, records[declared[name]][name]) for name in names], axis=1)
