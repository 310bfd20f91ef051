"""Learned meta layers that were tried on a run: their comparison, kept in the run's folder for its report."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from research.evidence.meta_comparison import VARIANTS, Progress, best_variant, compare
from research.files import save_json, writable
from research.runs.folder import META_TRIED, read_run


def try_on_run(
    folder: str | Path, variants: Mapping[str, Mapping[str, Any]] = VARIANTS, *, seed: int = 42, progress: Progress | None = None
) -> pd.DataFrame:
    """Compare meta layers on the predictions of a finished run, keep the table as `meta_tried.json` in its folder and return it.

    Columns and errors as in `compare`. Raises UserError when the folder is not writable.
    """
    files = read_run(folder)
    table = compare(files.bars(), files.predictions(), files.params(), variants, seed=seed, progress=progress)
    kept = {"rows": json.loads(table.to_json(orient="index")), "absent": table.attrs["absent"], "sentence": best_variant(table)}
    with writable("run folder", files.path):
        save_json(files.path / META_TRIED, kept)
    return table
