"""What is left after a power loss, on a full disk, in a damaged or a locked file? Real files are torn, real processes run out of room."""

import random
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from research.errors import UserError
from research.live.broker.paper import PaperBroker
from research.live.start import start_live
from research.live.storage import files
from tests.support import FLAG, PUBLISHED
from tests.support.live_market import content, events_of, make_market, paper_content, replay_of, run_live

N = 110
STOPPED = 90  # bars in the files that lose power
SECTOR = 512


@pytest.fixture(scope="module")
def power(tmp_path_factory) -> tuple[Path, tuple[dict, dict, str]]:
    """A folder with `whole`, an uninterrupted run, and `journal` with its log as they lay on the disk at a bar, nothing checkpointed."""
    folder = tmp_path_factory.mktemp("market")
    make_market(folder, N)
    _, state = run_live(replay_of(folder, folder / "whole"))
    runner, close = start_live(replay_of(folder, folder / "running"))
    runner.options.snapshot_bars, runner.options.checkpoint_bars = 20, 10**6

    def watch(entry) -> None:
        if entry.bar + 1 == STOPPED:
            for suffix in ("", "-wal", ".paper", ".paper-wal"):
                shutil.copy(f"{folder / 'running'}{suffix}", f"{folder / 'journal'}{suffix}")

    runner.watchers = (watch,)
    runner.run()
    close()
    return folder, (content(folder / "whole"), paper_content(folder / "whole"), state)


def copy_of(folder: Path, to: Path) -> Path:
    to.mkdir(exist_ok=True)
    for path in folder.glob("journal*"):
        shutil.copy(path, to / path.name)
    return to / "journal"


def check_goes_on(folder: Path, journal: Path, whole: tuple[dict, dict, str]) -> int:
    """Finish the run and compare every bit; returns the number of bars that had survived."""
    outcome, state = run_live(replay_of(folder, journal))
    assert state == whole[2]
    assert content(journal) == whole[0]
    assert paper_content(journal) == whole[1]
    assert events_of(journal, "mismatch") == 0
    return outcome.resumed


def commits(data: bytes) -> list[int]:
    """Where the transactions of a log end: after a frame (24 bytes and a page) that says how long the file is then."""
    page = int.from_bytes(data[8:12], "big")
    frames = range(32, len(data) - page - 23, 24 + page)
    return [at + 24 + page for at in frames if data[at + 4 : at + 8] != bytes(4)]


def inside(data: bytes, share: float, rng: random.Random) -> int:
    """A place in the transaction that comes after this share of all: every bar is hit alike, however much it wrote."""
    ends = [32, *commits(data)]
    k = int(share * (len(ends) - 1))
    return rng.randrange(ends[k], ends[k + 1])


def cut(data: bytes, share: float, rng: random.Random) -> bytes:
    """The end was never written."""
    return data[: inside(data, share, rng)]


def unwritten(data: bytes, share: float, rng: random.Random) -> bytes:
    """The file has its length, but from somewhere on nothing but zeros."""
    at = inside(data, share, rng)
    return data[:at] + bytes(len(data) - at)


