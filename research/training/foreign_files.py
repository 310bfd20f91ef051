"""Tables of predictions out of files that others wrote: Parquet, CSV, JSON lines; what they mean is read elsewhere."""

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.data import schema
from research.data.schema import plain
from research.errors import ModelError
from research.files import reason
from research.training.predictions import SIDES

if TYPE_CHECKING:
    import pandas as pd

TIMES = (*schema.TIME_NAMES, *schema.NAMELESS, *schema.ALIASES["close_time"])  # read as they are written, like symbols: 0700, NA, TRUE


def read_file(path: Path) -> tuple["pd.DataFrame", int]:
    """Return the table of a Parquet, CSV or JSON-lines file, and how many lines were no objects. Raises UserError."""
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pq.read_table(path).to_pandas(ignore_metadata=True), 0  # what was an index is a column then
        if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
            return _read_lines(path)
        if path.name.lower().endswith((".csv", ".csv.gz")):
            with pacsv.open_csv(path) as reader:
                texts = {name: pa.string() for name in reader.schema.names if plain(name) in (*TIMES, *schema.ALIASES["symbol"])}
            return pacsv.read_csv(path, convert_options=pacsv.ConvertOptions(column_types=texts)).to_pandas(), 0
    except (OSError, EOFError, zlib.error, pa.ArrowException, ValueError) as error:
        raise ModelError(f"predictions must be a readable file, was {str(path)!r} ({reason(error)})") from error
    raise ModelError(f"predictions must be a .parquet, .csv or .jsonl file, was {str(path)!r}")


def _read_lines(path: Path) -> tuple["pd.DataFrame", int]:
    import pandas as pd

    text = path.read_text(encoding="utf-8")
    entries = _entry(text) if text.startswith("[") else None  # one list of all
    if not isinstance(entries, list):
        entries = [_entry(line) for line in text.split("\n") if line.strip()]
    rows = [_flat(entry) for entry in entries if isinstance(entry, dict) and entry]
    return pd.DataFrame(rows), sum(not isinstance(entry, dict) for entry in entries)


def _entry(text: str) -> Any:
    """Return what a JSON text says, None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


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
