"""Does a kill at any moment change anything? A real process, a real SIGKILL, and afterwards every bit of an uninterrupted run."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import research
from research.data import load_bars, save_bars
from research.training import registry
from research.training.meta import train_meta
from research.training.predictions import Predictions
from tests.conftest import shared_data
from tests.support import PUBLISHED
from tests.support.live_market import STEERING, content, events_of, make_market, notes, paper_content, run_market
from tests.support.live_victim import POINTS

STEERED = ("change", "changed")  # passed where something is commanded or promoted
NAMED = tuple(point for point in POINTS if point != "random" and point not in STEERED)
EVERY_FIVE = ("snapshot", "checkpoint")  # passed at every fifth bar
COMMANDS = (
    {"do": "set", "values": {"governor.stop_loss": 0.005, "governor.min_confidence": 0.5}},
    {"do": "stop", "now": False},
    {"do": "lift"},
    {"do": "set", "values": {"meta.enabled": False, "arbiter.enabled": False}},
    {"do": "set", "values": {"governor.stop_loss": 0.03, "arbiter.enabled": True, "meta.enabled": True}},
    {"do": "stop", "now": True},
    {"do": "lift"},
)


@dataclass
class Graveyard:
    """Where processes are killed: a folder with a market, the mother, and what an uninterrupted run came to."""

    folder: Path
    mother: subprocess.Popen
    whole: tuple[dict, dict, dict, str]
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
        _, state = run_market(self.folder, self.journal)
        rows, paper, told, expected = self.whole
        assert state == expected
        assert notes(self.journal) == told
        assert content(self.journal) == rows
        assert paper_content(self.journal) == paper
        assert events_of(self.journal, "mismatch") == 0
        self.finished += 1
        for path in self.folder.glob("journal.sqlite*"):
            path.unlink()
        self.begin()

    def begin(self) -> None:
        """Put the registry where a journal begins."""
        begin_registry(self.folder)


def begin_registry(folder: Path) -> None:
    """Let a market with models begin with the first ones."""
    if (models := folder / "models").exists():
        shutil.rmtree(registry.registry_folder(), ignore_errors=True)
        registry.promote(models / "0", "mine")


def bury(folder: Path) -> Iterator[Graveyard]:
    """Run the market of `folder` without interruption, and have the mother ready."""
    begin_registry(folder)
    _, state = run_market(folder, folder / "whole")
    whole = content(folder / "whole"), paper_content(folder / "whole"), notes(folder / "whole"), state
    assert events_of(folder / "whole", "mismatch") == 0
    assert len(whole[0]["fills"]) > 30
    mother = subprocess.Popen(
        [sys.executable, "-m", "tests.support.live_victim", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    begin_registry(folder)
    yield Graveyard(folder, mother, whole)
    assert mother.stdin is not None
    mother.stdin.close()
    mother.wait()


@pytest.fixture(scope="module")
def graveyard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    make_market(folder, 500)
    yield from bury(folder)


@pytest.fixture(scope="module")
def steered(tmp_path_factory):
    """A market that is steered at every ninth bar: stops, kill switch on and off, layers off and on."""
    folder = tmp_path_factory.mktemp("steered")
    make_market(folder, 500)
    plan = {9 * k: COMMANDS[k % len(COMMANDS)] for k in range(1, 55)}
    (folder / STEERING).write_text(json.dumps(plan))
    yield from bury(folder)


@pytest.fixture
def promoted(tmp_path):
    """A market with models; at every ninth bar others are promoted, at the bars behind those something is commanded."""
    bars = load_bars("simulated:random_walk?n_bars=300&n_symbols=4")
    save_bars(bars, tmp_path / "bars.parquet")
    for k in range(2):
        part = research.train(bars, models=("xgb", "lgbm"), n_folds=2, seed=k, preset="tiny", use_store=False, profile="published")
        part.models.save(tmp_path / "models" / str(k))
        train_meta(bars, Predictions.random(bars, seed=8 + k), PUBLISHED, kind="logistic").save(tmp_path / "models" / str(k) / "meta")
    plan = {9 * k: {"promote": str(tmp_path / "models" / str(k % 2)), "after": k} for k in range(1, 33)}
    plan |= {9 * k + 1: COMMANDS[k % 3] for k in range(8, 33)}
    plan[1] = {
        "do": "set",
        "values": {
            "governor.min_confidence": 0.34,
            "governor.max_daily_trades": 1_000,
            "governor.cooldown_minutes": 1,
            "arbiter.score_threshold": 0.05,
        },
    }
    (tmp_path / STEERING).write_text(json.dumps(plan))
    yield from bury(tmp_path)


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


@pytest.mark.parametrize("point", [*STEERED, "filled", "commit", "random"])
def test_a_kill_around_a_command_changes_nothing(steered, point):
    kill_often(steered, point, 3)


@pytest.mark.slow
@pytest.mark.parametrize("point", [*STEERED, "random"])
def test_twenty_kills_around_a_command_change_nothing(steered, point):
    kill_often(steered, point, 20)


@pytest.mark.slow
def test_twenty_kills_around_a_promotion_change_nothing(promoted):
    for point in STEERED:
        kill_often(promoted, point, 20)


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
def test_a_hundred_kills_in_a_month_of_real_candles_change_nothing(month):
    kill_often(month, "random", 100)
