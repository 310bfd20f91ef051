"""Is the lock complete, does it fit what is declared, and is its audit told honestly?"""

import importlib.metadata
import json
import re
import tomllib

import pytest

from tests.test_style import ROOT
from tests.vulnerabilities import judge

requirements = pytest.importorskip("packaging.requirements", reason="packaging is not installed; scikit-learn brings it")
LINE = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if not line.startswith(("#", "--constraint requirements-cuda.lock"))]
    assert [line for line in pinned if not LINE.fullmatch(line)] == [], "a line is NAME==VERSION: no hash, no index, no local build"
    return {canonical(name): version for name, version in (line.split("==") for line in pinned)}


def test_lock_holds_a_version_that_every_declared_library_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for extra, some in extras.items() if extra != "fuzz" for text in some)]
    locked = pins("requirements.lock")
    for wanted in map(requirements.Requirement, texts):
        if wanted.name != "qtcore":
            assert wanted.specifier.contains(locked[canonical(wanted.name)]), wanted


def test_lock_leaves_nothing_unpinned_underneath() -> None:
    locked = pins("requirements.lock") | pins("requirements-cuda.lock")
    missing = set()
    for name in locked:
        try:
            needed = importlib.metadata.distribution(name).requires or ()
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform, or not installed here
        for one in map(requirements.Requirement, needed):
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                missing |= {canonical(one.name)} - set(locked) - {"pip"}
    assert missing == set()


FOUND = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}


@pytest.mark.parametrize(
    ("stdout", "stderr", "code", "text"),
    [
        (json.dumps({"dependencies": [FOUND, {"name": "b", "skip_reason": "not found"}]}), "", 1, "a 1: CVE-1, mended in 2"),
        (json.dumps({"dependencies": [FOUND | {"vulns": []}]}), "", 0, "1 of 1 libraries were audited: 0 known vulnerabilities"),
        (json.dumps({"dependencies": [{"name": "b", "skip_reason": "not found"}]}), "", 0, "libraries were not audited: the service that"),
        (
            "",
            "requests.exceptions.ConnectionError: no route",
            0,
            "the service of pip-audit could not be reached",
        ),
        ("", "No module named pip_audit", 1, "pip-audit failed: No module named pip_audit"),
    ],
)
def test_vulnerabilities_are_told_from_an_audit_that_saw_nothing(stdout: str, stderr: str, code: int, text: str) -> None:
    found, said = judge(stdout, stderr)
    assert found == code
    assert text in said
