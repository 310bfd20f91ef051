"""Does a journal stay one file: under every name, beside other processes, when it is taken away, and when its start is refused?"""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from research.cli.app import app
from research.cli.common import guarded
from research.errors import UserError
from research.live.monitoring.sources import open_source
from research.live.session.controls import command, kill_file_of
from research.live.start import LiveOptions, start_live
from research.live.storage import files
from research.live.storage.files import hold
from research.live.storage.place import check_apart
from tests.support import FLAG
from tests.support.live_market import content, make_market, paper_content, replay_of, run_live

N = 80
NAMES = ("a#b%20c d?mode=rw&x;", "\u4fa1\u683c\u20ac", "-j", "file:x'\"\\", ":memory:")


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A folder with candles, predictions and `whole`, the journal of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("market")
    make_market(folder, N)
    _, state = run_live(replay_of(folder, folder / "whole"))
    return folder, (content(folder / "whole"), paper_content(folder / "whole"), state)


def qt(*words: object) -> int:
    return guarded(lambda: app([str(word) for word in words], standalone_mode=False))


def words_of(folder: Path, journal: object) -> list[object]:
    given = {"--feed": f"replay:{folder / 'bars.parquet'}", "--predictions": folder / "predictions.parquet", "--journal": journal}
    return ["live", FLAG, *(word for pair in given.items() for word in pair), "--quiet"]


def process(folder: Path, journal: object, *more: str) -> subprocess.Popen:
    line = [sys.executable, "-m", "research", *map(str, words_of(folder, journal)), *more]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_bars(journal: Path, n: int) -> None:
    end = time.monotonic() + 150.0
    while time.monotonic() < end:
        if journal.exists() and Path(f"{journal}-wal").exists():
            try:
                if open_source(journal).rows("SELECT COUNT(*) AS n FROM bars")[0][0] >= n:
                    return
            except UserError:
                pass
        time.sleep(0.05)
    pytest.fail("no bar came")


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything under a folder, and what the files hold."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def check_same(journal: Path, whole: tuple) -> None:
    assert content(journal) == whole[0]
    assert paper_content(journal) == whole[1]


# one file, whatever it is called


def test_every_way_to_a_file_in_use_is_refused(market, tmp_path, monkeypatch, capsys):
    folder, _ = market
    journal = tmp_path / "real" / "j"
    journal.parent.mkdir()
    (tmp_path / "link").symlink_to(journal)
    (tmp_path / "chain").symlink_to(tmp_path / "link")
    (tmp_path / "folder").symlink_to(journal.parent)
    monkeypatch.chdir(tmp_path)
    runner = process(folder, journal, "--speed", "2")
    try:
        wait_for_bars(journal, 3)
        os.link(journal, tmp_path / "hard")
        ways = [tmp_path / "link", tmp_path / "chain", tmp_path / "folder" / "j", Path("real/j"), Path("real/../real/j"), Path("./link")]
        for way in (*ways, tmp_path / "hard"):
            assert qt(*words_of(folder, way)) == 2
            assert "must be of one runner at a time, was in use" in capsys.readouterr().err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["chain", "folder", "hard", "link", "real"]
        assert open_source(tmp_path / "link").runner()["is_running"] is True
    finally:
        runner.send_signal(2)
        assert runner.wait(150) == 0, runner.stderr.read()


def test_a_link_stands_for_its_file(market, tmp_path, capsys):
    folder, _ = market
    (tmp_path / "there").mkdir()
    journal, link = tmp_path / "there" / "j", tmp_path / "link"
    link.symlink_to(journal)  # to a file that is not there yet
    run_live(replay_of(folder, link), 30)
    command(link, {"do": "set", "values": {"governor.stop_loss": 0.02}})
    assert open_source(link).path == journal
    run_live(replay_of(folder, link), 31)
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]
    assert sorted(path.name for path in journal.parent.iterdir()) == ["j", "j.lock", "j.paper"]
    assert qt("status", link) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["source"] == "j"


