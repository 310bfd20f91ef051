"""Input validation of bars and votes. The only place of qtcore that raises about data; kernels trust what passed here."""

from dataclasses import replace

import numpy as np

from qtcore.types import LEAST_PRICE, MOST, N_MODELS, Bars, InputError, Votes

ROUNDING = 1e-9  # an adjusted price may leave low..high by this share of itself: float rounding, not a broken candle
_CHECKED = 32_768  # cells that are checked together: what NumPy writes in between stays in the second-level cache


def as_array(array: np.ndarray, dtype: type) -> np.ndarray:
    """Return `array` C-contiguous, writeable and of `dtype`: itself where it is so already (a quarter of the time)."""
    return array if array.dtype == dtype and array.flags.carray else np.require(array, dtype, ["C", "W"])


def as_bars(bars: Bars) -> Bars:
    """Return `bars` as kernels want them: C-contiguous writeable float64 and int64. Raises InputError with the first broken rule."""
    n, n_symbols = bars.n, len(bars.symbols)
    times = {name: as_array(getattr(bars, name), np.int64) for name in ("open_time", "close_time")}
    prices = {name: _plane(f"bars.{name}", getattr(bars, name), n, n_symbols) for name in ("open", "high", "low", "close", "volume")}
    for name, plane in prices.items():
        _check_bounds(name, plane, 0.0 if name == "volume" else LEAST_PRICE)
    _check_candles(*(plane.reshape(-1) for plane in prices.values()))
    funding = None if bars.funding is None else _plane("bars.funding", bars.funding, n, n_symbols)
    if funding is not None and np.any(wrong := ~np.isfinite(funding) & ~np.isnan(prices["close"])):
        raise InputError(f"bars.funding must be finite at every candle, was {funding[wrong][0]:g}; put 0.0 where none is due")
    if len(set(bars.symbols)) != n_symbols:
        raise InputError(f"bars.symbols must be unique, was {bars.symbols}")
    if times["close_time"].shape != (n,):
        raise InputError(f"bars.close_time must have the length of open_time {n}, was {times['close_time'].shape}")
    opens = times["open_time"]
    if n and not ((opens[1:] > opens[:-1]).all() and (times["close_time"] > opens).all()):
        raise InputError("bars.open_time must increase strictly and lie before close_time, was not so; sort and drop duplicates first")
    if np.any(late := opens[1:] < times["close_time"][:-1]):
        row = int(np.argmax(late))
        raise InputError(f"bars.close_time must not lie after the next bar opens, was so in row {row}; a bar is known when it closes")
    if not isinstance(bars.interval, int | np.integer) or bars.interval <= 0:
        raise InputError(f"bars.interval must be a whole number of ns above 0, was {bars.interval!r}")
    return Bars(**times, **prices, symbols=tuple(bars.symbols), interval=int(bars.interval), funding=funding, origin=bars.origin)


def as_votes(votes: Votes, n: int, n_symbols: int) -> Votes:
    """Return `votes` as kernels want them. Raises InputError on wrong shapes, unknown actions, and shares outside [0, 1]."""
    shape = (N_MODELS, n, n_symbols)
    for name in ("action", "confidence"):
        if getattr(votes, name).shape != shape:
            raise InputError(f"votes.{name} must be of shape {list(shape)} (models, bars, symbols), was {list(getattr(votes, name).shape)}")
    check_probs(votes.probs, shape)
    action, confidence = as_array(votes.action, np.int8), as_array(votes.confidence, np.float64)
    voted, sure = action.reshape(-1), confidence.reshape(-1)
    for start in range(0, len(voted), _CHECKED):
        _check_votes(voted[start : start + _CHECKED], sure[start : start + _CHECKED])
    probs = None if votes.probs is None else as_array(votes.probs, np.float64)
    shares = np.empty(0) if probs is None else probs.reshape(-1)
    for start in range(0, len(shares), _CHECKED):
        block = shares[start : start + _CHECKED]
        if np.any(wrong := (block < 0.0) | (block > 1.0)):
            raise InputError(f"votes.probs must be NaN (absent) or in [0, 1], was {block[wrong][0]:g}")
    if votes.maps is not None and not are_whole(votes.maps["start"], votes.n_horizons):
        rule = f"votes.maps must begin at the same rising times for each of {votes.n_horizons} horizons"
        raise InputError(f"{rule}, was not so; fit them for these voters")
    return replace(votes, action=action, confidence=confidence, probs=probs)


