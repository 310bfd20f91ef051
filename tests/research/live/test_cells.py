"""A cell that nobody wrote is damage, in one sentence, wherever it is read; what our own code does wrong is never called that."""

import shutil
import sqlite3
from contextlib import closing, suppress
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from qtcore import MODELS, Engine
from research.cli.app import app
from research.cli.common import guarded
from research.errors import UserError
from research.live.dashboard.monitor import screen
from research.live.dashboard.server import page
from research.live.journal.outcomes import read_outcomes
from research.live.monitoring.counts import LiveCounts
from research.live.monitoring.gap import live_gap
from research.live.monitoring.governor_export import governor_state
from research.live.monitoring.sources import open_source
from research.live.session.runner import Runner
from research.live.storage.cells import FIELDS, DamagedError, check, command_of, parsed
from research.live.storage.codec import vote_names
from tests.support.live_market import make_market, replay_of, run_live

UNTIL = 60
ODD = ("x", 2**62, b"\x01\x02", None)
JOURNAL = ("about", "versions", "bars", "decisions", "orders", "fills", "book", "snapshots", "events", "control", "seals", "looks")
ACTS = ("about", "versions", "bars", "orders", "snapshots", "control", "seals", "looks")  # of these a start reads more than seals do


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A market, and `part`, a journal of it with a command and its paper account, one file each."""
    folder = tmp_path_factory.mktemp("market")
    make_market(folder, UNTIL + 20)
    run_live(replay_of(folder, folder / "part"), 30)
    with sqlite3.connect(folder / "part") as db:
        db.execute('INSERT INTO control (time, command) VALUES (1, \'{"do": "set", "values": {"governor.stop_loss": 0.0125}}\')')
    run_live(replay_of(folder, folder / "part"), UNTIL)
    for name in ("part", "part.paper"):
        with sqlite3.connect(folder / name) as db:
            assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            assert db.execute("SELECT COUNT(*) FROM orders WHERE state = 'open'").fetchone()[0] > 0
    return folder


def damaged_files(folder: Path, to: Path, name: str, table: str):
    """Damage copies of a file, a cell of the last row in each, of orders of an open one; yields the journal and what was done."""
    with closing(sqlite3.connect(folder / name)) as db:
        columns = db.execute(f"SELECT name, pk FROM pragma_table_info('{table}')").fetchall()
    key = next(column for column, is_key in columns if is_key)
    last = "state = 'open' DESC" if table == "orders" else f"{key} DESC"
    for k, (column, odd) in enumerate(product([column for column, _ in columns], ODD)):
        copy = to / str(k)
        copy.mkdir()
        for each in ("part", "part.paper"):
            shutil.copy(folder / each, copy / each)
        with closing(sqlite3.connect(copy / name)) as db, suppress(sqlite3.Error):  # SQLite itself refuses some
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = (SELECT {key} FROM {table} ORDER BY {last} LIMIT 1)", (odd,))
            db.commit()
        yield copy / "part", f"{table}.{column} = {odd!r}"


def refusals(folder: Path, to: Path, name: str, table: str, work) -> dict[str, str]:
    """Do `work` with every damaged copy; returns the sentences that refused one."""
    said = {}
    for journal, done in damaged_files(folder, to, name, table):
        try:
            work(journal)
        except UserError as error:
            said[done] = str(error)
    return said


def looked_at(journal: Path) -> None:
    """Read everything that a page, a terminal, a script and a training read, without the look at the seals that commands begin with."""
    source = open_source(journal)
    page(source)
    screen(source)
    governor_state(source)
    read_outcomes(journal)


def gone_on(folder: Path, journal: Path) -> None:
    """Decide two more bars, and compare the whole with a backtest."""
    run_live(replay_of(folder, journal), UNTIL + 2)
    live_gap(journal)


@pytest.mark.parametrize("table", JOURNAL)
def test_a_view_of_a_damaged_cell_is_a_view_or_one_sentence(folder, tmp_path, table):
    said = refusals(folder, tmp_path, "part", table, looked_at)
    assert {text for text in said.values() if "journal must be" not in text} == set()
    assert said or table in ("seals", "snapshots"), "pages read no seal and no state"


@pytest.mark.parametrize("table", ACTS)
def test_a_start_on_a_damaged_cell_goes_on_or_says_one_sentence(folder, tmp_path, table):
    said = refusals(folder, tmp_path, "part", table, lambda journal: gone_on(folder, journal))
    assert {text for text in said.values() if "must" not in text} == set()
    assert said or table == "looks", "what was noticed decides nothing"


@pytest.mark.parametrize("table", ["account", "orders", "fills"])
def test_a_start_on_a_damaged_paper_account_goes_on_or_says_one_sentence(folder, tmp_path, table):
    said = refusals(folder, tmp_path, "part.paper", table, lambda journal: gone_on(folder, journal))
    assert {text for text in said.values() if "must" not in text} == set()
    assert said


def test_a_fault_of_ours_is_not_called_a_damaged_file(folder, tmp_path, monkeypatch, capsys):
    for name in ("part", "part.paper"):
        shutil.copy(folder / name, tmp_path / name.replace("part", "j"))
    journal = tmp_path / "j"

    def broken(*_, **__):
        raise TypeError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(LiveCounts, "add", broken)
        assert guarded(lambda: app(["status", str(journal)], standalone_mode=False)) == 3
        assert "our fault, TypeError" in capsys.readouterr().err
    for owner, name in ((Engine, "restore"), (Runner, "_check_account"), (Runner, "_catch_up")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, broken)
            with pytest.raises(TypeError, match="a fault of ours"):
                run_live(replay_of(folder, journal), UNTIL + 2)
    gone_on(folder, journal)  # the journal was whole all the time


def test_a_misuse_of_sqlite_is_not_called_a_damaged_file(folder):
    source = open_source(folder / "part")
    source._reading.close()
    with pytest.raises(sqlite3.ProgrammingError):
        source.rows("SELECT bar FROM bars")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("final_action", 7, "final_action as 7"),
        ("governor_reason", 16, "governor_reason as 16"),
        ("close_time", 1.5, "close_time as 1.5"),
        ("equity", None, "equity as nothing"),
        ("equity", True, "equity as True"),
        ("symbol", b"x", "symbol as b'x'"),
        ("bar", 2**50, f"bar as {2**50}"),
    ],
)
def test_what_no_column_holds_is_named(name, value, said):
    with pytest.raises(DamagedError, match=f"^{said}$"):
        check([name], [(value,)])


def test_every_column_of_a_journal_says_what_it_holds(folder):
    with sqlite3.connect(folder / "part") as db:
        for table in JOURNAL:
            known = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
            hashed_only = {"peak", "from_bar", "trade_id", "slippage", "applied_bar", "probs"} if table != "decisions" else set()
            votes = set(vote_names(MODELS)) if table == "decisions" else set()
            assert known - hashed_only - votes <= set(FIELDS), table


@pytest.mark.parametrize(
    "text", ["{", '"x"', '{"do": 1}', '{"do": "set"}', '{"do": "stop"}', '{"do": "reset_stats", "cell": "x"}', "[" * 100_000]
)
def test_a_command_of_another_form_is_damage(text):
    with pytest.raises(DamagedError, match=r"^commands "):
        command_of(text)


def test_json_keeps_its_shape():
    assert parsed('{"a": [1]}', {"a": [int]}, "x") == {"a": [1]}
    with pytest.raises(DamagedError, match=r"^x with a\[0\] as 'b', not a whole number$"):
        parsed('{"a": ["b"]}', {"a": [int]}, "x")


def bytes_of(kind: str, tmp_path: Path) -> bytes:
    """Make a file of some kind."""
    table = pd.DataFrame({"timestamp": ["2024-01-01T00:00:00Z"], "symbol": ["A"], "close": [1.5]})
    made = tmp_path / "made"
    if kind == "a Parquet file":
        table.to_parquet(made)
    elif kind == "a Feather file":
        table.to_feather(made)
    elif kind == "a JSON file":
        table.to_json(made, orient="records")
    else:
        end = {"a zip archive": "zip", "a gzip archive": "gzip", "a text file": None}[kind]
        table.to_csv(made, compression=end)
    return made.read_bytes()


@pytest.mark.parametrize("kind", ["a Parquet file", "a Feather file", "a JSON file", "a zip archive", "a gzip archive", "a text file"])
def test_a_file_of_another_kind_is_told_by_its_kind_and_left_alone(kind, folder, tmp_path, capsys):
    data = bytes_of(kind, tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    path = alone / "file"
    path.write_bytes(data)
    said = f"qt: journal must be a file that `qt live` wrote, was {kind}: {path}; "
    for command in (["status"], ["monitor"], ["validate"], ["dashboard"], ["live-gap"]):
        assert guarded(lambda command=command: app([*command, str(path)], standalone_mode=False)) == 2
        assert capsys.readouterr().err == said + "name a journal or a run's folder; `qt data check` looks at candles\n"
    for words in (["live", "stop", str(path)], ["live", "set", str(path), "governor.stop_loss=0.01"]):
        assert guarded(lambda words=words: app(words, standalone_mode=False)) == 2
        assert capsys.readouterr().err == said + "choose another --journal\n"
    with pytest.raises(UserError, match=f"was {kind}: .*; choose another --journal"):
        run_live(replay_of(folder, path))
    assert [each.name for each in alone.iterdir()] == ["file"]
    assert path.read_bytes() == data


def test_a_file_of_a_run_names_the_folder_of_the_run(tmp_path):
    for name in ("manifest.json", "summary.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=rf"was a JSON file: .*summary.json; name its folder, {tmp_path}$"):
        open_source(tmp_path / "summary.json")


def test_an_empty_file_is_told_as_one(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"was empty: .*; name a journal"):
        open_source(tmp_path / "file")


def test_parameters_of_another_release_are_no_damage(folder, tmp_path):
    for name in ("part", "part.paper"):
        shutil.copy(folder / name, tmp_path / name)
    with closing(sqlite3.connect(tmp_path / "part")) as db:
        db.execute("UPDATE versions SET params = json_set(params, '$.\"governor.moon_phase\"', 0.5)")
        db.execute("DELETE FROM seals")  # that release sealed what it wrote
        db.commit()
    said = r"^journal must be of this release, was of one with the parameter governor\.moon_phase: .*; go on with the release that wrote it"
    for work in (looked_at, lambda journal: gone_on(folder, journal)):
        with pytest.raises(UserError, match=said):
            work(tmp_path / "part")