def test_a_link_and_its_file_go_on_with_each_other(market, tmp_path):
    folder, whole = market
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "j")
    run_live(replay_of(folder, tmp_path / "there" / "j"), 30)
    run_live(replay_of(folder, tmp_path / "link"), 50)
    _, state = run_live(replay_of(folder, tmp_path / "there" / "j"))
    assert state == whole[2]
    check_same(tmp_path / "there" / "j", whole)


def test_a_kill_file_beside_the_file_of_a_link_acts(market, tmp_path):
    folder, _ = market
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "j")
    runner, close = start_live(replay_of(folder, tmp_path / "link"))
    assert runner.controls.kill_file == kill_file_of(tmp_path / "there" / "j")
    close()


@pytest.mark.parametrize("kind", ["text", "sqlite", "empty sqlite in another mode", "folder", "pipe", "circle"])
def test_what_a_link_leads_to_is_not_changed(market, tmp_path, kind, capsys):
    folder, _ = market
    target, link = tmp_path / "target", tmp_path / "link"
    if kind == "text":
        target.write_text("the only copy of something\n" * 100)
    elif kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    elif kind == "circle":
        target.symlink_to(link)
    else:
        with sqlite3.connect(target) as db:
            db.execute("CREATE TABLE mine (x)")
            db.execute("PRAGMA user_version = 7")
    link.symlink_to(target)
    before = tree(tmp_path)
    for name in ("link", "target"):
        assert qt(*words_of(folder, tmp_path / name)) == 2
        assert capsys.readouterr().err.startswith("qt: journal must be ")
        assert tree(tmp_path) == before


@pytest.mark.parametrize("suffix", [".lock", ".paper"])
def test_a_planted_link_beside_a_journal_is_not_followed(market, tmp_path, suffix, capsys):
    folder, _ = market
    (tmp_path / "victim").write_text("precious")
    (tmp_path / f"j{suffix}").symlink_to(tmp_path / "victim")
    before = tree(tmp_path)
    assert qt(*words_of(folder, tmp_path / "j")) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert tree(tmp_path) == before


def test_a_journal_with_two_names_is_refused(market, tmp_path, capsys):
    folder, whole = market
    run_live(replay_of(folder, tmp_path / "j"), 30)
    os.link(tmp_path / "j", tmp_path / "other")
    for name in ("j", "other"):
        assert qt(*words_of(folder, tmp_path / name)) == 2
        assert "must have one name, was a file with 2 (hard links)" in capsys.readouterr().err
    (tmp_path / "other").unlink()
    (tmp_path / "other.lock").unlink(missing_ok=True)
    run_live(replay_of(folder, tmp_path / "j"))
    check_same(tmp_path / "j", whole)


def test_a_hold_ends_with_its_process_or_with_close(tmp_path):
    held = hold(tmp_path / "j")
    with pytest.raises(UserError, match="in use"):
        hold(tmp_path / "j")
    held.close()
    hold(tmp_path / "j").close()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_itself_everywhere(market, tmp_path, monkeypatch, capsys, name):
    folder, whole = market
    home = tmp_path / name
    home.mkdir()
    monkeypatch.chdir(home)
    assert qt(*words_of(folder, name)) == 0
    capsys.readouterr()
    check_same(home / name, whole)
    for line in (["status", "--", name], ["status", home / name], ["monitor", "--once", "--", name], ["live-gap", "--json", "--", name]):
        assert qt(*line) == 0
        told = capsys.readouterr()
        assert told.err == ""
        assert "identical" not in told.out or json.loads(told.out)["identical"] is True
    assert qt("validate", "--", name) in (0, 1)
    assert qt("status", "--export", "out#?%", "--governor", "g#?%.json", "--", name) == 0
    assert json.loads((home / "g#?%.json").read_text())["schema_version"] == 1
    assert (home / "out#?%" / "manifest.json").exists()
    assert qt("live", "stop", "--", name) == 0
    kept = {f"{name}{suffix}" for suffix in ("", ".lock", ".paper")} | {"out#?%", "g#?%.json"}
    assert {path.name for path in home.iterdir() if not path.name.endswith(("-wal", "-shm"))} == kept


