"""Run folder: writes what is kept of a run, reads it if it is all there; `reports/README.md` describes every file and column.

A folder is written under the name `.<run>.partial` and renamed when it is complete, so a name without that is a whole run. The reader
refuses half-written folders and other schemas with one sentence.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qtcore import __version__
from qtcore.choices import DecideRule
from qtcore.jit import source_hash
from qtcore.params import Params
from qtcore.types import BOOK_COLUMNS, DECISION_COLUMNS, HORIZON_COLUMNS, MODELS, MONEY_COLUMNS, Bars
from research.errors import ConfigError, UserError
from research.files import count_rows, hash_file, put_in_place, read_json, read_table, save_json, takes_files
from research.runs.former import command_now, profile_now
from research.runs.kinds import AGAIN, CERTIFICATE, MANIFEST, PRICES, RUN_JSON, SUMMARY, kind_of
from research.runs.record import RunRecord
from research.runs.tables import decision_planes, equity_frame, fills_frame, layer_planes, trades_frame
from research.runs.verdict import UNPROVEN, combined
from research.training.meta.schedule import MetaSchedule
from research.training.models.layers import NONE, SHOWN, Layers
from research.training.predictions import Predictions
from research.training.weights import weights_by_name

SCHEMA_VERSION = 1
META_TRIED = "meta_tried.json"  # what `qt audit meta` tried on a run
TABLES = ("bars", "decisions", "trades", "fills", "equity", "predictions")
VERSIONED = ("numpy", "numba", "pandas", "pyarrow", "scikit-learn", "xgboost", "lightgbm", "torch", "arch")
ROWS_AT_ONCE = 250_000  # rows of a bar or decision table that are in memory as a table

__all__ = [
    "RunFiles",
    "check_output",
    "read_run",
    "write_certificate",
    "write_run",
]


def check_output(folder: Path, marker: str = "manifest.json") -> None:
    """Raise UserError when results cannot be written to `folder`: it holds something that is not ours, or cannot be made.

    marker: the file by which an earlier result is known; that may be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out must be a folder, was the file {folder}; choose another")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / marker).exists():
        raise ConfigError(f"--out must be a new folder or an earlier result, was {folder} with other files in it; choose another")
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not takes_files(parent):
        raise ConfigError(f"--out must be writable, was {folder} below {parent}; choose another")


