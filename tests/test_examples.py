"""Does docs/extending.md show the examples as they are, and does all of it run?"""

import re
from pathlib import Path

import pytest

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


def test_the_page_runs_from_top_to_bottom() -> None:
    scope: dict[str, object] = {}
    for name, block in BLOCKS:
        if not name:
            exec(compile(block, "docs/extending.md", "exec"), scope)
