"""Do version and changelog agree, and do the pages for contributors tell the truth?"""

import re
import tomllib

import pytest

import qtcore
from research.cli.doctor import examine
from tests.test_style import ROOT

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
PAGES = ("CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md")


def test_version_is_said_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "qtcore.__version__"}
    assert examine()["qtcore"] == qtcore.__version__


def test_changelog_has_dated_sections_in_order_up_to_this_version() -> None:
    sections = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert sections[0] == "Unreleased"
    dated = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) \((\d{4}-\d{2}-\d{2})\)", section) for section in sections[1:]]
    assert all(dated), sections
    released = [tuple(map(int, one.groups()[:3])) for one in dated if one]
    assert released == sorted(released, reverse=True)
    here = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", qtcore.__version__)
    assert here is not None
    assert tuple(map(int, here.groups())) >= released[0]


def test_changelog_uses_the_four_kinds_once_a_section() -> None:
    for section in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", section, re.MULTILINE)
        assert len(kinds) == len({*kinds})
        assert {*kinds} <= {"Added", "Changed", "Fixed", "Results"}


@pytest.mark.parametrize("page", PAGES)
def test_pages_for_contributors_name_files_that_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|research|qtcore|docs)/[\w/.-]*)`", text) + re.findall(r"\]\(([^)#]+)\)", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_hooks_fetch_nothing_and_run_what_is_there() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"- repo: (.*)", text) == ["local"]
    assert len(re.findall(r"language: system", text)) == len(re.findall(r"- id:", text))
    for entry in re.findall(r"entry: (.*)", text):
        assert entry.startswith(".venv/bin/")
        assert all((ROOT / word).exists() for word in entry.split() if word.startswith("tests/"))