def write_run(run: RunRecord, folder: Path, summary: dict[str, Any], certificate: dict[str, Any]) -> Path:
    """Write a run's folder with its summary and proof, whole or not at all, and return it; an earlier run of that name is replaced.

    Sets `run.manifest`. Raises UserError when the disk is full or the folder is not ours.
    """
    check_output(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        run.manifest = manifest_of(run, folder.name, summary["evidence"]["trials"]) | {"figures": figures_hash(summary)}
        _write_tables(run, partial)
        if run.predictions.models is not None:
            run.predictions.models.save(partial / "models")
        if run.meta is not None:
            run.meta.save(partial / "models" / "meta")
        save_json(partial / "summary.json", summary)
        save_json(partial / "verify.json", certificate)
        run.manifest["files"] = file_hashes(partial)
        save_json(partial / "manifest.json", run.manifest)
        put_in_place(partial, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(f"run folder must fit on the disk, was {folder} on a full one; free space or choose another --out") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def write_certificate(folder: Path, certificate: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Put a proof into a finished run: `verify.json`, and the verdict that follows into `summary.json`; return the summary.

    The certificate comes first: whoever reads the folder in between combines it with the evidence himself (`RunFiles.summary`). The page
    cannot and is removed; the second result says whether there was one to make anew.
    """
    page = folder / "report.html"
    summary, had_page = read_run(folder).measured, page.exists()
    page.unlink(missing_ok=True)
    save_json(folder / "verify.json", certificate)
    summary = combined(summary, certificate)
    save_json(folder / "summary.json", summary)
    return summary, had_page


def manifest_of(run: RunRecord, name: str, trials: dict[str, Any]) -> dict[str, Any]:
    """Describe what made a run and what it holds: enough to run it again and to notice a changed bit."""
    from research.data import fingerprint

    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": name,
        "created": pd.Timestamp.now(tz="UTC").isoformat(timespec="seconds"),
        "command": run.command,
        "profile": run.profile,
        "params": run.params.flat(),
        "label": run.predictions.label.to_dict(),
        "knows_until": run.predictions.knows_until,
        "symbols": list(run.bars.symbols),
        "interval": int(run.bars.interval),
        "data_fingerprint": fingerprint(run.bars),
        "origin": run.bars.origin,
        "ceilings": run.ceilings,
        "source_hash": _sources(),
        "versions": {"python": platform.python_version(), "qtcore": __version__, **_versions(VERSIONED)},
        "platform": platform.platform(),
        "seeds": {"training": getattr(run.predictions, "seed", None), "bootstrap": 42},
        "threads": {"processors": os.cpu_count(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")},
        "notes": list(run.notes),
        "lacked": list(run.lacked),
        "meta_model": None if run.meta is None else {"kind": run.meta.kind, "vector": run.meta.vector, "hash": run.meta.hash},
        "voters": list(run.result.votes.names),
        "weights": weights_by_name(run.params, run.predictions),
        "own_layers": list(run.own_layers),
        "layers": _layers(run),
        "own_checks": list(getattr(run, "own_checks", ())),
        "trials": trials,
        "arrays": array_hashes(run),
    }


def _layers(run: RunRecord) -> Mapping[str, str] | None:
    """Name and hash of the file of layers that the run, or a model of it, was made with."""
    models = run.predictions.models
    return run.own.about or (None if models is None else models.layers)


def figures_hash(summary: dict[str, Any]) -> str:
    """sha256 of a summary without what proofs change in it: the verdict, and how it is said."""
    told = combined(json.loads(json.dumps(summary)), UNPROVEN) | {"run_id": None}
    del told["figures"]  # as they were hashed before it was there
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def array_hashes(run: RunRecord) -> dict[str, str]:
    """sha256 of the bytes of every array of a run, by name: what `qt reproduce` compares."""
    result = run.result
    arrays = {f"bars.{name}": getattr(run.bars, name) for name in ("open_time", "close_time", *PRICES)}
    arrays |= {f"votes.{name}": getattr(result.votes, name) for name in ("action", "confidence", "probs", "maps")}
    arrays |= {f"decisions.{name}": plane for name, plane in layer_planes(run).items()}
    arrays |= {name: getattr(result, name) for name in ("equity", "balance", "exposure", "fills")}
    if run.bars.funding is not None:
        arrays["bars.funding"] = run.bars.funding
    return {name: hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for name, array in arrays.items() if array is not None}


def file_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every table of a run's folder, by name."""
    return {f"{name}.parquet": hash_file(folder / f"{name}.parquet", kind_of(name)) for name in TABLES}


def _sources() -> dict[str, str]:
    return {package: source_hash(package) for package in ("qtcore", "research")}


def own_source() -> str:
    """Name the source code that is running, by the hashes of its packages."""
    return " ".join(f"{name} {value}" for name, value in _sources().items())


def _versions(names: Iterable[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _write_tables(run: RunRecord, folder: Path) -> None:
    bars = {name: getattr(run.bars, name) for name in PRICES}
    if run.bars.funding is not None:
        bars["funding"] = run.bars.funding
    _write_planes(run.bars, bars, folder / "bars.parquet")
    _write_planes(run.bars, decision_planes(run), folder / "decisions.parquet")
    run.predictions.save(folder / "predictions.parquet")
    for name, frame in (("trades", trades_frame(run)), ("fills", fills_frame(run)), ("equity", equity_frame(run))):
        frame.reset_index().to_parquet(folder / f"{name}.parquet", compression="zstd", index=False, write_page_checksum=True)


def _write_planes(bars: Bars, planes: dict[str, NDArray], path: Path) -> None:
    """Write planes [n, S] as rows, one per bar and symbol in the order of time, then symbols; a part at a time."""
    n_symbols = len(bars.symbols)
    step = max(1, ROWS_AT_ONCE // n_symbols)
    utc = pa.timestamp("ns", tz="UTC")
    writer = None
    try:
        for start in range(0, bars.n, step):
            rows = slice(start, min(bars.n, start + step))
            codes = pa.array(np.tile(np.arange(n_symbols, dtype=np.int32), rows.stop - start))
            columns = {name: pa.array(np.repeat(getattr(bars, name)[rows], n_symbols)).cast(utc) for name in ("open_time", "close_time")}
            columns["symbol"] = pa.DictionaryArray.from_arrays(codes, pa.array(list(bars.symbols)))
            columns |= {name: pa.array(np.ascontiguousarray(plane[rows]).reshape(-1)) for name, plane in planes.items()}
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


@dataclass(frozen=True)
class RunFiles:
    """A finished run on disk; tables are read when they are first asked for. manifest: profile and command by their present names."""

    path: Path
    manifest: dict[str, Any]

    @property
    def summary(self) -> dict[str, Any]:
        """`summary.json` with the verdict of its evidence and of `verify.json`, whichever proof the file was written after.

        Profile and parameters are called and filled in as they are in the manifest and in `params`.
        """
        told = combined(self.measured, self.verify)
        now = {"profile": self.manifest["profile"], "params": self.params().flat()}
        return told | {"assumptions": told["assumptions"] | now}

    @cached_property
    def measured(self) -> dict[str, Any]:
        """`summary.json` as it was read first. Raises UserError where its figures are not those that the manifest vouches for."""
        read = read_json(self.path / "summary.json", SUMMARY)
        if "figures" in self.manifest and self.manifest["figures"] != figures_hash(read):
            raise UserError(f"{self.path / 'summary.json'} must be as the backtest wrote it, was with other figures; {AGAIN}")
        return read

    @property
    def verify(self) -> dict[str, Any]:
        """`verify.json`, read anew: a proof may have been added. Raises UserError where it contradicts itself or proves another run."""
        read = read_json(self.path / "verify.json", CERTIFICATE)
        is_kept = read["passed"] is False or all(check.get("passed", True) for check in read["checks"])
        if not is_kept or read.get("proves", self.proves) != self.proves:
            how = "that of another run" if is_kept else "without its failed checks"
            raise UserError(f"{self.path / 'verify.json'} must be the proof of this run as `qt verify` wrote it, was {how}; run it again")
        return read

    @property
    def proves(self) -> str:
        """What a proof is about, as its certificate names it: the hash of all arrays."""
        return hashlib.sha256(json.dumps(self.manifest["arrays"], sort_keys=True).encode()).hexdigest()

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols in the order they were governed."""
        return tuple(self.manifest["symbols"])

    @property
    def voters(self) -> tuple[str, ...]:
        """Who voted in each of the five slots; the known voters in a run of an earlier version."""
        return tuple(self.manifest.get("voters", MODELS))

    @property
    def ceilings(self) -> bool:
        """Whether a figure that no honest run reaches makes the verdict implausible."""
        return bool(self.manifest.get("ceilings", True))

    def params(self) -> Params:
        """Return the resolved parameters."""
        return replace(Params.stored(self.manifest["params"]), made_of=self.manifest["profile"])

    def frame(self, name: str, columns: list[str] | None = None) -> pd.DataFrame:
        """Read one of the tables bars, decisions, trades, fills, equity, predictions as it lies on disk."""
        if name not in TABLES:
            raise UserError(f"table must be one of {', '.join(TABLES)}, was {name!r}")
        read = self._table(name, columns).replace_schema_metadata(None).to_pandas()  # pandas' own words there may be damaged
        if other := [str(found) for found in read["symbol"].unique() if found not in self.symbols] if "symbol" in read else []:
            raise self._altered(name, f"with the symbol {other[0][:40]!r}")
        return read

    def n_rows(self, name: str) -> int:
        """Rows of a table; its columns are checked too."""
        return count_rows(self.path / f"{name}.parquet", kind_of(name, self.voters))

    def _table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        return read_table(self.path / f"{name}.parquet", kind_of(name, self.voters), columns)

    def planes(self, table: str, names: Iterable[str]) -> dict[str, NDArray]:
        """Read columns of `bars` or `decisions` as planes [n, S], with the bits and dtypes that were written."""
        wanted = list(names)
        read = self._table(table, wanted)
        planes = {name: np.ascontiguousarray(read[name].to_numpy()) for name in wanted}
        return {name: self._plane(table, name, values) for name, values in planes.items()}

    def _plane(self, table: str, name: str, values: NDArray) -> NDArray:
        """Bring a column to [n, S]; of the candles, with the hash of the manifest: what is told of a run hangs on them."""
        if not self.symbols or len(values) % len(self.symbols):
            raise self._altered(table, f"of {len(values):,} rows for {len(self.symbols)} symbols")
        plane: NDArray = values.reshape(-1, len(self.symbols))
        known = self.manifest["arrays"].get(f"{table}.{name}")
        if table == "bars" and known != hashlib.sha256(plane.data).hexdigest():
            raise self._altered(table, f"with another {name}")
        return plane

    def _altered(self, table: str, how: str) -> UserError:
        return UserError(f"{self.path / table}.parquet must be as the backtest wrote it, was {how}; {AGAIN}")

    def bars(self) -> Bars:
        """Rebuild the candles of the run. Raises UserError where they are not those that its manifest vouches for."""
        read = self._table("bars", ["symbol", "open_time", "close_time"])
        if read["symbol"].to_pylist()[: len(self.symbols)] != list(self.symbols):
            raise self._altered("bars", "with other symbols")
        times = {name: read[name].cast(pa.int64()).to_numpy()[:: len(self.symbols)].copy() for name in ("open_time", "close_time")}
        for name, values in times.items():
            if self.manifest["arrays"].get(f"bars.{name}") != hashlib.sha256(values.data).hexdigest():
                raise self._altered("bars", f"with another {name}")
        planes: dict[str, Any] = self.planes("bars", PRICES)
        funding = self.planes("bars", ["funding"])["funding"] if "bars.funding" in self.manifest["arrays"] else None
        bars = Bars(times["open_time"], times["close_time"], **planes, symbols=self.symbols, interval=self.manifest["interval"])
        return replace(bars, funding=funding, origin=self.manifest.get("origin", ""))

    def predictions(self) -> Predictions:
        """Read the predictions that voted; their models stay in the folder."""
        read = Predictions.load(self.path / "predictions.parquet")
        if read.names != self.voters:
            raise self._altered("predictions", f"of the voters {', '.join(read.names)}")
        if read.knows_until != self.manifest.get("knows_until"):
            raise self._altered("predictions", "with another knows_until")
        return read

    def meta(self) -> MetaSchedule | None:
        """Read the learned meta layer that was served, None where the rules alone acted."""
        folder = self.path / "models" / "meta"
        return MetaSchedule.load(folder) if folder.exists() else None

    @property
    def layers_hash(self) -> str:
        """Hash of the file of layers that decided otherwise than the chain; empty where none did."""
        known = self.manifest.get("layers")
        return known["hash"] if known is not None and self.manifest.get("own_layers") else ""

    def own(self, layers: Layers) -> Layers:
        """Return those of the layers at hand that the run used. Raises UserError where they are of another file than the run's."""
        known, mine = self.manifest.get("layers"), layers.about
        if known is not None and mine is not None and known["hash"] != mine["hash"]:
            file, other = f"{known['file']} ({known['hash'][:SHOWN]})", f"{mine['file']} ({mine['hash'][:SHOWN]})"
            raise ConfigError(f"--layers must be the file that {self.path} was made with, {file}, was {other}; give that one")
        used = () if known is None and mine is not None else self.manifest.get("own_layers", ())  # a file in use that has no part in it
        judge, trade = (layers.chain.get(name) if name in used else None for name in ("judge", "trade"))
        return replace(layers, judge=judge, trade=trade)

    def lacking(self, layers: Layers) -> tuple[str, ...]:
        """Name the own layers of the run that are not at hand."""
        return tuple(name for name in self.manifest.get("own_layers", ()) if name not in self.own(layers).chain)

    def chain(self, layers: Layers = NONE) -> tuple[Bars, Predictions, Params, MetaSchedule | None]:
        """Read all that the chain needs to run again beside `layers`. Raises UserError where own layers of the run are lacking."""
        if own := self.lacking(layers):
            known = self.manifest.get("layers")
            remedy = "run its script again" if known is None else f"name {known['file']} with --layers"
            raise UserError(f"run must have its own {', '.join(own)} at hand to be made again, was {self.path} without; {remedy}")
        return self.bars(), self.predictions(), self.params(), self.meta()

    def decisions(self) -> dict[str, NDArray]:
        """Read every decision column as a plane [n, S]."""
        own = [f"{name}_{part}" for name in self.voters for part in ("action", "confidence")]
        rest = (
            "final_action",
            "final_confidence",
            "final_source",
            "governor_reason",
            "size",
            "cell_pnl",
            "volatility",
            "trend_strength",
            "label",
        )
        params = self.params()
        priced = (*(MONEY_COLUMNS if params.decide.rule == DecideRule.EDGE else ()), *(BOOK_COLUMNS if params.is_book else ()))
        several = (*BOOK_COLUMNS, *HORIZON_COLUMNS) if "decisions.holding" in self.manifest["arrays"] else ()
        return self.planes("decisions", [*own, *DECISION_COLUMNS, *dict.fromkeys((*priced, *several)), *rest])


def read_run(folder: Path | str) -> RunFiles:
    """Open a run's folder. Raises UserError when it is missing, half-written or of another schema."""
    path = Path(folder)
    if not path.is_dir():
        was = f"the file {path}" if path.exists() else f"{path} (not found)"
        remedy = "name the folder of --out, or one in reports/"
        if path.is_file():
            remedy = f"of a journal `qt status {path} --export FOLDER` makes one"
        raise UserError(f"run must be a folder that `qt backtest` wrote, was {was}; {remedy}")
    missing = [
        name for name in ("manifest.json", "summary.json", "verify.json", *(f"{t}.parquet" for t in TABLES)) if not (path / name).exists()
    ]
    if missing or path.name.endswith(".partial"):
        what = f"without {', '.join(missing)}" if missing else "half-written"
        raise UserError(f"run folder must be complete, was {path} {what}; run the backtest again")
    manifest: dict[str, Any] = read_json(path / "manifest.json", RUN_JSON)
    if manifest.get("schema_version") != SCHEMA_VERSION:
        found = manifest.get("schema_version")
        raise UserError(f"run folder must be of schema {SCHEMA_VERSION}, was {found!r} in {path}; run the backtest again with this version")
    manifest = MANIFEST.check(manifest, path / "manifest.json")
    profile = profile_now(manifest["profile"], manifest["versions"].get("qtcore"))
    files = RunFiles(path, manifest | {"profile": profile, "command": command_now(manifest["command"])})
    rows = {name: files.n_rows(name) for name in ("bars", "decisions", "equity")}
    if rows != {"bars": rows["bars"], "decisions": rows["bars"], "equity": rows["bars"] // max(1, len(files.symbols))}:
        found = ", ".join(f"{name} of {n:,} rows" for name, n in rows.items())
        raise UserError(f"run folder must hold one bar in all tables, was {path} with {found}; {AGAIN}")
    return files
