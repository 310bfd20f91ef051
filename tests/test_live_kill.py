"""Does a kill at any moment change anything? A real process, a real SIGKILL, and afterwards every bit of an uninterrupted run."""

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from research.data import load_bars, save_bars
from research.predictions import Predictions
from tests.conftest import shared_data
from tests.live_market import content, events_of, make_market, paper_content, replay_of, run_live
from tests.live_victim import POINTS

NAMED = tuple(point for point in POINTS if point != "random")
EVERY_FIVE = ("snapshot", "checkpoint")  # passed at every fifth bar


@dataclass
class Graveyard:
    """Where processes are killed: a folder with a market, the mother, and what an uninterrupted run came to."""

    folder: Path
    mother: subprocess.Popen
    whole: tuple[dict, dict, str]
    lives: int = 0
    finished: int = 0

    @property
    def journal(self) -> Path:
        return self.folder / "journal.sqlite"

    def kill(self, point: str, count: int) -> bool:
        """Let a process go on until it is killed; False where the feed ended first, or death came after the point."""
        assert self.mother.stdin is not None
        assert self.mother.stdout is not None
        self.mother.stdin.write(f"{point} {count} {self.lives}\n")
        self.mother.stdin.flush()
        self.lives += 1
        status, inside = map(int, self.mother.stdout.readline().split())
        assert status in (0, -9)
        if status == 0:
            self.check()
        return status == -9 and inside == 1

    def check(self) -> None:
        """Finish the run and compare; then begin a new one."""
        _, state = run_live(replay_of(self.folder, self.journal))
        rows, paper, expected = self.whole
        assert state == expected
        assert content(self.journal) == rows
        assert paper_content(self.journal) == paper
        assert events_of(self.journal, "mismatch") == 0
        self.finished += 1
        for path in self.folder.glob("journal.sqlite*"):
            path.unlink()


def bury(folder: Path) -> Iterator[Graveyard]:
    """Run the market of `folder` without interruption, and have the mother ready."""
    _, state = run_live(replay_of(folder, folder / "whole"))
    whole = content(folder / "whole"), paper_content(folder / "whole"), state
    assert len(whole[0]["fills"]) > 100
    mother = subprocess.Popen(
        [sys.executable, "-m", "tests.live_victim", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield Graveyard(folder, mother, whole)
    assert mother.stdin is not None
    mother.stdin.close()
    mother.wait()


@pytest.fixture(scope="module")
def graveyard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    make_market(folder, 500)
    yield from bury(folder)


@pytest.fixture
def month(tmp_path):
    """A month of 19 real symbols."""
    source = shared_data("crypto_spot_1h_wide.parquet")
    names = load_bars(source, start="2024-03-01", end="2024-03-02").symbols[:19]
    bars = load_bars(source, symbols=names, start="2024-03-01", end="2024-04-01")
    save_bars(bars, tmp_path / "bars.parquet")
    Predictions.random(bars, seed=2).save(tmp_path / "predictions.parquet")
    yield from bury(tmp_path)


def kill_often(graveyard: Graveyard, point: str, times: int) -> None:
    rng, killed, tried = random.Random(point), 0, 0
    while killed < times:
        killed += graveyard.kill(point, rng.randint(1, 2 if point in EVERY_FIVE else 9))
        tried += 1
        assert tried < 20 + 5 * times, f"only {killed} of {tried} processes died inside {point}"
    graveyard.check()


def test_a_kill_at_every_point_changes_nothing(graveyard):
    for i, point in enumerate(NAMED * 2):
        for _ in range(10):
            if graveyard.kill(point, 1 + i % (2 if point in EVERY_FIVE else 5)):
                break
        else:
            pytest.fail(f"no process died inside {point}")
    graveyard.check()


def test_kills_at_random_change_nothing(graveyard):
    kill_often(graveyard, "random", 4)


@pytest.mark.slow
@pytest.mark.parametrize("point", NAMED)
def test_twenty_kills_at_a_point_change_nothing(graveyard, point):
    kill_often(graveyard, point, 20)


@pytest.mark.slow
def test_a_hundred_kills_at_random_change_nothing(graveyard):
    kill_often(graveyard, "random", 100)


@pytest.mark.slow
def test_kills_in_a_month_of_real_candles_change_nothing(month):
    kill_often(month, "random", 25)