@pytest.mark.parametrize("name", ["a#b", "a?x=%41", "-j"])
def test_the_dashboard_finds_it_too(market, tmp_path, name):
    from tests.support.live_world import ask, served

    shutil.copy(market[0] / "whole", tmp_path / name)
    with served(open_source(tmp_path / name)) as server:
        assert json.loads(ask(server.url + "api/page")[1])["status"]["source"] == name


# other processes


@pytest.mark.parametrize("suffix", ["", ".paper"])
@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_lock_of_others_is_waited_for_and_noted(market, tmp_path, suffix, mode):
    folder, whole = market
    runner, close = start_live(replay_of(folder, tmp_path / "j"))
    other = sqlite3.connect(f"{tmp_path / 'j'}{suffix}", isolation_level=None, check_same_thread=False)

    def release() -> None:
        other.execute("ROLLBACK")
        other.close()

    def take(entry) -> None:
        if entry.bar == 40:
            other.execute(f"BEGIN {mode}")
            threading.Timer(2.2, release).start()

    runner.watchers = (*runner.watchers, take)
    start = time.monotonic()
    outcome = runner.run()
    close()
    assert time.monotonic() - start > 2.2
    assert outcome.bars == N
    with sqlite3.connect(tmp_path / "j") as db:
        told = db.execute("SELECT text FROM events WHERE kind = 'locked'").fetchall()
        db.execute("DELETE FROM events WHERE kind = 'locked'")
    what = "paper account" if suffix else "journal"
    assert told
    assert all(text.startswith(f"another process held the {what} for ") for (text,) in told)
    assert sum(int(re.search(r"(\d+) s;", text)[1]) for (text,) in told) in (2, 3)
    assert paper_content(tmp_path / "j") == whole[1]
    assert {k: v for k, v in content(tmp_path / "j").items() if k != "events"} == {k: v for k, v in whole[0].items() if k != "events"}


def test_who_is_told_to_stop_waits_no_longer(market, tmp_path):
    folder, whole = market
    runner, close = start_live(replay_of(folder, tmp_path / "j"))
    other = sqlite3.connect(tmp_path / "j", isolation_level=None)

    def take(entry) -> None:
        if entry.bar == 40:
            other.execute("BEGIN IMMEDIATE")
            threading.Timer(0.7, runner.stop).start()

    runner.watchers = (take,)
    start = time.monotonic()
    with pytest.raises(UserError, match="must be free for writing, was held by another process"):
        runner.run()
    assert time.monotonic() - start < 5.0
    other.execute("ROLLBACK")
    other.close()
    close()
    _, state = run_live(replay_of(folder, tmp_path / "j"))
    assert state == whole[2]
    check_same(tmp_path / "j", whole)


def test_a_command_waits_ten_seconds_only(market, tmp_path, monkeypatch):
    shutil.copy(market[0] / "whole", tmp_path / "j")
    monkeypatch.setattr("research.live.session.controls.COMMAND_SECONDS", 0.3)
    other = sqlite3.connect(tmp_path / "j", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match="was held by another process"):
        command(tmp_path / "j", {"do": "lift"})
    other.close()
    assert files.BUSY_SECONDS > 60.0  # a runner waits for longer than a minute


# taken away


def move_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace_by_copy(path: Path) -> None:
    shutil.copy(path, f"{path}.copy")
    os.replace(f"{path}.copy", path)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", ".paper", ".paper-wal"])
