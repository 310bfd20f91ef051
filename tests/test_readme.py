import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qtcore as qt
import research
import research.training.models
from qtcore.governor import govern_step
from research.cli.app import app
from research.live.feeds import registry
from research.live.feeds.feeds import ReplayFeed
from research.live.feeds.registry import open_feed

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_in_the_readme_runs_and_shows_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        scope: dict[str, object] = {}
        exec(compile(block, "README.md", "exec"), scope)
        assert "run" in scope
        assert "orders" in scope
        assert "[('SIM0" in capsys.readouterr().out


def test_every_command_is_told_and_every_told_command_exists() -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    told = set(re.findall(r"^\| `qt ([\w-]+)", README, re.MULTILINE)) - {group.name for group in app.registered_groups}
    assert told == commands


def test_every_make_target_is_told() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    told = set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))
    assert told <= targets
    assert {"demo", "test", "bench"} <= told


def test_every_linked_file_exists() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link


@pytest.mark.parametrize("name", ["data/README.md", "reports/README.md"])
def test_generated_folders_say_what_lands_in_them(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8")) > 500


# ------------------------------------------------------------------ the table of what to change: every row as it is written

OWN_MODEL = """
import numpy as np
class Model:
    stem, suffix = "shares", ".txt"
    def __init__(self, feature_names):
        self.feature_names = tuple(feature_names)
    def fit(self, rows, labels, valid_rows, valid_labels, seed):
        self.shares = np.bincount(labels, minlength=3) / max(len(labels), 1)
    def predict_proba(self, matrix):
        return np.tile(self.shares, (len(matrix), 1))
    def save(self, path):
        path.write_text(" ".join(map(repr, self.shares.tolist())))
    def load(self, path):
        self.shares = np.array(path.read_text().split(), float)
        return self
    def params(self):
        return {}
"""


@qt.kernel
def small_bets(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params):
    """A hundredth of the equity, whatever the odds."""
    return side * 0.01 * account["equity"], qt.Reason.APPROVED


def body(bars: qt.Bars) -> Any:
    return bars.close / bars.open - 1.0


def first_voter(votes: Any, planes: Any, params: qt.Params) -> Any:
    return np.maximum(votes.action[0], 0).astype(np.int8), np.nan_to_num(votes.confidence[0])


def opener(name: str) -> ReplayFeed:
    return ReplayFeed(research.load_bars("simulated:planted_edge?n_bars=50&n_symbols=2"))


ROWS = {
    "a feature": lambda: qt.Feature("body", body, 0),
    "a base model": lambda: None,
    "an opinion layer, in NumPy": lambda: first_voter,
    "a governor or fill step, compiled": lambda: small_bets,
    "a feed of candles for `qt live`": lambda: opener,
}


def table_of_changes() -> dict[str, list[str]]:
    """What each row is handed to, by the row's first cell."""
    part = README[README.index("| to change | write |") : README.index("`research.check_layer(mine)`")]
    rows = [line.strip("| \n").split(" | ") for line in part.strip().splitlines()[2:]]
    return {row[0]: [written for written in re.findall(r"`([^`]+)`", row[2]) if not written.startswith("--")] for row in rows}


def test_every_row_of_the_table_of_changes_is_tried() -> None:
    assert set(table_of_changes()) == set(ROWS)


@pytest.mark.parametrize("what", ROWS)
def test_a_row_of_the_table_of_changes_runs_as_written(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("research.training.models.base._REGISTRY", dict(research.training.models.base._REGISTRY))
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    bars = research.load_bars("simulated:planted_edge?n_bars=500&n_symbols=2")
    scope: dict[str, Any] = {"qt": qt, "research": research, "bars": bars, "params": qt.Params(), "mine": ROWS[what]()}
    if "preds" in "".join(table_of_changes()[what]):
        scope["preds"] = research.train(bars, ("lgbm",), n_folds=2, preset="tiny")
    monkeypatch.setattr(research.training.plan, "N_FOLDS", 2)
    for written in table_of_changes()[what]:
        made = eval(written, scope)
        if isinstance(made, qt.Engine):
            made.run(bars, scope["preds"].votes() if "preds" in scope else None)
        elif isinstance(made, qt.FeatureBank):
            assert made.compute(bars)["body"].shape == bars.close.shape
    if what.startswith("a feed"):
        assert open_feed("mine:a").symbols == bars.symbols
    elif scope["mine"] is not None:
        assert research.check_layer(scope["mine"])
    else:
        assert research.check_model(__import__("mine").Model).failed == ("learns", "other_features", "other_file", "absent_classes")


def test_the_arguments_of_a_governor_step_are_explained() -> None:
    told = re.findall(r"^    (\w+(?:, \w+)*):", govern_step.__doc__ or "", re.MULTILINE)
    names = [name for line in told for name in line.split(", ")]
    assert names == list(inspect.signature(getattr(govern_step, "py_func", govern_step)).parameters)
