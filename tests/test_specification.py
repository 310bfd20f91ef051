"""Specification: every number that code, tests and pages cite is in docs/specification.md, once, and every file it names exists."""

import re
from collections import Counter
from pathlib import Path

import pytest

from qtcore.features import FEATURE_SETS
from qtcore.params import Params
from qtcore.rules import Reason
from research.runs.reason_text import reason_text
from tests.support import PUBLISHED
from tests.test_style import ROOT, python_files, tracked

PAGES = tuple(ROOT / "docs" / f"{name}.md" for name in ("specification", "architecture"))
TEXT = PAGES[0].read_text(encoding="utf-8")
ID = r"D-\d\d[a-u]?|[OGFT]-\d{1,2}b?"  # a decision, or a property
PLACE = r"\d{1,2}(?:\.\d{1,2})?(?: [a-u]\b)?"  # a section, or a part of one: 10.6 c
SECTION = re.compile(rf"(?:`spec`|\bspec|\bspecification,?) \(?(?:section )?({PLACE}(?:(?:, | to | and |-){PLACE})*)")
BARE = re.compile(r"(?<=\w )\((\d{1,2}\.[1-9](?:(?:, | to | and )\d{1,2}\.[1-9])*)\)")  # docstrings of qtcore cite so
DEFINED = Counter(re.findall(rf"\*\*({ID})\*\*", TEXT)) + Counter(re.findall(r"^##+ (\d{1,2}(?:\.\d{1,2})?) ", TEXT, re.MULTILINE))


def citations(line: str, is_core: bool = False) -> list[str]:
    """Numbers that a line cites: `D-70`, `9.4`, and `D-68c` for 10.6 c."""
    lists = SECTION.findall(line) + (BARE.findall(line) if is_core else [])
    places = [place for found in lists for place in re.findall(PLACE, found)]
    return [*re.findall(rf"(?<![\w-])(?:{ID})\b(?!-)", line), *(re.sub(r"^10\.6 ", "D-68", place) for place in places)]


def cited(paths: list[Path]) -> dict[str, list[str]]:
    """Where each number is cited."""
    found: dict[str, list[str]] = {}
    for path in paths:
        is_core = path.is_relative_to(ROOT / "qtcore")
        for i, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            for number in citations(line, is_core):
                found.setdefault(number, []).append(f"{path.relative_to(ROOT)}:{i}")
    return found


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("read the market (`spec` 9.4, 10.6 c), as D-02 says", ["D-02", "9.4", "D-68c"]),
        ("# spec 1.3, 1.6 to 1.9; `spec` 5-7; `spec` section 17", ["1.3", "1.6", "1.9", "5", "7", "17"]),
        ("O-1..O-7 and G-2b, D-68p; a network F-32-32-3, order A-1", ["O-1", "O-7", "G-2b", "D-68p"]),
    ],
)
def test_citations_are_found(line, numbers):
    assert citations(line) == numbers


def test_every_cited_number_is_in_the_specification():
    pages = [path for path in tracked() if path.suffix == ".md"]
    found = cited([*python_files("qtcore", "research", "tests"), *pages])
    assert len(found) > 150, "the citations are not found any more"
    lost = {number: places for number, places in found.items() if number not in DEFINED}
    assert lost == {}, "define the number in docs/specification.md, in bold or as a heading"


def test_no_number_is_defined_twice():
    assert {number: n for number, n in DEFINED.items() if n > 1} == {}


def test_no_decision_is_missing():
    assert {f"D-{i:02}" for i in range(1, 100)} <= set(DEFINED)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_file_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:qtcore|research|tests|docs|examples)/[\w./-]*)`", text)
    links = [(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#:]+)\)", text)]
    assert named
    assert [str(path) for path in [*(ROOT / name for name in named), *links] if not path.exists()] == []


# ---------------------------------------------------------------- what can be compared with the code


def section(number: str) -> str:
    """Text of a section, its subsections left out."""
    return re.split(r"^##+ ", TEXT.split(f"# {number} ")[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(number: str) -> list[list[str]]:
    """Cells of a section's table rows that begin with a parameter."""
    lines = [line for line in section(number).split("\n") if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def said(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value:.2f}" if isinstance(value, float) else str(value)


def test_reason_codes_are_those_of_the_code():
    """A code that was added since has its row in qtcore/rules.py alone; one that was published keeps number and name."""
    told = re.findall(r"(\d+) (\w+)(?=[;| ])", section("0.4"))
    assert len(told) > 50
    assert dict(told).items() <= {str(int(reason)): reason_text(reason) for reason in Reason}.items()


def test_profiles_are_those_of_the_code():
    published, original = (Params.profile(name).flat() for name in ("published", "original"))
    told = {name: tuple(row[1:3]) for row in rows("0.3") for name in re.findall(r"`([\w.]+)`", row[0])}
    assert told == {name: (said(published[name]), said(value)) for name, value in original.items() if value != published[name]}


def test_feature_sets_are_those_of_the_code():
    for name in ("v5", "v5_trained"):
        told = re.search(rf"- `{name}`, .*?: ([\w,\s]+)\.", section("1.1"))
        assert told is not None
        assert tuple(re.split(r",\s+", told[1])) == FEATURE_SETS[name]


def test_parameters_exist_and_defaults_are_those_of_the_code():
    flat = PUBLISHED.flat()
    named = set(re.findall(r"`((?:features|ensemble|meta|arbiter|governor|broker)\.\w+)", TEXT))
    assert named - set(flat) == set()
    told = re.findall(r"`((?:meta|arbiter|governor|broker)\.\w+)` \(([\d.]+)\)", TEXT)
    told += [(f"meta.{name}", value) for name, value in re.findall(r"`(\w+)` \(([\d.]+)\)", section("7.3"))]
    told += [(name.strip("`"), value) for name, value, *_ in rows("10.1")]
    assert len(told) > 15
    assert [(name, value) for name, value in told if said(flat[name]) not in (value, f"{value}0")] == []
