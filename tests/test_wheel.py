"""Does what is published hold what it needs? The wheel, beside the libraries that it declares and no others."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from research.errors import EXTRAS
from tests.test_style import ROOT

requirements = pytest.importorskip("packaging.requirements", reason="packaging is not installed; scikit-learn brings it")
WORLD = "simulated:random_walk?n_bars=600&n_symbols=2"


def test_package_data_names_every_file_that_is_no_module() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    for package, patterns in declared.items():
        folder = ROOT / package
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
        assert files == {name for name in files if any(fnmatch(name, pattern) for pattern in patterns)}
        assert all(any(fnmatch(name, pattern) for name in files) for pattern in patterns)


def closure(wanted: list[str]) -> set[str]:
    """Names of the installed distributions that these requirements need, theirs included."""
    found: set[str] = set()
    todo = [requirements.Requirement(text) for text in wanted]
    while todo:
        one = todo.pop()
        if one.name in found or (one.marker is not None and not one.marker.evaluate({"extra": ""})):
            continue
        found.add(one.name)
        inner = [requirements.Requirement(text) for text in importlib.metadata.distribution(one.name).requires or ()]
        todo += [each for each in inner if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in ("", *one.extras))]
    return found


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of libraries outside the checkout: the wheel, unpacked, and links to what it declares without extras."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("light")
    for path in sources():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "--target", str(folder), str(source)], check=True)
    [distribution] = importlib.metadata.distributions(name="qtcore", path=[str(folder)])
    for name in closure([text for text in distribution.requires or () if "extra ==" not in text]):
        for file in importlib.metadata.distribution(name).files or ():
            top = folder / file.parts[0]
            if file.parts[0] not in ("..", "__pycache__") and not top.exists():
                top.symlink_to(Path(str(importlib.metadata.distribution(name).locate_file(file.parts[0]))))
    return folder


def sources() -> list[Path]:
    """What a wheel is made of, relative to the checkout."""
    folders = [path.relative_to(ROOT) for package in ("qtcore", "research") for path in (ROOT / package).rglob("*") if path.is_file()]
    return [path for path in folders if path.suffix != ".pyc"] + [Path(name) for name in ("pyproject.toml", "README.md", "LICENSE")]


def qt(light: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `qt` of the wheel in a fresh interpreter that sees nothing else."""
    code = f"import sys; sys.path.insert(0, {str(light)!r}); from research.cli import main; main()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-I", "-S", "-c", code, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_wheel_runs_with_the_libraries_it_declares(light: Path, tmp_path: Path) -> None:
    packages = {path.name for path in light.iterdir()}
    assert {"qtcore", "research", "numba"} <= packages
    assert not packages & {*EXTRAS}
    assert (light / "research/live/dashboard/web/app.js").exists()
    assert (light / "research/report/templates/report.html").exists()
    for words in (
        ["--help"],
        ["data", "check", WORLD],
        ["backtest", WORLD, "--set", "run.preset=tiny", "--set", "run.folds=2", "--out", "run"],
        ["report", "run"],
        ["doctor"],
    ):
        done = qt(light, tmp_path, *words)
        assert done.returncode == 0, (words, done.stdout[-500:], done.stderr[-500:])
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["backtest", WORLD, "--set", "run.models=nhits"], "neural"),
        (["data", "fetch", "binance", "--symbols", "BTC/USDT", "--timeframe", "1h", "--from", "2024-01-01", "--out", "c"], "exchange"),
        (["sweep", WORLD, "--grid", "governor.min_confidence=0.5,0.6", "--search", "adaptive"], "search"),
        (["sweep", WORLD, "--grid", "governor.min_confidence=0.5,0.6", "--engine", "ray"], "ray"),
    ],
)
def test_wheel_names_the_extra_that_a_command_needs(light: Path, tmp_path: Path, words: list[str], extra: str) -> None:
    done = qt(light, tmp_path, *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"was not installed; pip install 'qtcore[{extra}]'")
