"""Does docs/extending.md show the examples as they are, and does all of it run?"""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from research.cli.app import app
from research.cli.common import guarded
from research.live.feeds import registry
from research.training.models import base

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:<!-- (examples/\w+\.py) -->\n)?```python\n(.*?)```", re.DOTALL)
BLOCKS = [(match[1] or "", "\n" * PAGE[: match.start(2)].count("\n") + match[2]) for match in BLOCK.finditer(PAGE)]  # lines as on the page
EXAMPLES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").glob("[!_]*.py"))


@pytest.fixture(autouse=True)
def undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no model and no feed registered behind."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    monkeypatch.syspath_prepend(ROOT)


def test_every_example_is_on_the_page() -> None:
    assert sorted(name for name, _ in BLOCKS if name) == EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_shows_the_file(name: str) -> None:
    assert dict(BLOCKS)[name].lstrip("\n") == (ROOT / name).read_text(encoding="utf-8")


def test_the_commands_of_the_page_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    assert block.count("\n") <= 30
    names: dict[str, str] = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for line in block.splitlines():
        if found := re.fullmatch(r'(\w+)="(.*)"', line):
            names[found[1]] = found[2]
            continue
        words = shlex.split(re.sub(r"\$(\w+)", lambda match: names[match[1]], line))
        monkeypatch.setattr(sys, "argv", words)
        assert guarded(lambda: app(standalone_mode=False)) == 0, (line, capsys.readouterr().err)
    assert json.loads((tmp_path / "reports" / "forest" / "verify.json").read_text())["passed"] is True


def test_the_page_runs_from_top_to_bottom() -> None:
    scope: dict[str, object] = {}
    for name, block in BLOCKS:
        if not name:
            exec(compile(block, "docs/extending.md", "exec"), scope)
