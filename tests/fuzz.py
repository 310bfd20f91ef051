"""Fuzzer of every parser and command: valid files, changed a little, must be read, or refused in one sentence.

`python -m tests.fuzz --tries 20000 --seed 1` runs a campaign in child processes, so that neither a lost nor a hanging child ends it, and
tells what fell by kind; exit code 1 when anything did. `--only NAME` takes one target, `--first N` goes on from a try, `--minutes M` stops
earlier. A try is known by seed, target and number alone: `python -m tests.fuzz --seed 1 --only config --first 17 --tries 1` does it again.
"""

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 60.0  # that one try may take
ROUNDS = 10  # of the quick targets, to one of the slow ones
MEMORY, LARGEST = 12 << 30, 1 << 30  # bytes that a child may ask for, and of a file that it may write
WORLD = "simulated:random_walk?n_bars=260&n_symbols=2"
SWEEP = ("sweep", WORLD, "--grid", "governor.min_confidence=0.5,0.6", "--quiet")
SMALL = ["--set", "run.models=lgbm,xgb", "--set", "run.folds=2", "--set", "run.preset=tiny"]
WEIRD = (
    "",
    "-1",
    "0",
    "1e999",
    "NaN",
    "-Infinity",
    "9" * 30,
    "1.2.3",
    "1e-320",
    "x",
    "\0",
    "\ud800",
    "1" * 5000,
    "true",
    "[]",
    "{}",
    "0x10",
    "\u202e",
)
ENDS = {0: "accepted", 1: "failed a check", 2: "refused"}
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    10**30,
    1.5,
    -0.0,
    1e308,
    "",
    "x",
    "1.2.3",
    "\0",
    "../../etc/passwd",
    [],
    [[]],
    {},
    {"a": 1},
    ["x"] * 3,
)
VALUES = ("open", "high", "low", "close", "volume")
Rng = np.random.Generator
Work = Callable[[Path], Any]


@dataclass(frozen=True)
class Target:
    """What is tried. files: patterns of those that are changed, in the folder of seeds; work: reads them, given a copy of the folder.

    beside: patterns of what else of the seeds it reads. is_slow: its work takes seconds; it has its turn once in ROUNDS.
    """

    name: str
    files: tuple[str, ...]
    work: Work
    beside: tuple[str, ...] = ()
    is_slow: bool = False

    def copy(self, seeds: Path, folder: Path) -> None:
        """Copy what it reads of the seeds: all of them would take most of the time of a try."""
        for pattern in dict.fromkeys([*(text.split("/")[0] for text in self.files), *self.beside]):
            for path in seeds.glob(pattern):
                if path.is_dir():
                    shutil.copytree(path, folder / path.relative_to(seeds), dirs_exist_ok=True, symlinks=True)
                else:
                    shutil.copyfile(path, folder / path.relative_to(seeds), follow_symlinks=False)


def flip(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(len(data)))]


def drop(data: bytes, rng: Rng) -> bytes:
    at, n = int(rng.integers(len(data))), int(rng.integers(1, 40))
    return data[:at] + data[at + n :]


def insert(data: bytes, rng: Rng) -> bytes:
    at = int(rng.integers(len(data) + 1))
    return data[:at] + rng.bytes(int(rng.integers(1, 9))) + data[at:]


def double(data: bytes, rng: Rng) -> bytes:
    a, b = sorted(int(x) for x in rng.integers(0, len(data) + 1, 2))
    return data[:b] + data[a : min(b, a + 100_000)] + data[b:]


