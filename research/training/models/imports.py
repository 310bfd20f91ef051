"""Imports of a model's source: the code and the library versions that a fit of it rests on. When is a known fit another one?

A class of one's own is a file, the files beside it that it imports, and libraries. The files count by content, the libraries by version,
both found by reading the source: nothing is run. Python itself counts elsewhere (`fits.machine`); our own modules count by content, without
what they import in turn, for the code of our models is hashed as a whole.
"""

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Collection, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

from research.parallel import versions

OURS = ("qtcore", "research")


class Found(NamedTuple):
    """What a module reaches: the user's own files and ours by hash, libraries by version."""

    own: dict[str, str]
    ours: dict[str, str]
    libraries: dict[str, str]


def imports_of(module: str) -> dict[str, str]:
    """Return what a module is made of: the hash of every source file that it reaches, the version of every library.

    >>> sorted(imports_of("research.training.models.calibration"))[0]
    'numpy'
    """
    found = Found({}, {}, {})
    _follow(module, found, is_first=True)
    return {**found.own, **found.ours, **found.libraries}


def sources_of(module: str) -> dict[str, str]:
    """Return the hash of every file of the user's own that a module is made of, itself included; no library, and nothing of ours."""
    found = Found({}, {}, {})
    _follow(module, found, is_first=True)
    return found.own


def brought(known: Collection[str], folder: Path) -> dict[str, str]:
    """Return the hash of every file of the user's own in `folder` that was imported since the modules `known` were, by module.

    So are those found that no source names: `importlib.import_module("helper")`.
    """
    new = {name: getattr(sys.modules[name], "__file__", None) for name in set(sys.modules).difference(known)}
    files = {name: Path(file) for name, file in new.items() if isinstance(file, str) and name.partition(".")[0] not in OURS}
    own = {name: file for name, file in files.items() if folder in (*file.absolute().parents, *file.resolve().parents) and file.is_file()}
    return {name: _digest(file) for name, file in own.items() if not _lies_in(file, "purelib", "platlib", "stdlib", "platstdlib")}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def hidden_by(module: str, folder: Path) -> tuple[str, Path] | None:
    """Return the first file in `folder` that a module's source names, but that Python finds elsewhere, and where; None for none."""
    root = _place(module)
    for name in () if root is None else _named(root.read_bytes(), ""):
        top = name.partition(".")[0]
        beside = [folder / f"{top}.py", folder / top]
        mine = next((path for path in beside if path.is_file() or (path / "__init__.py").is_file()), None)
        if mine is not None and (place := _place(top)) is not None and place.resolve() not in beside:
            return mine.name, place
    return None


def _follow(module: str, found: Found, is_first: bool = False) -> None:
    top, *parts = module.split(".")
    root = _place(top)
    if root is None or any(module in part for part in found):
        return
    if top not in OURS and (names := _distributions().get(top)) and _lies_in(root, "purelib", "platlib"):
        found.libraries[top] = ",".join(versions(names).values())
        return
    path = _file(root, parts)
    if path is None or (_lies_in(root, "stdlib", "platstdlib") and not _lies_in(root, "purelib", "platlib")):
        return
    if parts and top not in OURS:
        _follow(".".join([top, *parts[:-1]]), found)  # a package runs before what is in it
    source = path.read_bytes()
    (found.ours if top in OURS else found.own)[module] = hashlib.sha256(source).hexdigest()
    if path.suffix == ".py" and (is_first or top not in OURS):
        for name in _named(source, module if path.name == "__init__.py" else module.rpartition(".")[0]):
            _follow(name, found)


def _place(top: str) -> Path | None:
    """File or folder of a top-level name; None for what is built in, frozen or not installed."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.has_location and spec.origin else None


def _lies_in(path: Path, *kinds: str) -> bool:
    """Whether it lies where Python (`stdlib`) or pip (`purelib`) puts things."""
    return any(path.resolve().is_relative_to(Path(sysconfig.get_path(kind)).resolve()) for kind in kinds)


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _file(root: Path, parts: list[str]) -> Path | None:
    """File of a module below the place of its top-level name; None for a name that is no module, such as a function."""
    if root.is_file():
        return None if parts else root
    place = root.joinpath(*parts)
    candidates = (place / "__init__.py", place.with_suffix(".py")) if parts else (place / "__init__.py",)
    compiled = place.parent.glob(f"{place.name}.*.so") if parts else ()
    return next((path for path in (*candidates, *compiled) if path.is_file()), None)


def _named(source: bytes, package: str) -> Iterator[str]:
    """Yield the dotted names that a source imports anywhere in it; `from a import b` may mean the module a.b too."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # the import says it better
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*above, node.module]))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
