"""How do predictions of the user's own get onto the bars? Parquet, JSON lines or a frame; one row per close and symbol.

Columns: `close_time` (or `timestamp`, meaning the close), `symbol` and per model `xgb_action` and `xgb_confidence`, or `xgb_p_sell`,
`xgb_p_hold`, `xgb_p_buy`; optional `xgb_status` and `xgb_version`. JSON lines may nest them as the chain's own log does:
`{"timestamp": ..., "symbol": ..., "base_predictions": {"xgb": {"action": "BUY", "confidence": 0.7}}}` (`spec` 12.1).

Only the status `active` votes (D-37). An unknown action, or a confidence or probability outside [0, 1], is an `error`: it does not vote
and is counted in the notes. Where these predictions come from cannot be proven (D-99).
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qtcore.params import Broker
from qtcore.types import F8, I8, MODELS, N_MODELS, Bars, Votes
from research.errors import UserError
from research.labels import Label, score_labels
from research.predictions import SIDES, Predictions, mismatch

if TYPE_CHECKING:
    import pandas as pd

ALIASES = {"patch": "patchtst", "lightgbm": "lgbm", "xgboost": "xgb"}
STATUSES = ("active", "shadow", "fallback", "insufficient", "error")
ACTIONS = {"SELL": 0, "HOLD": 1, "BUY": 2, "0": 0, "1": 1, "2": 2, "-1": -1, "": -1, "NONE": -1, "NAN": -1, "<NA>": -1}
PARTS = ("action", "confidence", *SIDES, "status", "version")


def import_predictions(source: Any, bars: Bars, label: str | Label = "auto", broker: Broker | None = None) -> Predictions:
    """Place predictions on the bars. Raises UserError where they cannot be read or match no bar.

    source: path of a Parquet or JSON-lines file, or a pandas or polars frame. A file that this program stored keeps its folds and, with
    label "auto", its labels.
    """
    if isinstance(source, str | Path) and _is_ours(Path(source)):
        stored = Predictions.load(source).align(bars)
        return stored if label == "auto" else _relabelled(stored, bars, label, broker)
    frame, skipped = _read(source)
    notes = [f"{skipped} lines are no JSON objects and were skipped"] if skipped else []
    row, column, keep = _place(frame, bars, notes)
    shape = (N_MODELS, bars.n, len(bars.symbols))
    action, confidence, probs = np.full(shape, -1, np.int8), np.full(shape, np.nan), np.full((*shape, 3), np.nan)
    found = _columns(frame, notes)
    for m, slot in enumerate(MODELS):
        if slot in found:
            said = _model(slot, {part: frame[name].to_numpy()[keep] for part, name in found[slot].items()}, notes)
            for plane, values in zip((action, confidence, probs), said):
                plane[m][row, column] = values
    complete = not (np.isnan(probs).any(axis=-1) & (action >= 0)).any()
    labels, rule = score_labels(bars, label, broker)
    return Predictions(
        bars.open_time,
        bars.close_time,
        bars.symbols,
        probs if complete else None,
        action,
        confidence,
        np.full(bars.n, -1, np.int16),
        labels,
        rule,
        imported=True,
        notes=tuple(notes),
    )


def _is_ours(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return b"qt_predictions" in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowInvalid):
        return False


def _relabelled(stored: Predictions, bars: Bars, label: str | Label, broker: Broker | None) -> Predictions:
    from dataclasses import replace

    labels, rule = score_labels(bars, label, broker)
    return replace(stored, labels=labels, label=rule)


def _read(source: Any) -> tuple["pd.DataFrame", int]:
    """Return the table with lower-case column names, and the number of lines that could not be read."""
    import pandas as pd

    skipped = 0
    if isinstance(source, str | Path):
        frame, skipped = _read_file(Path(source))
    elif hasattr(source, "to_pandas"):
        frame = source.to_pandas()
    elif isinstance(source, pd.DataFrame):
        frame = source if isinstance(source.index, pd.RangeIndex) else source.reset_index()
    else:
        raise UserError(f"predictions must be a path, a pandas or a polars frame, was {type(source).__name__}")
    if len(frame) == 0:
        raise UserError(f"predictions must have at least one row, was empty: {source if isinstance(source, str | Path) else 'frame'}")
    return frame.rename(columns=lambda name: str(name).strip().lower()), skipped


def _read_file(path: Path) -> tuple["pd.DataFrame", int]:
    import pandas as pd
    import pyarrow as pa

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path), 0
        if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
            return _read_lines(path)
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise UserError(f"predictions must be a readable file, was {str(path)!r} ({error})") from error
    raise UserError(f"predictions must be a .parquet or .jsonl file, was {str(path)!r}")


def _read_lines(path: Path) -> tuple["pd.DataFrame", int]:
    import pandas as pd

    rows, skipped = [], 0
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                entry = json.loads(line) if line.strip() else {}
            except ValueError:
                entry = None
            if isinstance(entry, dict) and entry:
                rows.append(_flat(entry))
            else:
                skipped += entry is None or not isinstance(entry, dict)
    return pd.DataFrame(rows), skipped


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    """Turn nested `base_predictions` into flat columns; `probs` there may be a list SELL HOLD BUY."""
    flat = {key: value for key, value in entry.items() if not isinstance(value, dict | list)}
    nested = entry.get("base_predictions")
    for model, said in nested.items() if isinstance(nested, dict) else ():
        if isinstance(said, dict):
            flat |= {f"{model}_{key}": value for key, value in said.items() if not isinstance(value, dict | list)}
            if isinstance(said.get("probs"), list) and len(said["probs"]) == 3:
                flat |= {f"{model}_{side}": value for side, value in zip(SIDES, said["probs"])}
    return flat


def _columns(frame: "pd.DataFrame", notes: list[str]) -> dict[str, dict[str, str]]:
    """Find the columns of each model: {slot: {part: column}}."""
    found: dict[str, dict[str, str]] = {}
    unknown = set()
    for name in frame.columns:
        for part in PARTS:
            if name.endswith(f"_{part}") and not name.startswith(("ensemble_", "final_", "raw_", "meta_", "arbiter_")):
                model = ALIASES.get(name.removesuffix(f"_{part}"), name.removesuffix(f"_{part}"))
                if model in MODELS:
                    found.setdefault(model, {})[part] = name
                else:
                    unknown.add(model)
    if unknown:
        notes.append(f"columns of unknown models were ignored: {', '.join(sorted(unknown))}")
    for slot, parts in found.items():
        has_probs = all(side in parts for side in SIDES)
        if not has_probs and not ("action" in parts and "confidence" in parts):
            raise UserError(
                f"predictions must hold {slot}_action and {slot}_confidence, or {slot}_p_sell, _p_hold, _p_buy, was {sorted(parts)}"
            )
    if not found:
        raise UserError(
            f"predictions must hold columns such as xgb_action and xgb_confidence, was {', '.join(map(str, frame.columns[:12]))}"
        )
    return found


def _place(frame: "pd.DataFrame", bars: Bars, notes: list[str]) -> tuple[I8, I8, I8]:
    """Find the bar and symbol of each row: (rows of bars, columns of bars, numbers of the frame's rows that have both)."""
    time_name = next((name for name in ("close_time", "timestamp") if name in frame.columns), None)
    if time_name is None or "symbol" not in frame.columns:
        raise UserError(f"predictions must have the columns close_time (or timestamp) and symbol, was {', '.join(frame.columns[:12])}")
    times = _times(frame[time_name])
    names = frame["symbol"].astype(str).str.strip()
    row = np.minimum(np.searchsorted(bars.close_time, times), max(bars.n - 1, 0))
    column = names.map({name: s for s, name in enumerate(bars.symbols)}).fillna(-1).to_numpy(np.int64)
    keep = np.flatnonzero((bars.close_time[row] == times) & (column >= 0)) if bars.n else np.empty(0, np.int64)
    if len(keep) == 0:
        known = times[times != np.iinfo(np.int64).min]
        if len(known) == 0:
            raise UserError(f"predictions must have ISO times or epochs in {time_name}, was {frame[time_name].iloc[0]!r}")
        raise UserError(mismatch(0, len(frame), np.unique(known), tuple(dict.fromkeys(names)), bars))
    if len(keep) < len(frame):
        notes.append(f"{len(frame) - len(keep)} of {len(frame)} rows match no bar and were ignored")
    row, column = row[keep].astype(np.int64), column[keep]
    if twice := len(keep) - np.count_nonzero(np.bincount(row * len(bars.symbols) + column)):
        notes.append(f"{twice} rows repeat a close_time and symbol; the last one counts")
    return row, column, keep


def _times(values: "pd.Series") -> I8:
    """Turn ISO texts (naive means UTC), datetimes or epochs of any unit into ns UTC; unreadable ones are the smallest int64."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(values):
        size = float(values.abs().max())
        unit = "ns" if size > 1e17 else "us" if size > 1e14 else "ms" if size > 1e11 else "s"
        stamps = pd.to_datetime(values, unit=unit, utc=True, errors="coerce")
    elif pd.api.types.is_datetime64_any_dtype(values):
        stamps = pd.to_datetime(values, utc=True)
    else:
        stamps = pd.to_datetime(values.astype(str), utc=True, format="ISO8601", errors="coerce")
    return np.asarray(stamps.dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64))


def _model(slot: str, said: Mapping[str, NDArray], notes: list[str]) -> tuple[NDArray[np.int8], F8, F8]:
    """Read one model's rows: (action int8, confidence, probs [k, 3]), absent where it may not vote."""
    k = len(next(iter(said.values())))
    probs = np.column_stack([_numbers(said[side]) for side in SIDES]) if all(side in said for side in SIDES) else np.full((k, 3), np.nan)
    bad = np.zeros(k, bool)
    any_prob, sums_to_one = ~np.isnan(probs).all(axis=1), np.abs(probs.sum(axis=1) - 1.0) <= 1e-3
    bad |= any_prob & ~(sums_to_one & (probs >= 0.0).all(axis=1) & (probs <= 1.0).all(axis=1))
    votes = Votes.from_probs(np.where((any_prob & ~bad)[:, None], probs, np.nan)[None, :, None])
    action, confidence = votes.action[0, :, 0], votes.confidence[0, :, 0]
    if "action" in said and "confidence" in said:
        given, known = _each(said["action"], lambda value: ACTIONS.get(_text(value), -2)), _numbers(said["confidence"])
        voted = given != -1
        bad |= voted & ((given == -2) | ~((known >= 0.0) & (known <= 1.0)))
        action, confidence = np.where(voted, given, action), np.where(voted, known, confidence)
    status = _statuses(said, k)
    status[bad & (status == "active")] = "error"
    silent = status != "active"
    spoken = Counter(status[silent & ((action != -1) | bad)].tolist())
    for name, count in sorted(spoken.items()):
        why = " (unknown action, or a confidence or probability outside [0, 1])" if name == "error" else ""
        notes.append(f"{count} predictions of {slot} have the status {name} and do not vote{why}")
    silent |= action < 0
    return np.where(silent, -1, action).astype(np.int8), np.where(silent, np.nan, confidence), np.where(silent[:, None], np.nan, probs)


def _statuses(said: Mapping[str, NDArray], k: int) -> NDArray:
    status = _each(said["status"], _status).astype(object) if "status" in said else np.full(k, "active", dtype=object)
    if "version" in said:
        status[_each(said["version"], lambda value: "INSUFFICIENT" in _text(value))] = "insufficient"
    return status


def _status(value: Any) -> str:
    text = _text(value).lower()
    return "active" if text in ("", "none", "nan", "<na>") else text if text in STATUSES else "error"


def _each(values: NDArray, read: Callable[[Any], Any]) -> NDArray:
    """Read every value; a column has few different ones, so each is read once."""
    import pandas as pd

    codes, different = pd.factorize(values, use_na_sentinel=False)
    return np.array([read(value) for value in different])[codes]


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float | np.floating) and (value != value or value == int(value))):
        return "" if value is None or value != value else str(int(value))
    return str(value).strip().upper()


def _numbers(values: NDArray) -> F8:
    import pandas as pd

    return np.asarray(pd.to_numeric(pd.Series(values), errors="coerce").to_numpy(np.float64))