def torn(data: bytes, share: float, rng: random.Random) -> bytes:
    """Sectors were written in any order: some in the last tenth are missing."""
    first = len(data) * 9 // 10 // SECTOR
    for sector in range(first, len(data) // SECTOR):
        if rng.random() < 0.05:
            data = data[: sector * SECTOR] + bytes(SECTOR) + data[(sector + 1) * SECTOR :]
    return data


def lose_power(power, tmp_path: Path, n: int) -> tuple[set[int], int]:
    """Lose power n times, the cuts spread evenly over the transactions. Returns the bars that survived, and in how many logs were cut."""
    folder, whole = power
    survived, n_cut = set(), 0
    for k in range(n):
        rng = random.Random(k)
        harm: Callable = (cut, unwritten, torn)[k % 3]
        journal = copy_of(folder, tmp_path / str(k))
        harmed = ((".paper-wal",), ("-wal",), ("-wal", ".paper-wal"))[k // 3 % 3]
        for suffix in harmed:
            log = Path(f"{journal}{suffix}")
            log.write_bytes(harm(log.read_bytes(), (k + rng.random()) / n, rng))
        n_cut += "-wal" in harmed and harm is not torn
        survived.add(check_goes_on(folder, journal, whole))
        shutil.rmtree(journal.parent)
    return survived, n_cut


def test_after_a_power_loss_the_journal_stands_at_a_bar_and_goes_on(power, tmp_path):
    survived, n_cut = lose_power(power, tmp_path, 9)
    assert n_cut == 4
    assert len(survived) >= n_cut, "the cuts must fall at different bars"
    assert max(survived) <= STOPPED


@pytest.mark.slow
def test_two_hundred_power_losses(power, tmp_path):
    survived, n_cut = lose_power(power, tmp_path, 200)
    assert n_cut == 88
    assert len(survived) >= 60, "88 logs cut at places spread evenly over the transactions of 90 bars"


def test_a_checkpoint_that_loses_power_loses_nothing(power, tmp_path):
    """The log is complete and synced before pages move into the file: any mixture of old, new and half pages is repaired from it."""
    folder, whole = power
    done = copy_of(folder, tmp_path / "done")
    for name in (done, Path(f"{done}.paper")):
        db = sqlite3.connect(name)
        kept = Path(f"{name}-wal").read_bytes()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        Path(f"{name}-kept").write_bytes(kept)
    rng = random.Random(1)
    for k in range(3):
        journal = copy_of(folder, tmp_path / str(k))
        for name in (journal, Path(f"{journal}.paper")):
            old, new = name.read_bytes(), Path(f"{tmp_path / 'done' / name.name}").read_bytes()
            old += bytes(len(new) - len(old))
            mixed = [(old if rng.random() < 0.5 else new)[at : at + SECTOR] for at in range(0, len(new), SECTOR)]
            name.write_bytes(b"".join(mixed))
        assert check_goes_on(folder, journal, whole) == STOPPED


def test_a_new_paper_account_is_on_the_disk_before_its_first_bar(tmp_path):
    """What it begins with is in no journal; everything later is, so no commit of the account waits for the disk."""
    broker = PaperBroker(tmp_path / "paper", ("A",), PUBLISHED, cash=123.0)
    assert broker.db.execute("PRAGMA synchronous").fetchone()[0] == 1
    shutil.copy(tmp_path / "paper", tmp_path / "left")
    broker.close()
    assert PaperBroker(tmp_path / "left", ("A",), PUBLISHED).balance == 123.0


def test_live_syncs_at_every_commit_and_a_replay_at_checkpoints(tmp_path):
    for durable, level in ((True, 2), (False, 1)):
        db = files.connect(tmp_path / "j", durable=durable)
        assert db.execute("PRAGMA synchronous").fetchone()[0] == level
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        db.close()


def test_a_damaged_page_is_refused_with_the_remedy(power, tmp_path):
    folder, _ = power
    for suffix in ("", ".paper"):
        size = Path(f"{folder / 'whole'}{suffix}").stat().st_size // 4096
        for page in {0, 1, size // 3, size // 2, size - 2}:
            for end in ("", ".paper"):
                shutil.copy(f"{folder / 'whole'}{end}", f"{tmp_path / 'j'}{end}")
            with Path(f"{tmp_path / 'j'}{suffix}").open("r+b") as file:
                file.seek(page * 4096)
                file.write(random.Random(page).randbytes(4096))
            with pytest.raises(UserError, match=r"must be intact, was damaged: .*; restore a copy or use a new --journal$") as error:
                run_live(replay_of(folder, tmp_path / "j"))
            assert "\n" not in str(error.value)


def qt_live(folder: Path, journal: Path, limit: int = resource.RLIM_INFINITY) -> subprocess.CompletedProcess:
    """Run the command in a process that may not write files longer than `limit` bytes."""
    words = ["--feed", f"replay:{folder / 'bars.parquet'}", "--predictions", str(folder / "predictions.parquet"), "--journal", str(journal)]
    return subprocess.run(
        [sys.executable, "-m", "research", "live", FLAG, *words, "--quiet"], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),
    )  # fmt: skip


def test_a_process_without_room_says_so_and_goes_on_when_there_is(power, tmp_path):
    folder, whole = power
    full = qt_live(folder, tmp_path / "j", limit=1_500_000)
    assert full.returncode == 2
    assert full.stderr.count("\n") == 1
    assert "must fit on the disk" in full.stderr
    assert "free space and start again, nothing is lost" in full.stderr
    assert 0 < check_goes_on(folder, tmp_path / "j", whole) < N


def test_a_second_process_is_refused(power, tmp_path):
    folder, _ = power
    _, close = start_live(replay_of(folder, tmp_path / "j"))
    second = qt_live(folder, tmp_path / "j")
    close()
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "must be of one runner at a time, was in use" in second.stderr


@pytest.mark.parametrize("suffix", ["", ".paper"])
@pytest.mark.parametrize("how", ["before", "meanwhile", "exclusive"])
def test_a_lock_of_others_ends_with_a_sentence_and_loses_nothing(power, tmp_path, monkeypatch, suffix, how):
    folder, whole = power
    monkeypatch.setattr(files, "BUSY_SECONDS", 0.05)
    run_live(replay_of(folder, tmp_path / "j"), 20)
    other = sqlite3.connect(f"{tmp_path / 'j'}{suffix}", isolation_level=None)

    def take(_: object = None) -> None:
        if not other.in_transaction:
            if how == "exclusive":
                other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN IMMEDIATE")

    def attempt() -> None:
        runner, close = start_live(replay_of(folder, tmp_path / "j"))
        if how == "meanwhile":
            runner.watchers = (take,)
        try:
            runner.run()
        finally:
            close()

    if how != "meanwhile":
        take()
    with pytest.raises(UserError, match="must be free for writing, was held by another process"):
        attempt()
    other.execute("ROLLBACK")
    other.close()
    assert check_goes_on(folder, tmp_path / "j", whole) >= 20