@pytest.mark.parametrize("how", [Path.unlink, move_away, replace_by_copy])
def test_a_file_that_is_taken_away_stops_the_runner_with_a_sentence(market, tmp_path, suffix, how):
    folder, _ = market
    runner, close = start_live(replay_of(folder, tmp_path / "j"))
    seen = []

    def take(entry) -> None:
        seen.append(entry.bar)
        if entry.bar == 40:
            how(Path(f"{tmp_path / 'j'}{suffix}"))

    runner.watchers = (take,)
    what = "paper account" if "paper" in suffix else "journal"
    word = "replaced by another file" if how is replace_by_copy else "removed"
    with pytest.raises(UserError, match=f"^{what} must stay while it is in use, was {word}: .*j{suffix}; ") as error:
        runner.run()
    close()
    assert "\n" not in str(error.value)
    assert seen[-1] == 40


def test_an_account_that_was_taken_away_comes_back(market, tmp_path):
    folder, whole = market
    runner, close = start_live(replay_of(folder, tmp_path / "j"))
    runner.watchers = (lambda entry: Path(f"{tmp_path / 'j'}.paper").unlink() if entry.bar == 40 else None,)
    with pytest.raises(UserError, match="start again, the journal gives it everything back"):
        runner.run()
    close()
    _, state = run_live(replay_of(folder, tmp_path / "j"))
    assert state == whole[2]
    check_same(tmp_path / "j", whole)


def test_a_log_of_the_journal_that_was_taken_away_costs_no_bar(market, tmp_path):
    folder, whole = market
    runner, close = start_live(replay_of(folder, tmp_path / "j"))
    runner.watchers = (lambda entry: Path(f"{tmp_path / 'j'}-wal").unlink() if entry.bar == 40 else None,)
    with pytest.raises(UserError, match="was removed"):
        runner.run()
    close()
    _, state = run_live(replay_of(folder, tmp_path / "j"))
    assert state == whole[2]
    check_same(tmp_path / "j", whole)