def swap(data: bytes, rng: Rng) -> bytes:
    a, b, c = sorted(int(x) for x in rng.integers(0, len(data) + 1, 3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def number(data: bytes, rng: Rng) -> bytes:
    """Put something odd in the place of a number."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?(e[+-]?\d+)?", data))
    if not found:
        return flip(data, rng)
    one = found[int(rng.integers(len(found)))]
    return data[: one.start()] + WEIRD[int(rng.integers(len(WEIRD)))].encode("utf-8", "surrogatepass") + data[one.end() :]


def recode(data: bytes, rng: Rng) -> bytes:
    text = data.decode("latin-1")
    return [text.encode("utf-16"), b"\xef\xbb\xbf" + data, b"\xff" + data, text.encode("utf-32"), data.replace(b"\n", b"\r\n")][
        int(rng.integers(5))
    ]


def empty(data: bytes, rng: Rng) -> bytes:
    return [b"", b"\0" * 64, b"\n", b"{}", b"[]", b"0", b"null", b"[" * 100_000, b"PK\x05\x06" + bytes(18), b"PAR1PAR1"][
        int(rng.integers(10))
    ]


BYTES = (flip, flip, cut, drop, insert, double, swap, number, number, recode, empty)


def leaf(data: bytes, rng: Rng) -> bytes:
    """Change one value of JSON, or leave its key out; hashes that the document holds are put right half of the time."""
    whole = json.loads(data)
    places = list(_places(whole))
    holder, key = places[int(rng.integers(len(places)))]
    if isinstance(holder, dict) and rng.random() < 0.3:
        del holder[key]
    else:
        holder[key] = ODD[int(rng.integers(len(ODD)))]
    if isinstance(whole, dict) and "hash" in whole and rng.random() < 0.5:
        import hashlib

        rest = {name: value for name, value in whole.items() if name != "hash"}
        whole["hash"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return json.dumps(whole).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from _places(item)


def line(data: bytes, rng: Rng) -> bytes:
    """Change one line: leave it out, double it, or change a value of its JSON."""
    lines = data.split(b"\n")
    k = int(rng.integers(max(1, len(lines) - 1)))
    with contextlib.suppress(ValueError):
        if rng.random() < 0.6:
            lines[k] = leaf(lines[k], rng)
            return b"\n".join(lines)
    lines[k : k + 1] = [[], [lines[k]] * 2][int(rng.integers(2))]
    return b"\n".join(lines)


def column(data: bytes, rng: Rng) -> bytes:
    """Change one column of a Parquet file: its type, its name, its values, or leave it out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    k, n = int(rng.integers(table.num_columns)), table.num_rows
    name, how = table.column_names[k], int(rng.integers(8))
    if how == 0:
        table = table.drop_columns([name])
    elif how == 1:
        table = table.rename_columns([f"{c}_" if c == name else c for c in table.column_names])
    elif how == 2:
        table = table.take(pa.array(rng.permutation(n)))
    elif how == 3:
        table = table[: int(rng.integers(n + 1))]
    elif how == 4:
        table = pa.concat_tables([table, table[: int(rng.integers(n + 1))]])
    else:
        new = [
            pa.array(["x"] * n),
            pa.nulls(n),
            pa.array(rng.integers(-(2**62), 2**62, n)),
            pa.array(np.full(n, np.nan)),
            pa.array([[1]] * n),
        ]
        table = table.set_column(k, name, new[int(rng.integers(len(new)))])
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(table.schema.metadata), out)
    return out.getvalue()


def cell(data: bytes, rng: Rng) -> bytes:
    """Change one cell of an SQLite file, or leave a table out."""
    import sqlite3

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(data)
        db = sqlite3.connect(path)
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        table = tables[int(rng.integers(len(tables)))]
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        name = columns[int(rng.integers(len(columns)))]
        odd = (None, -1, 2**62, 1.5, "x", b"", b"x" * 7, "{", "[]", '{"a": 1}', "\0")
        with contextlib.suppress(sqlite3.Error):
            if rng.random() < 0.1:
                db.execute(f"DROP TABLE {table}")
            else:
                where = f"rowid = (SELECT rowid FROM {table} ORDER BY rowid LIMIT 1 OFFSET {int(rng.integers(3))})"
                db.execute(f"UPDATE {table} SET {name} = ? WHERE {where}", (odd[int(rng.integers(len(odd)))],))
        db.commit()
        db.close()
        return path.read_bytes()


STRUCTURED = {".json": leaf, ".jsonl": line, ".csv": line, ".toml": line, ".parquet": column, ".sqlite": cell}


def place(path: Path, rng: Rng) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    how = int(rng.integers(6))
    if how == 0:
        path.mkdir()
    elif how == 1:
        os.mkfifo(path)
    elif how == 2:
        path.symlink_to(path.with_name("nothing"))
    elif how == 3:
        path.symlink_to(path)
    elif how == 4:
        path.symlink_to("/dev/zero")


def change(folder: Path, target: Target, rng: Rng) -> str:
    """Change one file of a copy of the seeds; say which and how."""
    files = sorted({path for pattern in target.files for path in folder.glob(pattern) if path.is_file()})
    path = files[int(rng.integers(len(files)))]
    own = STRUCTURED.get(path.suffix)
    if rng.random() < 0.03:
        place(path, rng)
        return f"{path.name}: place"
    work = own if own is not None and rng.random() < 0.5 else BYTES[int(rng.integers(len(BYTES)))]
    data = path.read_bytes()
    path.write_bytes(work(data, rng) if data else rng.bytes(9))
    return f"{path.relative_to(folder)}: {work.__name__}"


class StoppedError(Exception):
    """A command ended with an exit code."""


def cli(*words: str) -> None:
    """Run a command in this process, as `qt` does."""
    from research.cli.app import app

    sys.argv = ["qt", *words]
    if code := app(standalone_mode=False):
        raise StoppedError(code)


def candles(path: Path) -> None:
    """Load candles and compare them with what a naive reader finds in the same bytes."""
    from research.data import load

    loaded = load(str(path))
    if path.suffix == ".csv":
        naive_check(path, loaded)


def naive_check(path: Path, loaded: Any) -> bool:
    """Raise AssertionError where a cell is not in the file, or where more rows are missing than the report counts.

    Rows are read one by one, so that a damaged one does not hide the others. False: the columns have other names, so nothing is compared.
    """
    import csv

    try:
        lines = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        return False
    lines = [words_ for words_ in lines if any(word.strip() for word in words_)]
    names = [word.strip().lower() for word in lines[0]] if lines else []
    if any(names.count(name) != 1 for name in ("timestamp", "symbol", *VALUES)):
        return False
    known: dict[tuple[int, str], list[dict[str, str]]] = {}
    for words_ in lines[1:]:
        row = dict(zip(names, words_))
        time_ = naive_time(row.get("timestamp", ""))
        if time_ is not None:
            known.setdefault((time_, row.get("symbol", "").strip()), []).append(row)
    bars, found = loaded.bars, 0
    for s, symbol in enumerate(bars.symbols):
        for t in np.flatnonzero(~np.isnan(bars.close[:, s])):
            cell = [getattr(bars, name)[t, s] for name in VALUES]
            rows = known.get((int(bars.open_time[t]), symbol), [])
            assert rows, f"a cell at {bars.open_time[t]} of {symbol!r} is not in the file"
            assert any([naive_number(row.get(name, "")) for name in VALUES] == cell for row in rows), (
                f"the cell at {bars.open_time[t]} of {symbol!r} is {cell}, the file has {rows}"
            )
            found += 1
    counted = sum(issue.count for issue in loaded.report.issues if issue.action in ("masked", "dropped") or issue.problem == "gap")
    missing = len(lines) - 1 - found
    assert missing <= counted or loaded.report.notes, f"{missing} rows are missing, and {counted} are told"
    return True


def naive_time(text: str) -> int | None:
    """Read an ISO 8601 time as ns UTC, also with months and days of one digit; None where it is none."""
    from datetime import UTC, datetime

    plain = re.sub(r"(?<=-)(\d)(?=-|T| |$)", r"0\1", text.strip().replace("/", "-"))
    try:
        found = datetime.fromisoformat(plain)
    except ValueError:
        return None
    since = (found if found.tzinfo else found.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1_000


def naive_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def models(folder: Path) -> None:
    """Load a trained set and ask it."""
    from research.training.models.schedule import ModelSet

    known = ModelSet.load(folder)
    matrix = np.random.default_rng(0).normal(size=(30, 2, len(known.feature_names))).astype(np.float32)
    last = max((a.valid_from for a in known.artefacts), default=0)
    known.serve(matrix, last + np.arange(30))


def metas(folder: Path) -> None:
    """Load a meta layer and ask it."""
    from research.training.meta.schedule import MetaSchedule

    known = MetaSchedule.load(folder)
    known.answer(np.zeros((3, len(known.feature_names))), np.full(3, max((a.valid_from for a in known.artefacts), default=0)))


def run_tables(folder: Path) -> None:
    """Read everything that a run's folder holds."""
    from research.live.monitoring.sources import open_source
    from research.runs.folder import TABLES, read_run

    files = read_run(folder)
    assert files.summary
    assert isinstance(files.verify, dict)
    for name in TABLES:
        files.frame(name)
    files.chain()
    files.decisions()
    source = open_source(folder)
    source.book()
    source.tally()
    source.equity()


def imported(path: Path) -> None:
    """Import predictions and compare the votes with what a naive reader finds in the same bytes."""
    from research.data import load_bars
    from research.training.predictions import Predictions

    naive_votes(path, Predictions.import_file(path, load_bars(WORLD)))


def naive_votes(path: Path, found: Any) -> None:
    """Raise AssertionError where a vote differs from the file, or is missing and nothing is told. JSON lines that are odd are left out."""
    from qtcore.types import MODELS

    known: dict[tuple[int | None, str], list[dict[str, tuple[str, float]]]] = {}
    is_table = path.suffix == ".parquet"
    if is_table:
        import pandas as pd

        table = pd.read_parquet(path).rename(columns={"symbol_": "symbol", "close_time_": "close_time"})
        for row in table.to_dict("records"):
            said = {
                m: (str(row[f"{m}_action"]), row[f"{m}_confidence"]) for m in MODELS if f"{m}_action" in row and f"{m}_confidence" in row
            }
            known.setdefault((int(pd.Timestamp(row["close_time"]).value), row["symbol"]), []).append(said)
    else:
        for text in path.read_bytes().decode("utf-8-sig").split("\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                row = json.loads(text)
                votes = {m: vote for m, vote in row["base_predictions"].items() if isinstance(vote, dict)}
                said = {m: (vote.get("action"), vote.get("confidence")) for m, vote in votes.items()}
                known.setdefault((naive_time(row["timestamp"]), row["symbol"]), []).append(said)
    names = {"0": 0, "1": 1, "2": 2, "SELL": 0, "HOLD": 1, "BUY": 2}
    missing = 0
    for t, close in enumerate(found.close_time.tolist()):
        for s, symbol in enumerate(found.symbols):
            rows = known.get((close, symbol), [])
            for m, model in enumerate(MODELS):
                votes = [row[model] for row in rows if model in row and str(row[model][0]).upper() in names]
                mine = (int(found.action[m, t, s]), float(found.confidence[m, t, s]))
                if is_table and not {f"{model}_action", f"{model}_confidence"} <= set(table.columns):
                    continue  # its votes come from its probabilities
                if mine[0] < 0:
                    missing += bool(votes)
                else:
                    assert any((names[str(a).upper()], np.float32(c)) == (mine[0], np.float32(mine[1])) for a, c in votes), (
                        f"{model} of {symbol} at {close} votes {mine}, the file says {votes}"
                    )
    assert not missing or found.notes, f"{missing} votes are missing, and nobody says so"


def logged(folder: Path) -> None:
    from research.training.meta.logs import read_log

    read_log(folder / "predictions.jsonl", folder / "outcomes.csv")


def worlds(path: Path) -> None:
    from research.evidence.nullworlds import _read

    _read(path, {})


def governor(path: Path) -> None:
    from qtcore import Engine
    from research.data import load_bars
    from research.live.session.governor_file import read_governor, take_over
    from research.training.predictions import Predictions

    state, engine = read_governor(path), Engine()
    bars = load_bars("simulated:random_walk?n_bars=30&n_symbols=2")
    engine.run(bars, Predictions.random(bars).votes())
    take_over(engine, state, bars.symbols, path)


def envelope(path: Path) -> None:
    from research.evidence.envelope import Envelope

    found = Envelope.load(path)
    if found is not None:
        assert found.window is not None
        found.edges  # noqa: B018
        found.compare({})


def ledger(folder: Path) -> None:
    os.environ["QT_HOME"] = str(folder)
    cli("trials", "--json")


def fits(folder: Path) -> None:
    from research.training.models.fits import fetch

    for entry in sorted(folder.iterdir()):
        fetch(folder, entry.name, folder.parent / "fetched")


def registry(folder: Path) -> None:
    os.environ["QT_HOME"] = str(folder)
    cli("models", "list", "--json")


def config(path: Path) -> None:
    from research.runs.config import load_config

    load_config(path=path).changes()


def resumed(folder: Path) -> None:
    cli(*SWEEP, "--predictions", str(folder / "stored.parquet"), "--out", str(folder / "sweep"), "--resume")


def scenarios(path: Path) -> None:
    from research.verify.scenarios import run_scenarios

    run_scenarios(path)


def arguments(folder: Path) -> None:
    """Run a command with odd values, which stand in `words.json`."""
    words = [str(word) for word in json.loads((folder / "words.json").read_text())]
    os.environ["QT_HOME"] = str(folder / "home")
    cli(*words)


TARGETS = (
    Target("config", ("qt.toml",), lambda f: config(f / "qt.toml")),
    Target("candles", ("candles.csv",), lambda f: candles(f / "candles.csv")),
    Target("candles parquet", ("candles.parquet",), lambda f: candles(f / "candles.parquet")),
    Target("predictions", ("votes.jsonl",), lambda f: imported(f / "votes.jsonl")),
    Target("predictions parquet", ("stored.parquet",), lambda f: imported(f / "stored.parquet")),
    Target("log", ("run/predictions.jsonl", "run/outcomes.csv"), lambda f: logged(f / "run")),
    Target("scenarios", ("scenarios.json",), lambda f: scenarios(f / "scenarios.json")),
    Target("null worlds", ("worlds.jsonl",), lambda f: worlds(f / "worlds.jsonl")),
    Target("governor", ("governor.json",), lambda f: governor(f / "governor.json")),
    Target("envelope", ("run/envelope.json",), lambda f: envelope(f / "run" / "envelope.json")),
    Target("run folder", ("run/*.json", "run/*.parquet"), lambda f: run_tables(f / "run")),
    Target("explain", ("run/*.json", "run/*.parquet"), lambda f: cli("explain", str(f / "run"), "SIM01", "2000-01-10T00:00", "--json")),
    Target("validate run", ("run/*.json", "run/*.parquet"), lambda f: cli("validate", str(f / "run"), "--json")),
    Target("compare", ("run/*.json", "run/*.parquet"), lambda f: cli("compare", str(f / "run"), str(f / "run"), "--json")),
    Target(
        "report",
        ("run/*.json", "run/*.parquet", "run/models/fold_*/*_meta.json"),
        lambda f: cli("report", str(f / "run"), "--quiet"),
        is_slow=True,
    ),
    Target("verify", ("run/*.json", "run/*.parquet"), lambda f: cli("verify", str(f / "run"), "--quiet"), ("home",), is_slow=True),
    Target("models", ("run/models/schedule.json", "run/models/fold_*/*"), lambda f: models(f / "run" / "models")),
    Target("meta", ("meta/schedule.json", "meta/fold_*/*"), lambda f: metas(f / "meta")),
    Target("journal", ("journal.sqlite",), lambda f: cli("status", str(f / "journal.sqlite")), ("journal.sqlite*",)),
    Target("validate journal", ("journal.sqlite",), lambda f: cli("validate", str(f / "journal.sqlite"), "--json"), ("journal.sqlite*",)),
    Target("ledger", ("home/*.sqlite", "home/*.witness"), lambda f: ledger(f / "home")),
    Target("registry", ("home/registry/*/current.json", "home/registry/*/1/schedule.json"), lambda f: registry(f / "home")),
    Target("fits", ("home/store/fits/*/*",), lambda f: fits(f / "home" / "store" / "fits")),
    Target("sweep", ("sweep/sweep.json", "sweep/trials/*.parquet"), resumed, ("stored.parquet",), is_slow=True),
    Target(
        "arguments",
        ("words.json",),
        arguments,
        ("candles.csv", "stored.parquet", "scenarios.json", "run", "home", "journal.sqlite*"),
        is_slow=True,
    ),
)
COMMANDS = [  # a word each: none holds a blank but the constraint
    [*text.split(), *more]
    for text, *more in (
        (f"backtest {WORLD} --no-verify --quiet --predictions stored.parquet --from 2000-01-02 --to 2000-01-09 --seed 3",),
        ("backtest candles.csv --no-verify --quiet --predictions stored.parquet --set run.embargo=5 --symbols SIM01,SIM02",),
        (
            f"sweep {WORLD} --quiet --out made --grid meta.low_confidence=0.5,0.6 --predictions stored.parquet --profile published --where",
            "sharpe > -9",
        ),
        (f"sweep {WORLD} --grid governor.min_confidence=0.5:0.6 --search random --settings 2 --predictions stored.parquet",),
        (f"sweep {WORLD} --grid governor.min_confidence=0.5:0.6:0.1 --walk-forward 2 --quiet --predictions stored.parquet",),
        ("data check candles.csv --interval 1h",),
        ("data resample candles.csv --out coarse.parquet --interval 4h",),
        ("explain run SIM01 2000-01-10T00:00",),
        ("trials candles.csv",),
        ("trials --json",),
        ("status journal.sqlite",),
        ("doctor --params --json",),
        ("models list --json",),
        ("scenarios scenarios.json --profile original --quiet",),
    )
]
LIKELY = (
    "1",
    "2",
    "7",
    "0.5",
    "-3",
    "1e3",
    "100000000",
    "4h",
    "1M",
    "2000-01-04",
    "SIM02",
    "auto",
    "off",
    "x.parquet",
    "candles.csv",
    "run",
)


def words(rng: Rng, folder: Path) -> str:
    """Write a command with one word changed to `words.json`, mostly a value rather than a name; say which."""
    given = list(COMMANDS[int(rng.integers(len(COMMANDS)))])
    values = [k for k in range(1, len(given)) if not given[k].startswith("--")]
    k = values[int(rng.integers(len(values)))] if values and rng.random() < 0.9 else int(rng.integers(1, len(given)))
    lead, sign, value = given[k].rpartition("=")
    how = rng.random()
    if how < 0.4:
        value = LIKELY[int(rng.integers(len(LIKELY)))]
    elif how < 0.7 or not value:
        value = WEIRD[int(rng.integers(len(WEIRD)))]
    else:
        value = number(value.encode(), rng).decode("utf-8", "replace")
    given[k] = lead + sign + value
    (folder / "words.json").write_text(json.dumps(given))
    return f"{given[0]}: {given[k][:30]!r}"


def make_seeds(folder: Path, *, is_trained: bool) -> None:
    """Write valid files of every kind, with models only where they are asked for: they take half a minute."""
    import research
    from research.data import load_bars, to_pandas
    from research.evidence.nullworlds import _key
    from research.live.monitoring.governor_export import export_governor
    from research.live.monitoring.journal_source import JournalSource
    from research.training.meta.train import train_meta
    from tests.support.live_world import replay

    os.environ["QT_HOME"] = str(folder / "home")
    bars = load_bars(WORLD)
    predictions = research.Predictions.random(bars, seed=4)
    predictions.save(folder / "stored.parquet")
    predictions.save(folder / "predictions.parquet")
    table = (
        to_pandas(bars)
        .reset_index()
        .rename(columns={"open_time": "timestamp"})[["timestamp", "symbol", "open", "high", "low", "close", "volume"]]
        .head(160)
    )
    table.to_parquet(folder / "candles.parquet", index=False)
    table.assign(timestamp=table["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_csv(folder / "candles.csv", index=False)
    (folder / "qt.toml").write_text(
        "[governor]\nmin_confidence = 0.60\nmax_daily_trades = 9\n\n[ensemble]\nweights = [1, 1, 1, 1]\n\n[ensemble.regime_weights]\n"
        'volatility_high = {xgb = 1.2, nhits = 0.8}\n\n[run]\nlabel = "L3"\nmodels = ["xgb"]\nfolds = 3\nseed = 7\nembargo = 4\n'
        'train_share = 0.4\nretrain_every = "7d"\nrolling = true\n\n[[stage]]\nfrom = 2024-03-01\nmeta = true\narbiter = false\n'
    )
    where = [*SMALL] if is_trained else ["--predictions", str(folder / "stored.parquet")]
    world = WORLD.replace("260", "900") if is_trained else WORLD
    with contextlib.suppress(StoppedError):  # an unproven run may end with 1
        cli("backtest", world, *where, "--no-verify", "--quiet", "--export-log", "--out", str(folder / "run"))
    with contextlib.suppress(StoppedError):
        cli(
            *f"backtest {WORLD} --no-verify --quiet --export-log --predictions".split(),
            str(folder / "stored.parquet"),
            "--out",
            str(folder / "other"),
        )
    shutil.move(folder / "other" / "predictions.jsonl", folder / "votes.jsonl")
    shutil.rmtree(folder / "other")
    (folder / "worlds.jsonl").write_text(
        "".join(json.dumps({"key": _key({}), "world": k, "kind": "real", "value": 0.5, "seconds": 1.0}) + "\n" for k in range(-1, 3))
    )
    votes = {"BUY": 0.5, "SELL": 0.0, "HOLD": 0.0}
    said = {"action": "BUY", "confidence": 0.75, "consensus": "unanimous", "consensus_count": 2, "votes": votes}
    case = {"id": "EV-1", "component": "ensemble_vote", "title": "t", "switches": [], "config": {}, "expected": said}
    case["input"] = {"predictions": {"xgb": {"action": "BUY", "confidence": 0.8}, "lgbm": {"action": "BUY", "confidence": 0.7}}}
    (folder / "scenarios.json").write_text(json.dumps({"schema_version": 1, "float_tolerance": {"rel": 1e-9}, "cases": [case, case]}))
    replay(folder, folder / "journal.sqlite", until=60, feed=WORLD)
    export_governor(JournalSource(folder / "journal.sqlite"), folder / "governor.json")
    state = json.loads((folder / "governor.json").read_text())
    (folder / "governor.json").write_text(json.dumps(state | {"active_positions": {}}))
    (folder / "words.json").write_text("[]")
    if is_trained:
        long = load_bars(WORLD.replace("260", "1500"))
        train_meta(long, research.Predictions.random(long, seed=1), kind="forest", out=folder / "meta")
        cli("models", "promote", str(folder / "run" / "models"), "--as", "name")
        cli(*SWEEP, "--predictions", str(folder / "stored.parquet"), "--out", str(folder / "sweep"))


def attempt(target: Target, seeds: Path, seed: int, number_: int) -> dict[str, Any]:
    """Do one try: what was changed, the exit code, what was said, and the faults."""
    from research.cli.common import guarded

    rng = np.random.default_rng([seed, TARGETS.index(target), number_])
    folder = Path(tempfile.mkdtemp(prefix="qt_fuzz_"))
    home, before, arguments_ = os.environ.get("QT_HOME"), Path.cwd(), sys.argv
    out, err, began = io.StringIO(), io.StringIO(), time.monotonic()
    try:
        target.copy(seeds, folder)
        os.environ["QT_HOME"] = str(folder / "home")
        changed = words(rng, folder) if target.name == "arguments" else change(folder, target, rng)
        os.chdir(folder)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), open(os.devnull) as nothing:
            kept, sys.stdin = sys.stdin, nothing
            try:
                code = guarded(lambda: _coded(target, folder))
            finally:
                sys.stdin = kept
    finally:
        os.chdir(before)
        sys.argv = arguments_
        os.environ.pop("QT_HOME", None)
        os.environ |= {} if home is None else {"QT_HOME": home}
        shutil.rmtree(folder, ignore_errors=True)
    said, seconds = err.getvalue(), time.monotonic() - began
    return {
        "changed": changed,
        "code": code,
        "said": said[-600:],
        "seconds": seconds,
        "faults": faults(code, said, out.getvalue(), seconds),
    }


def _coded(target: Target, folder: Path) -> int:
    try:
        target.work(folder)
    except StoppedError as stop:
        return int(stop.args[0])
    return 0


def faults(code: int, said: str, shown: str, seconds: float) -> list[str]:
    """Say what is wrong with how a try ended."""
    found = [] if code in (0, 1, 2, 130) else [f"exit {code}"]
    found += ["traceback"] if "Traceback" in said + shown else []
    found += ["too slow"] if seconds > SECONDS else []
    if code == 2:
        lines = [text for text in said.split("\n") if text.startswith("qt: ")]
        found += [] if len(lines) == 1 and said.rstrip("\n").endswith(lines[0]) else ["not one sentence"]
    return found


def child(folder: Path, seed: int, only: str, first: int) -> None:
    """Do tries and write a line before and after each, until the reader hangs up."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))
    targets = [target for target in TARGETS if only in ("", target.name)]
    turns = [target for k in range(ROUNDS) for i, target in enumerate(targets) if not target.is_slow or i % ROUNDS == k]
    for k in range(first, sys.maxsize):
        target = turns[k % len(turns)]
        sys.stdout.write(json.dumps({"k": k, "target": target.name}) + "\n")
        sys.stdout.flush()
        sys.stdout.write(json.dumps({"k": k, "target": target.name} | attempt(target, folder, seed, k)) + "\n")
        sys.stdout.flush()


def campaign(tries: int, seed: int, only: str = "", first: int = 0, minutes: float = 0.0) -> Counter[str]:
    """Do `tries` tries in a child process at a time; tell what fell and the ends by target, and return the faults by target and kind."""
    import selectors

    fallen: Counter[str] = Counter()
    ends: dict[str, Counter[str]] = {target.name: Counter() for target in TARGETS if only in ("", target.name)}
    with tempfile.TemporaryDirectory(prefix="qt_seeds_") as seeds:
        with contextlib.redirect_stdout(io.StringIO()):
            make_seeds(Path(seeds), is_trained=True)
        k, began = first, time.monotonic()
        end = began + 60.0 * (minutes or sys.maxsize)
        while k < first + tries and time.monotonic() < end:
            command = [sys.executable, "-m", "tests.fuzz", "--child", seeds, "--seed", str(seed), "--only", only, "--first", str(k)]
            worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, bufsize=0)
            assert worker.stdout is not None
            watch = selectors.DefaultSelector()
            watch.register(worker.stdout, selectors.EVENT_READ)
            target = "start"
            while k < first + tries and time.monotonic() < end:
                is_late = not watch.select(2 * SECONDS)
                text = b"" if is_late else worker.stdout.readline()
                if not text:
                    fallen[f"{target}: {'hang' if is_late else 'child lost'}"] += 1
                    ends.setdefault(target, Counter())["hang" if is_late else "child lost"] += 1
                    sys.stdout.write(f"FELL {k} {target}: {'hang' if is_late else 'child lost'}\n")
                    k += 1
                    break
                told = json.loads(text)
                target = told["target"]
                if "code" not in told:
                    continue
                ends[target][ENDS.get(told["code"], f"exit {told['code']}")] += 1
                for fault in told["faults"]:
                    fallen[f"{target}: {fault}"] += 1
                    sys.stdout.write(f"FELL {k} {target} ({told['changed']}): {fault}: {told['said']}\n")
                k += 1
                if k % 200 == 0:
                    sys.stdout.write(f"{k - first:,} tries, {time.monotonic() - began:.0f} s, {sum(fallen.values())} fell\n")
                sys.stdout.flush()
            worker.kill()
            worker.wait()
    for name, counts in [*ends.items(), ("all", sum(ends.values(), Counter()))]:
        sys.stdout.write(f"{name:<20} {counts.total():>7,} tries: {', '.join(f'{n:,} {end}' for end, n in counts.most_common())}\n")
    sys.stdout.write(f"fell: {dict(fallen) or 'none'}\n")
    return fallen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so many, 0 for never")
    parser.add_argument("--child", default="")
    asked = parser.parse_args()
    if asked.child:
        child(Path(asked.child), asked.seed, asked.only, asked.first)
    return 1 if campaign(asked.tries, asked.seed, asked.only, asked.first, asked.minutes) else 0


if __name__ == "__main__":
    sys.exit(main())