def are_whole(starts: np.ndarray, n_horizons: int) -> bool:
    """Whether starts of maps, one horizon after the other, rise and are the same for each of so many horizons."""
    if len(starts) == 0 or len(starts) % n_horizons:
        return False
    each = starts.reshape(n_horizons, -1)
    return bool((each == each[0]).all() and (each[0, 1:] > each[0, :-1]).all())


def check_probs(probs: np.ndarray | None, shape: tuple[int, ...]) -> None:
    """Raise InputError unless the voters' probabilities, where there are any, are three for each cell of `shape`, or of each horizon."""
    if probs is not None and (probs.shape[:-1] != shape or probs.shape[-1] % 3 or not probs.shape[-1]):
        rule = f"votes.probs must be of shape {[*shape, 3]} (models, bars, symbols, classes), or three classes of each horizon"
        raise InputError(f"{rule}, was {list(probs.shape)}")


def _check_votes(action: np.ndarray, confidence: np.ndarray) -> None:
    """Raise InputError unless every action is known and every confidence of a vote lies in [0, 1]."""
    lowest, highest = action.min(), action.max()
    if lowest < -1 or highest > 2:
        raise InputError(f"votes.action must be -1 (absent), 0, 1 or 2, was {action[(action < -1) | (action > 2)][0]}")
    is_sound = (confidence >= 0.0) & (confidence <= 1.0) if highest >= 0 else True
    if not np.all(is_sound) and np.any((action >= 0) & ~is_sound):
        raise InputError("votes.confidence must be in [0, 1] where a model voted, was outside or NaN; set the action to -1 there")


def _check_bounds(name: str, plane: np.ndarray, least: float) -> None:
    """Raise InputError unless every value lies in [least, MOST] or is NaN: beyond, products of prices overflow."""
    values = plane.reshape(-1)
    for start in range(0, len(values), _CHECKED):
        block = values[start : start + _CHECKED]
        if block.min() >= least and block.max() <= MOST:
            continue
        if (wrong := block[(block < least) | (block > MOST)]).size:
            raise InputError(f"bars.{name} must be NaN or in [{least:g}, {MOST:g}], was {wrong[0]!r}; make such a candle a hole (five NaN)")


def _check_candles(*planes: np.ndarray) -> None:
    """Raise InputError unless each cell of open, high, low, close and volume is a candle, or NaN in all five."""
    for start in range(0, len(planes[0]), _CHECKED):
        open_, high, low, close, volume = (plane[start : start + _CHECKED] for plane in planes)
        slack = ROUNDING * close
        is_candle = (np.minimum(open_, close) >= low - slack) & (np.maximum(open_, close) <= high + slack) & (low <= high)
        rest = np.flatnonzero(~(is_candle & ~np.isnan(volume)))
        n_known = sum(~np.isnan(plane[rest]) for plane in (open_, high, low, close, volume))
        if np.any(n_known > 0):
            i = rest[np.argmax(n_known > 0)]
            was = ", ".join(f"{plane[i]:g}" for plane in (open_, high, low, close, volume))
            rule = "bars must hold NaN in all five planes where there is no candle, and low <= open, close <= high where there is one"
            raise InputError(f"{rule}, was {was} (open, high, low, close, volume); make such a candle a hole (five NaN)")


def _plane(name: str, array: np.ndarray, n: int, n_symbols: int) -> np.ndarray:
    is_plain = isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray) and array.dtype.kind in "fiu"
    if not is_plain or array.shape != (n, n_symbols):
        was = f"{type(array).__name__} of {getattr(array, 'dtype', 'no dtype')} {list(np.shape(array))}"
        raise InputError(f"{name} must be a float64 array of shape [{n}, {n_symbols}] (bars, symbols), was {was}")
    return as_array(array, np.float64)
