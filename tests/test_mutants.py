"""Does the suite notice twenty-odd seeded faults? Each is put into a copy of qtcore on disk; the checks of `tests/mutants.py` must fail."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[1]


def copy_of_qtcore(folder: Path, file: str = "", old: str = "", new: str = "") -> Path:
    shutil.copytree(ROOT / "qtcore", folder / "qtcore", ignore=shutil.ignore_patterns("__pycache__"))
    if file:
        path = folder / "qtcore" / file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(old, new), encoding="utf-8")
    return folder


def run_checks(folder: Path, first: str = "") -> subprocess.CompletedProcess[str]:
    """Run the checks interpreted, with the qtcore of `folder`; `first` names what to try first."""
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    code = f"""
import runpy, sys
sys.path[:] = [{str(folder)!r}, {str(ROOT)!r}, *(p for p in sys.path if p not in ("", {str(ROOT)!r}))]
import qtcore
assert qtcore.__file__.startswith({str(folder)!r})
runpy.run_module("tests.mutants", run_name="__main__")
"""
    return subprocess.run([sys.executable, "-c", code, first], cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Run every mutant once, two at a time."""
    folders = [copy_of_qtcore(tmp_path_factory.mktemp("mutant"), *mutant[1:]) for mutant in MUTANTS]
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(run_checks, folders, (mutant[1].split("/")[0] for mutant in MUTANTS))
        return dict(zip((mutant[0] for mutant in MUTANTS), done))


def test_there_are_at_least_twenty():
    assert len(MUTANTS) >= 20
    assert len({mutant[0] for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize(("name", "file", "old", "new"), MUTANTS, ids=[m[0] for m in MUTANTS])
def test_the_text_still_occurs_once(name, file, old, new):
    text = (ROOT / "qtcore" / file).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"qtcore/{file} must contain {old!r} once; bring the mutant up to date with the code"
    assert old != new


def test_the_unmutated_copy_passes(tmp_path):
    done = run_checks(copy_of_qtcore(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr[-1_000:]


@pytest.mark.parametrize("name", [mutant[0] for mutant in MUTANTS])
def test_a_mutant_is_noticed(name, outcomes):
    done = outcomes[name]
    assert done.returncode == 1, f"nothing noticed that {name}"
    assert "Error: " in done.stdout.strip().split("\n")[-1], done.stderr[-1_000:]
