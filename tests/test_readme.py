import re
from pathlib import Path

import pytest

from research.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        scope: dict[str, object] = {}
        exec(compile(block, "README.md", "exec"), scope)
        assert "run" in scope
        assert "orders" in scope


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
