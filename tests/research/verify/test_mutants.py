"""Mutants: does the suite notice twenty-odd seeded faults? Each is put into a copy of qtcore: `tests.support.mutants` must fail."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest
from pathlib import Path

import pytest

from tests.support.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[3]


def copy_of_qtcore(folder: Path, file: str = "", old: str = "", new: str = "") -> Path:
    shutil.copytree(ROOT / "qtcore", folder / "qtcore", ignore=shutil.ignore_patterns("__pycache__"))
    if file:
        path = folder / "qtcore" / file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(old, new), encoding="utf-8")
    return folder


NURSERY = f"""
import os, runpy, sys
import hypothesis, numba, numpy, pytest  # once for all; what is tested is imported after the fork
rest = [p for p in sys.path if p not in ("", {str(ROOT)!r})]
for folder, first in zip(sys.argv[1::2], sys.argv[2::2]):
    child = os.fork()
    if not child:
        os.dup2(os.open(os.path.join(folder, "said"), os.O_CREAT | os.O_WRONLY), 1)
        os.chdir(folder)
        sys.path[:], sys.argv[1:] = [folder, {str(ROOT)!r}, *rest], [first]
        import qtcore
        assert qtcore.__file__.startswith(folder)
        runpy.run_module("tests.support.mutants", run_name="__main__")
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run_checks(folders: Sequence[Path], first: Sequence[str]) -> list[tuple[int, str]]:
    """Run the checks interpreted, with the qtcore of each folder: exit codes and what was said. `first` names what to try first."""
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    arguments = [str(word) for pair in zip(folders, first, strict=True) for word in pair]
    done = subprocess.run([sys.executable, "-c", NURSERY, *arguments], env=env, capture_output=True, text=True, timeout=600)
    codes = [int(line) for line in done.stdout.split()]
    assert len(codes) == len(folders), done.stderr[-1_000:]
    sys.stderr.write(done.stderr)  # pytest shows it beside a failure
    return [(code, (folder / "said").read_text(encoding="utf-8")) for code, folder in zip(codes, folders)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Run every mutant once, two at a time."""
    folders = [copy_of_qtcore(tmp_path_factory.mktemp("mutant"), *mutant[1:]) for mutant in MUTANTS]
    first = [mutant[1].split("/")[0] for mutant in MUTANTS]
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(run_checks, (folders[0::2], folders[1::2]), (first[0::2], first[1::2]))
        done = [*chain.from_iterable(zip_longest(*halves))]
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
    ((code, said),) = run_checks([copy_of_qtcore(tmp_path)], [""])
    assert code == 0, said


@pytest.mark.parametrize("name", [mutant[0] for mutant in MUTANTS])
def test_a_mutant_is_noticed(name, outcomes):
    code, said = outcomes[name]
    assert code == 1, f"nothing noticed that {name}: {said}"
    assert "Error: " in said.strip().split("\n")[-1]
