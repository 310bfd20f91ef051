"""Example of a governor rule: does the patch of docs/extending.md work as it stands, and is each part of it missed when it is left out?"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.rule_gaps import gaps

ROOT = Path(__file__).resolve().parents[1]
PATCH = (ROOT / "examples" / "governor_rule.diff").read_text(encoding="utf-8")
FILES = {part.split(" b/")[1].split("\n")[0]: part for part in re.split(r"(?=^diff --git )", PATCH, flags=re.MULTILINE) if part}
HUNKS = {f"{name} {i}": hunk for name, part in FILES.items() for i, hunk in enumerate(re.split(r"(?=^@@ )", part, flags=re.MULTILINE)[1:])}
RULE = ("LOSING_STREAK", "0", "2", "4")  # the code, its parameter's value that is off, two that are not


def patched(folder: Path, patch: str, *parts: str) -> Path:
    """Copy `parts` of the checkout to `folder` and apply a patch there."""
    for part in parts:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "data"))
    for name in ("__init__.py", "conftest.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    (folder / "left.diff").write_text(patch, encoding="utf-8")
    subprocess.run(["git", "apply", "left.diff"], cwd=folder, check=True, env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)})
    return folder


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module in a copy, interpreted: compiling the copy would take a minute."""
    env = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_DISABLE_JIT": "1", "OMP_NUM_THREADS": "1", "QT_HOME": str(folder / "home")}
    return subprocess.run([sys.executable, "-m", *words], cwd=folder, env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parts = ("qtcore", "research", "tests/naive", "tests/support", "tests/qtcore")
    return patched(tmp_path_factory.mktemp("patched"), PATCH, *parts)


def test_the_rule_is_in_four_files_and_on_the_page() -> None:
    assert sorted(FILES) == ["qtcore/governor.py", "qtcore/rules.py", "tests/naive/trade.py", "tests/qtcore/test_trade.py"]
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    assert f"<!-- examples/governor_rule.diff -->\n```diff\n{PATCH}```" in page


def test_the_rule_acts_as_its_twin_sweeps_and_is_known_everywhere(copy: Path) -> None:
    done = python(copy, "tests.support.tried_rule", *RULE)
    assert done.returncode == 0, done.stderr[-3_000:]


def test_the_rule_passes_the_tests_of_the_core(copy: Path) -> None:
    chosen = ("tests/qtcore/test_rules.py", "tests/qtcore/test_trade.py", "-k", "rules or reach_every or losing_streak")
    done = python(copy, "pytest", "-q", "-p", "no:cacheprovider", *chosen)
    assert done.returncode == 0, done.stdout[-3_000:]
    lint = python(copy, "ruff", "check", "--config", str(ROOT / "pyproject.toml"), *FILES)
    assert lint.returncode == 0, lint.stdout


@pytest.mark.parametrize("name", FILES)
def test_a_file_left_out_is_named_by_a_test(name: str, tmp_path: Path) -> None:
    left = "".join(part for other, part in FILES.items() if other != name)
    copy = patched(tmp_path, left, "qtcore", "tests/naive", "tests/support", "tests/qtcore")
    done = python(copy, "pytest", "-q", "-p", "no:cacheprovider", "tests/qtcore/test_rules.py", "-k", "gap")
    assert re.search(rf"'{re.escape(name)} (declares|never|has)[^']* (LOSING_STREAK|governor\.max_losing_streak)", done.stdout), done.stdout


@pytest.mark.parametrize("hunk", HUNKS)
def test_a_part_left_out_is_named_by_the_checks(hunk: str, tmp_path: Path) -> None:
    left = re.sub(r"^diff --git [^@]*(?=^diff --git |\Z)", "", PATCH.replace(HUNKS[hunk], ""), flags=re.MULTILINE)  # a file without a part
    copy = patched(tmp_path, left, "qtcore", "tests/naive", "tests/support", "tests/qtcore")
    lint = python(copy, "ruff", "check", "--isolated", "--select", "F821", "--output-format", "concise", *FILES)
    told = gaps(copy) + [line for line in lint.stdout.split("\n") if "F821" in line]
    assert told
    assert {line.split(":")[0].split(" ")[0] for line in told} == {hunk.split(" ")[0]}