def test_a_journal_that_is_removed_ends_the_command_with_code_2(market, tmp_path):
    runner = process(market[0], tmp_path / "j", "--speed", "2")
    wait_for_bars(tmp_path / "j", 3)
    (tmp_path / "j").unlink()
    out, err = runner.communicate(timeout=150)
    assert runner.returncode == 2
    assert err.startswith("qt: journal must stay while it is in use, was removed: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "j").exists()


def test_who_looks_is_told_that_the_file_is_another(market, tmp_path):
    folder, _ = market
    shutil.copy(folder / "whole", tmp_path / "j")
    source = open_source(tmp_path / "j")
    replace_by_copy(tmp_path / "j")
    with pytest.raises(UserError, match="was replaced by another file"):
        source.book()
    (tmp_path / "j").unlink()
    with pytest.raises(UserError, match="was missing"):
        source.book()


# refused


REFUSALS = {
    "no models": (["--predictions"], [], "must have --predictions or --models"),
    "a feed of no kind": (["--feed"], ["--feed", "nothing"], "--feed must be"),
    "candles that are not there": (["--feed"], ["--feed", "replay:no.parquet"], "no.parquet"),
    "models of no folder": (["--predictions"], ["--models", "no_such"], "no_such"),
    "predictions that are not there": (["--predictions"], ["--predictions", "no.parquet"], "no.parquet"),
    "symbols that are not there": ([], ["--symbols", "NO"], "symbols (--symbols) must be"),
    "symbols of no prediction": ([], ["--symbols", "S0"], "S0"),
    "a wrong value": ([], ["--set", "governor.stop_loss=x"], "stop_loss"),
    "a wrong fill": ([], ["--set", "broker.fill=close"], "broker.fill must be next_open"),
    "the next close": ([], ["--set", "broker.fill=next_close"], "broker.fill must be next_open in live trading, was next_close"),
    "a bar later": ([], ["--set", "broker.fill=one_bar_later"], "broker.fill must be next_open in live trading, was one_bar_later"),
    "the worst price": ([], ["--set", "broker.fill=worst"], "broker.fill must be next_open in live trading, was worst"),
    "an impact": ([], ["--set", "broker.impact=0.01"], "broker.impact must be 0 in live trading, was 0.01"),
    "a wrong profile": ([], ["--profile", "no"], "profile"),
    "no configuration": ([], ["--config", "no.toml"], "no.toml"),
    "a wrong stage": ([], ["--stages", "x"], "--stages"),
    "a wrong speed": ([], ["--speed", "-1"], "--speed"),
    "a wrong time": ([], ["--live-from", "x"], "--live-from"),
    "no governor": ([], ["--import-governor", "no.json"], "no.json"),
    "a damaged governor": ([], ["--import-governor", "bad.json"], "governor"),
    "nobody to alert": ([], ["--alert", "no_such_program_anywhere"], "--alert must be"),
    "a log in no folder": ([], ["--log", "bars.csv/x/log"], "--log"),
    "a log that is a folder": ([], ["--log", "."], "--log must be"),
    "a log that is the journal": ([], ["--log", "sub/j"], "--log must be a file of its own, was the journal"),
    "a log that is the account": ([], ["--log", "sub/j.paper"], "--log must be a file of its own, was the paper account"),
    "a log that is the candles": ([], ["--log", "candles"], "--log must be a file of its own, was the candles"),
    "no funding": ([], ["--funding", "no.csv"], "no.csv"),
    "an unknown flag": ([], ["--no-such-flag"], "no-such-flag"),
    "a log beside a wrong alert": ([], ["--log", "logs/deep/log", "--alert", "no_such_program_anywhere"], "--alert must be"),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("place", ["new", "new folder", "empty file"])
def test_a_refusal_leaves_no_file_behind(market, tmp_path, monkeypatch, capsys, name, place):
    folder, _ = market
    left_out, more, expected = REFUSALS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    (tmp_path / "bars.csv").write_text("timestamp,open\n")
    (tmp_path / "bad.json").write_text('{"schema_version": 1, "initial_balance": -1}')
    (tmp_path / "candles").symlink_to(folder / "bars.parquet")
    (tmp_path / "sub").mkdir()
    journal = {"new": "sub/j", "new folder": "sub/deep/er/j", "empty file": "sub/j"}[place]
    if place == "empty file":
        (tmp_path / journal).touch()
    if "sub/" in " ".join(more) and place == "new folder":
        more = [word.replace("sub/j", "sub/deep/er/j") for word in more]
    words = words_of(folder, journal)
    for flag in left_out:
        at = words.index(flag)
        del words[at : at + 2]
    before, real = tree(tmp_path), (folder / "bars.parquet").read_bytes()
    assert qt(*words, *more) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert expected in told.err
    assert tree(tmp_path) == before
    assert (folder / "bars.parquet").read_bytes() == real


def test_a_refused_restart_changes_no_file(market, tmp_path, monkeypatch, capsys):
    folder, whole = market
    journal = tmp_path / "j"
    run_live(replay_of(folder, journal), 40)
    before = tree(tmp_path)
    for more in (["--symbols", "S0"], ["--import-governor", "no.json"], ["--alert", "no_such_program"], ["--log", str(tmp_path)]):
        assert qt(*words_of(folder, journal), *more) == 2
        after = tree(tmp_path)
        assert set(after) == set(before)
        assert after["j.paper"] == before["j.paper"]
    run_live(replay_of(folder, journal))
    check_same(journal, whole)


def test_a_file_of_another_program_is_left_in_its_mode(market, tmp_path):
    with sqlite3.connect(tmp_path / "j.paper") as db:
        db.execute("CREATE TABLE mine (x)")
    before = tree(tmp_path)
    with pytest.raises(UserError, match="paper account must be a file that `qt live` wrote"):
        run_live(replay_of(market[0], tmp_path / "j"))
    assert tree(tmp_path) == before
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE mine (x)")
    data = (tmp_path / "other").read_bytes()
    with pytest.raises(UserError, match="was another SQLite file"):
        command(tmp_path / "other", {"do": "lift"})
    assert (tmp_path / "other").read_bytes() == data


def test_the_rule_of_a_file_of_its_own(tmp_path):
    (tmp_path / "a").touch()
    os.link(tmp_path / "a", tmp_path / "b")
    check_apart("--log", tmp_path / "c", {"x": tmp_path / "a", "y": None, "z": "simulated:random_walk"})
    with pytest.raises(UserError, match="--log must be a file of its own, was x"):
        check_apart("--log", tmp_path / "b", {"x": tmp_path / "a"})


def test_files_are_for_their_user_alone(market, tmp_path):
    folder, _ = market
    old = os.umask(0)
    modes = {}
    try:
        runner, close = start_live(LiveOptions(**{**vars(replay_of(folder, tmp_path / "j")), "log": tmp_path / "log"}))
        runner.watchers += (lambda entry: modes.update({p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}),)
        runner.run()
        close()
        assert qt("status", tmp_path / "j", "--governor", tmp_path / "g.json") == 0
    finally:
        os.umask(old)
    modes["g.json"] = (tmp_path / "g.json").stat().st_mode & 0o777
    names = ["j", "j-shm", "j-wal", "j.lock", "j.paper", "j.paper-shm", "j.paper-wal", "log", "g.json"]
    assert modes == dict.fromkeys(names, 0o600)


# a disk that cannot be written


@pytest.fixture
def closed(tmp_path):
    """A folder, and how a command is run that may only read in it."""
    drop: list[str] = []
    if os.getuid() == 0:  # who may write everywhere must be kept from it
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed: root cannot be kept from writing")
        drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner", "--"]
    folder = tmp_path / "closed"
    folder.mkdir()

    def look(*words: str) -> subprocess.CompletedProcess:
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        return subprocess.run([*drop, sys.executable, "-m", "research", *words], capture_output=True, text=True)

    yield folder, look
    folder.chmod(0o755)


@pytest.mark.parametrize("state", ["at rest", "killed", "killed, index lost"])
def test_a_journal_on_a_disk_that_cannot_be_written_is_read_to_its_last_bar(market, closed, state):
    folder, look = closed
    runner, close = start_live(replay_of(market[0], folder.parent / "j"))
    runner.options.snapshot_bars, runner.options.checkpoint_bars = 20, 10**6  # everything stays in the log

    def watch(entry) -> None:
        if entry.bar + 1 == 50 and state != "at rest":
            for suffix in ("", "-wal", "-shm")[: 2 if "lost" in state else 3]:
                shutil.copy(f"{folder.parent / 'j'}{suffix}", f"{folder / 'j'}{suffix}")

    runner.watchers = (watch,)
    runner.run()
    close()
    if state == "at rest":
        shutil.copy(folder.parent / "j", folder / "j")
    before = tree(folder)
    n = N if state == "at rest" else 50
    expected = content(folder.parent / "j")["bars"][n - 1]
    done = look("status", str(folder / "j"))
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["governor"]["equity"] in expected
    assert look("monitor", str(folder / "j"), "--once").returncode == 0
    assert look("validate", str(folder / "j")).returncode in (0, 1)
    assert look("live-gap", str(folder / "j")).returncode == 0
    assert look("live", "stop", str(folder / "j")).returncode == 2
    assert tree(folder) == before


def test_a_view_without_a_log_follows_when_a_runner_begins(market, tmp_path, monkeypatch):
    from research.live.journal import reading

    folder, _ = market
    run_live(replay_of(folder, tmp_path / "j"), 30)
    real = reading._connect

    def refuse(path, how):
        if how == "mode=ro":
            raise sqlite3.OperationalError("unable to open database file")
        return real(path, how)

    monkeypatch.setattr(reading, "_connect", refuse)
    monkeypatch.setattr(reading.os, "access", lambda path, how: how == os.R_OK)
    source = open_source(tmp_path / "j")
    count = "SELECT COUNT(*) AS n FROM bars"
    assert source.rows(count) == [(30,)]
    monkeypatch.undo()
    run_live(replay_of(folder, tmp_path / "j"), 40)
    monkeypatch.setattr(reading, "_connect", refuse)
    monkeypatch.setattr(reading.os, "access", lambda path, how: how == os.R_OK)
    assert source.rows(count) == [(40,)]
