"""Journal codec: arrays to bytes and rows, and back to the same bits; nothing but numbers can come out."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars, Result, Votes
from qtcore.types import ACCOUNT, DECISION_COLUMNS, F8, MONEY_COLUMNS, N_MODELS, POSITION, Action, Source
from research.errors import ModelError
from research.files import Kind, unpack_arrays
from research.live.storage.cells import DamagedError
from research.runs.money import money_planes
from research.training.maps import MapSchedule

STATE = Kind("arrays as the runner stored them", "restore a copy or use a new --journal", None)
PRICES = ("open", "high", "low", "close", "volume")
LATER = "later"  # horizons of the models after the first, in bars, beside their label
MAPS = "maps"  # what opinions are worth, beside the hashes of the models of a version
LAST_COLUMNS = ("final_action", "final_confidence", "final_source", "governor_reason", "size", "volatility", "trend_strength")


def vote_names(voters: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of what the five slots voted. voters: their names."""
    return tuple(f"{name}_{part}" for name in voters for part in ("action", "confidence"))


def cell_names(voters: Sequence[str], is_priced: bool = False) -> tuple[str, ...]:
    """Return the columns of a decision, in their order. voters: names of the five slots; is_priced: opinions have a price."""
    return (*vote_names(voters), *DECISION_COLUMNS, *(MONEY_COLUMNS if is_priced else ()), *LAST_COLUMNS)


def pack_state(state: Mapping[str, NDArray]) -> bytes:
    """Write arrays as npz bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **state)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_state(blob: bytes) -> dict[str, NDArray]:
    """Read npz bytes; nothing but arrays can come out. Raises UserError where they are no whole archive."""
    return unpack_arrays(blob, STATE, "a state of the journal")


def hash_state(state: Mapping[str, NDArray]) -> str:
    """Name a state by content: what two runs are compared by."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name}{state[name].dtype.str}{state[name].shape}".encode())
        digest.update(np.ascontiguousarray(state[name]).tobytes())
    return digest.hexdigest()


def digest_of(account: NDArray, positions: NDArray) -> bytes:
    """Name an account by content, 16 bytes."""
    return hashlib.blake2b(account.tobytes() + positions.tobytes(), digest_size=16).digest()


def unpack_book(account: bytes, positions: bytes, n_symbols: int) -> tuple[NDArray, NDArray]:
    """Read an account [1] and its positions [S]. Raises DamagedError where they are of other lengths."""
    if len(account) != ACCOUNT.itemsize or len(positions) != n_symbols * POSITION.itemsize:
        raise DamagedError(f"the account of {len(account)} and {len(positions)} bytes")
    return np.frombuffer(account, ACCOUNT), np.frombuffer(positions, POSITION)


def pack_bar(bars: Bars) -> bytes:
    """Write the prices of a bar, and its funding where there is any, as float64 bytes."""
    planes = [getattr(bars, name) for name in PRICES] + ([] if bars.funding is None else [bars.funding])
    return b"".join(plane.tobytes() for plane in planes)


def unpack_bar(blob: bytes, open_time: int, close_time: int, symbols: tuple[str, ...], interval: int) -> Bars:
    """Read what `pack_bar` wrote. Raises DamagedError where it is of another length."""
    if len(blob) not in {8 * rows * len(symbols) for rows in (len(PRICES), len(PRICES) + 1)}:
        raise DamagedError(f"candles of {len(blob)} bytes")
    return one_bar(np.frombuffer(blob).reshape(-1, len(symbols)), open_time, close_time, symbols, interval)


def one_bar(prices: F8, open_time: int, close_time: int, symbols: tuple[str, ...], interval: int) -> Bars:
    """Make a block of one bar from prices [5, S], or [6, S] with funding; the arrays are copies."""
    o, h, low, c, v = (prices[k : k + 1].copy() for k in range(len(PRICES)))
    funding = prices[5:6].copy() if len(prices) > 5 else None
    return Bars(np.array([open_time], np.int64), np.array([close_time], np.int64), o, h, low, c, v, symbols, interval, funding)


def joined(parts: list[Bars]) -> Bars:
    """Put blocks of bars behind one another."""
    planes: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("open_time", "close_time", *PRICES)}
    funding = None if parts[0].funding is None else np.concatenate([p.funding for p in parts if p.funding is not None])
    return Bars(**planes, symbols=parts[0].symbols, interval=parts[0].interval, funding=funding)


def unpack_votes(cells: list[tuple[Any, ...]], probs: bytes | None, n_symbols: int, voters: tuple[str, ...]) -> Votes:
    """Rebuild a bar's votes from the decision rows; NULL is NaN. Raises DamagedError where some are missing."""
    if len(cells) != n_symbols or (probs is not None and (not probs or len(probs) % (8 * N_MODELS * n_symbols * 3))):
        raise DamagedError(f"a bar with {len(cells)} of {n_symbols} decisions, or votes of another length")
    table: F8 = np.array(cells, np.float64).reshape(n_symbols, N_MODELS, 2)
    action = np.ascontiguousarray(table[:, :, 0].T.astype(np.int8)[:, None, :])
    confidence = np.ascontiguousarray(table[:, :, 1].T[:, None, :])
    planes = None if probs is None else np.frombuffer(probs).reshape(N_MODELS, 1, n_symbols, -1).copy()
    return Votes(action, confidence, planes, voters)


def schedule_of(about: Mapping[str, Any]) -> MapSchedule | None:
    """Return the maps that a version of the journal valued opinions with, None where it had none. Raises DamagedError.

    about: what the version says of its models.
    """
    try:
        return MapSchedule.from_dict(about[MAPS]) if MAPS in about else None
    except ModelError as error:
        raise DamagedError(str(error)) from error


def maps_of(about: Mapping[str, Any]) -> NDArray | None:
    """Return the maps of `schedule_of` alone."""
    schedule = schedule_of(about)
    return None if schedule is None else schedule.every


def cell_columns(result: Result) -> list[list[Any]]:
    """Return the columns `cell_names` of a block as flat lists: bar after bar, symbol after symbol."""
    decisions, votes, final = result.decisions, result.votes, result.final_action
    raw, is_hold = decisions.raw_action, result.final_action == Action.HOLD
    confidence = np.where(~is_hold | (raw == Action.HOLD), decisions.raw_confidence, 0.0)
    source = np.where((raw != Action.HOLD) & is_hold, np.int8(Source.GOVERNOR_HOLD), decisions.source)
    voted = zip(*(plane.reshape(N_MODELS, -1).tolist() for plane in (votes.action, votes.confidence)))
    columns = [*(getattr(decisions, name) for name in DECISION_COLUMNS), *money_planes(decisions).values()]
    columns += [final, confidence, source, result.governor_reason, result.size, *result.planes.regime]
    return [*chain.from_iterable(voted), *(column.reshape(-1).tolist() for column in columns)]
