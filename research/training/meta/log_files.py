"""Files of a prediction log: JSON lines of votes and a CSV of outcomes (`spec` 12.1), read into tables; what is left out is counted.

Times are read as those of candles are, a naive one is UTC. Actions and outcomes may be spelled in the ways of
`research.training.foreign_codes`.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from qtcore.types import I8, MODELS, N_MODELS, Action
from qtcore.voters import ALIASES, check_name, slots_of
from research.data.clock import utc_ns
from research.data.grid import closes_of, most_common
from research.data.stamps import REMEDY
from research.errors import ConfigError, ModelError, refusing
from research.files import Kind, check_file
from research.training.foreign_codes import read_actions, read_numbers, read_outcomes, read_shares

LOG = Kind("a readable file of JSON lines", "name another with --from-log")
OUTCOMES = Kind("a readable CSV file", "name another with --outcomes")
COLUMNS = ("timestamp", "symbol", "action", "outcome", "pnl_pct", "hold_duration_minutes")
LONGEST = 10 * 366 * 24 * 60.0  # minutes: no trade is held for ten years
ZONED = re.compile(r"\d\s*(Z|UTC|[+-]\d{2}(:?\d{2})?)$", re.IGNORECASE)
PAST = np.iinfo(np.int64).min


class LogLines(NamedTuple):
    """What a log or a journal holds.

    lines, traded: rows of votes and of closed trades; counts: lines by what became of them; digest: of everything read; names: of the five
    slots.
    """

    source: str
    lines: pd.DataFrame
    traded: pd.DataFrame
    counts: dict[str, int]
    digest: str
    names: tuple[str, ...] = MODELS


def read_log_lines(path: Path) -> tuple[pd.DataFrame, dict[str, int], tuple[str, ...]]:
    """Read JSON lines: timestamp, symbol, said (action and confidence [2, 5]), ensemble, regime [2]; and the lines by what became of them.

    The names of the five slots come third; voters of their own names have slots in the order in which they speak. Raises UserError where
    the file or the times cannot be read, no line says an action, or more than five voters speak.
    """
    rows, n_lines = [], 0
    check_file(path, LOG)
    try:
        with path.open(encoding="utf-8") as file:
            for text in file:
                if text.strip():
                    n_lines += 1
                    rows += _line(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--from-log must be a readable file of JSON lines, was {str(path)!r} ({error})") from error
    times, symbols, votes, ensembles, regimes = ([row[i] for row in rows] for i in range(5))
    with refusing(ModelError):
        names = slots_of(dict.fromkeys(name for vote in votes for name in vote))
    flat = [(i, names.index(name), action, confidence) for i, vote in enumerate(votes) for name, (action, confidence) in vote.items()]
    of_row, model = (np.array([entry[i] for entry in flat], np.int64) for i in (0, 1))
    notes: list[str] = []
    codes = _actions([entry[2] for entry in flat] + ensembles, path)
    action, ensemble = codes[: len(flat)], codes[len(flat) :]
    sure = read_shares(np.array([entry[3] for entry in flat], object), f"confidence of {path}", action >= 0, notes)
    said = np.tile(np.array([[-1.0] * N_MODELS, [np.nan] * N_MODELS]), (len(rows), 1, 1))
    said[of_row, 0, model], said[of_row, 1, model] = action, sure
    time = _times(times, f"timestamp of {path}")
    good = (time != PAST) & (ensemble >= 0)
    good[of_row[(action < 0) | ~((sure >= 0.0) & (sure <= 1.0))]] = False
    kept = np.flatnonzero(good)
    frame = pd.DataFrame(
        {
            "timestamp": _utc(time[kept]),
            "symbol": [symbols[i] for i in kept],
            "said": [said[i] for i in kept],
            "ensemble": ensemble[kept].astype(np.int8),
            "regime": [regimes[i] for i in kept],
        }
    )
    counts = {"lines": n_lines, "invalid lines": n_lines - len(kept)}
    return frame, counts | ({"confidences in per cent": len(flat)} if notes else {}), names


def _line(text: str) -> list[tuple[Any, ...]]:
    """Return the parts of a line as they are written; nothing where it is no line of a log."""
    try:
        given = json.loads(text)
        votes = {check_name(ALIASES.get(name, name)): (v["action"], v["confidence"]) for name, v in given["base_predictions"].items()}
        regime = given.get("regime") or {}
        slices = [float(regime.get(name, np.nan)) for name in ("volatility", "trend_strength")]
        return [(given["timestamp"], str(given["symbol"]).strip(), votes, given["ensemble_action"], slices)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _actions(values: Sequence[Any], path: Path) -> NDArray[np.int64]:
    """Return the action of each value, below 0 where it is none; where words are written, a number among them is none."""
    given = np.array([value if isinstance(value, str | int | float) else None for value in values], object)
    texts = np.array([value if isinstance(value, str) and not value.strip().lstrip("+-").isdigit() else None for value in given], object)
    has_words = np.array([text is not None for text in texts], bool)
    return read_actions(texts if has_words.any() else given, f"actions of {path}").actions()


def read_outcome_lines(path: Path, counts: dict[str, int]) -> pd.DataFrame:
    """Read a CSV of outcomes: timestamp, symbol, traded, outcome, minutes, opened; what is invalid or doubled is counted.

    Raises UserError where it cannot be read, lacks a column, or holds codes that may mean several things.
    """
    check_file(path, OUTCOMES)
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)  # `NA` and `0700` are symbols
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"--outcomes must be a readable CSV file, was {str(path)!r} ({error})") from error
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise ModelError(f"{path} must have the columns {', '.join(COLUMNS)}, was without {', '.join(missing)}")
    symbol = frame["symbol"].str.strip()
    time = _times(frame["timestamp"].to_list(), f"timestamp of {path}")
    traded = read_actions(frame["action"].to_numpy(), f"column action of {path}").actions()
    outcome = read_outcomes(frame["outcome"].to_numpy(), f"column outcome of {path}")
    minutes = read_numbers(frame["hold_duration_minutes"].to_numpy())
    is_trade = (traded == Action.BUY) | (traded == Action.SELL)
    good = (time != PAST) & is_trade & (outcome != "") & (minutes >= 0.0) & (minutes <= LONGEST) & (symbol != "").to_numpy(bool)
    counts |= {"outcomes": len(frame), "invalid outcomes": int((~good).sum())}
    table = pd.DataFrame({"timestamp": _utc(time), "symbol": symbol, "traded": traded, "outcome": outcome, "minutes": minutes})[good]
    counts["doubled outcomes"] = int(table.duplicated(["timestamp", "symbol"], keep="last").sum())
    table = table.drop_duplicates(["timestamp", "symbol"], keep="last").sort_values("timestamp", kind="stable")
    return table.assign(opened=table["timestamp"])


def meet(lines: pd.DataFrame, traded: pd.DataFrame) -> pd.DataFrame:
    """Return the outcomes with the lines' way of writing a close: one of them may be 1 ms before the full bar."""
    ours, theirs = (np.unique(frame["timestamp"].to_numpy("datetime64[ns]").astype(np.int64)) for frame in (lines, traded))
    if len(ours) < 2 or not len(theirs):
        return traded
    step = most_common(np.diff(ours), np.ones(len(ours) - 1, np.int64))
    meant, ahead = closes_of(theirs, ours, step), closes_of(ours, theirs, step)
    written = dict(zip(ahead[ahead != ours].tolist(), ours[ahead != ours].tolist()))  # the lines are the early ones
    met = np.array([written.get(stamp, stamp) for stamp in meant.tolist()], np.int64)
    stamps = traded["timestamp"].to_numpy("datetime64[ns]").astype(np.int64)
    moved = _utc(met[np.searchsorted(theirs, stamps)])
    return traded.assign(timestamp=moved, opened=moved).sort_values("timestamp", kind="stable")


def _times(values: Sequence[Any], name: str) -> I8:
    """Return ns UTC, the smallest int64 where a value holds no digit. Raises UserError where one that does is no time."""
    out = np.full(len(values), PAST)
    texts = [value.strip() if isinstance(value, str) else value for value in values]
    kinds = np.array([_kind(value) for value in texts])
    for kind in ("number", "naive", "zoned"):
        if (kinds == kind).any():
            chosen = [value for value, k in zip(texts, kinds) if k == kind]
            try:
                out[kinds == kind] = utc_ns(pa.array(chosen), name)
            except OverflowError:  # a whole number that no column holds
                largest = max((value for value in chosen if isinstance(value, int)), key=abs)
                raise ModelError(f"{name} must hold times, was {str(largest)[:40]}; {REMEDY}") from None
    return out


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "zoned" if ZONED.search(value) and ":" in value else "naive" if any(c.isdigit() for c in value) else "none"
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) and value == value else "none"


def _utc(ns: I8) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(ns.view("M8[ns]")).tz_localize("UTC")
