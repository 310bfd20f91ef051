"""A bit rots in an old row, in the log, or the file ends early: who says what, and does anybody trade on it?"""

import re
import shutil
import sqlite3
import struct
from pathlib import Path

import pytest

from research.cli.app import app
from research.cli.common import guarded
from research.errors import UserError
from research.live.journal import seal
from research.live.monitoring.sources import open_source
from research.live.session import controls
from research.live.start import start_live
from tests.support.live_market import content, make_market, paper_content, replay_of, run_live

N, OLD = 110, 40
COMMANDS = ("status", "validate", "live-gap")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A market, `whole`, an uninterrupted run with a command at bar 30, and `part`, the same up to bar 90, in one file each."""
    folder = tmp_path_factory.mktemp("market")
    make_market(folder, N)
    for name, until in (("whole", None), ("part", 90)):
        run_live(replay_of(folder, folder / name), 30)
        controls.command(folder / name, controls.command_set(["governor.stop_loss=0.0125"]))
        run_live(replay_of(folder, folder / name), until)
    return folder


def copy_of(folder: Path, to: Path) -> Path:
    for end in ("", ".paper"):
        shutil.copy(f"{folder / 'part'}{end}", f"{to / 'j'}{end}")
    return to / "j"


BAR_OF_FILL = "(SELECT s.bar FROM seals AS s WHERE fills.seq >= s.first_fill AND fills.seq < s.first_fill + s.fills)"
PLACES = {  # table, column, expression of the bar that must be named
    "candle": ("bars", "candles", "bar"),
    "equity": ("bars", "equity", "bar"),
    "vote": ("decisions", "xgb_confidence", "bar"),
    "volatility": ("decisions", "volatility", "bar"),
    "action": ("decisions", "final_action", "bar"),
    "name": ("decisions", "symbol", "bar"),
    "order": ("orders", "notional", "bar"),
    "fill": ("fills", "price", BAR_OF_FILL),
    "time": ("fills", "time", BAR_OF_FILL),
    "command": ("control", "command", "applied_bar"),
    "parameters": ("versions", "params", "from_bar"),
}


def flipped(value):
    """The value with one bit of its bytes another."""
    if isinstance(value, float):
        value = struct.unpack(">d", flipped(struct.pack(">d", value)))[0]
    elif isinstance(value, str):
        value = flipped(value.encode()).decode()
    elif isinstance(value, bytes):
        value = value[:-3] + bytes([value[-3] ^ 1]) + value[-2:]
    else:
        value ^= 1
    return value


def rot(journal: Path, place: str) -> int:
    """Flip one bit of a value of an old row; returns its bar. A candle rots in the bytes of the file, others as SQLite would read them."""
    table, column, bar = PLACES[place]
    key = "id" if table == "orders" else "rowid"
    is_old = f"{bar} >= {OLD} AND {column} != 0" if table not in ("control", "versions") else f"{bar} = 30"
    with sqlite3.connect(journal) as db:
        row, number, value = db.execute(f"SELECT {key}, {bar}, {column} FROM {table} WHERE {is_old} ORDER BY 2").fetchone()
        if place != "candle":
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (flipped(value), row))
    if place == "candle":
        data = journal.read_bytes()
        assert data.count(value) == 1
        journal.write_bytes(data.replace(value, flipped(value)))
    return int(number)


def said_by(words: list[str], capsys) -> str:
    """Run a command that must fail with one sentence; returns it."""
    assert guarded(lambda: app(words, standalone_mode=False)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize("place", PLACES)
def test_a_bit_that_rots_in_an_old_row_is_named_by_all(folder, tmp_path, capsys, place):
    journal = copy_of(folder, tmp_path)
    bar = rot(journal, place)
    before = content(journal)
    time = r"2\d\d\d-\d\d-\d\dT\d\d:00:00Z"
    named = rf"was damaged: .* \(bar {bar} of {time} is not what was written\); restore a copy or use a new --journal"
    with pytest.raises(UserError, match=named):
        start_live(replay_of(folder, journal))
    for command in COMMANDS:
        assert re.search(named, said_by([command, str(journal)], capsys))
    assert content(journal) == before, "nothing was traded"


def test_a_start_looks_at_the_last_bars_and_the_commands_and_the_others_at_all(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(seal, "RECENT", 20)
    journal = copy_of(folder, tmp_path)
    bar = rot(journal, "volatility")
    start_live(replay_of(folder, journal))[1]()
    with pytest.raises(UserError, match=f"bar {bar} of "):
        open_source(journal).check()
    journal = copy_of(folder, tmp_path)
    rot(journal, "command")
    with pytest.raises(UserError, match="bar 30 of "):
        start_live(replay_of(folder, journal))


def test_a_bar_that_lost_its_seal_is_named(folder, tmp_path):
    journal = copy_of(folder, tmp_path)
    with sqlite3.connect(journal) as db:
        db.execute("DELETE FROM seals WHERE bar = 50")
    with pytest.raises(UserError, match="bar 50 has lost its seal"):
        open_source(journal).check()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_that_ends_early_is_refused_by_all(folder, tmp_path, capsys, share):
    journal = copy_of(folder, tmp_path)
    data = journal.read_bytes()
    journal.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="journal must be intact, was damaged"):
        start_live(replay_of(folder, journal))
    for command in COMMANDS:
        assert "journal must be intact, was damaged" in said_by([command, str(journal)], capsys)


def test_a_bit_that_rots_in_the_log_costs_the_bars_behind_it_which_are_decided_again(folder, tmp_path):
    """The log is checked by SQLite: what follows a damaged page of it does not count. The broker, who saw those bars, says so."""
    runner, close = start_live(replay_of(folder, tmp_path / "running"))
    controls.command(tmp_path / "running", {"do": "lift"})
    runner.options.snapshot_bars, runner.options.checkpoint_bars = 20, 10**6

    def watch(entry) -> None:
        if entry.bar == 70:
            for suffix in ("", "-wal", ".paper", ".paper-wal"):
                shutil.copy(f"{tmp_path / 'running'}{suffix}", f"{tmp_path / 'j'}{suffix}")

    runner.watchers = (watch,)
    runner.run()
    close()
    log = Path(f"{tmp_path / 'j'}-wal")
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    outcome, _ = run_live(replay_of(folder, tmp_path / "j"))
    assert 0 < outcome.resumed < 71
    assert content(tmp_path / "j") == content(tmp_path / "running")
    assert paper_content(tmp_path / "j") == paper_content(tmp_path / "running")
    with sqlite3.connect(tmp_path / "j") as db:
        ((bar, text),) = db.execute("SELECT bar, text FROM events WHERE kind = 'lost_bars'").fetchall()
    assert bar == outcome.resumed
    assert f"the journal ends at bar {outcome.resumed - 1}" in text
