"""Do the arrows hold? Every import of qtcore and research, read with ast, against the order of the layers."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import qtcore
import research

ROOT = Path(__file__).resolve().parents[1]

# One row per level; a module may import rows above its own, and its own package.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("lazy", "jit", "types", "voters", "choices", "declare", "stages"),
    ("rules", "own_code", "profiles"),
    ("params", "check", "slots"),
    ("features", "ensemble", "meta", "arbiter", "governor", "portfolio", "broker", "metrics", "reading"),
    ("chain",),
    ("engine", "sweep"),
)
LEVEL = {name: rank for rank, row in enumerate(LEVELS) for name in row}
# The simulator books with the accounting that live uses; the vocabulary itself is layered.
SIDEWAYS = {("broker", "portfolio"), ("declare", "types"), ("voters", "types"), ("stages", "types"), ("stages", "declare")}

CORE_FORBIDDEN = {"logging", "random", "time", "datetime", "pickle", "json", "csv", "sqlite3", "threading", "asyncio", "tempfile", "shutil"}
JIT_ONLY = {"numba", "llvmlite", "os", "sys", "pathlib", "hashlib"}  # the cache folder is jit.py's business

# One row per floor; a room of research may import rooms above its own row, and nothing of its neighbours beside it.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("files",),
    ("data", "parallel"),
    ("training",),
    ("runs",),
    ("evidence", "verify"),
    ("report", "live"),
    ("sweep",),
    ("workflow",),
    ("cli",),
    ("__main__",),
)
LIVE = (  # the same inside live/, where `start` puts everything together
    ("records",),
    ("storage",),
    ("feeds",),
    ("broker",),
    ("journal",),
    ("session",),
    ("monitoring",),
    ("dashboard", "start"),
)
HEAVY = (
    "torch", "xgboost", "lightgbm", "sklearn", "imblearn", "skops", "safetensors", "matplotlib", "arch", "ffn", "vectorbt", "optuna", "ray",
    "ccxt", "aiohttp", "prometheus_client",
)  # fmt: skip


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> list[tuple[str, bool]]:
    """Dotted names a file imports, `from a import b` as `a.b`, and whether at the top (not inside a function or TYPE_CHECKING)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(ROOT).with_suffix("").parts
    late = set()
    for node in ast.walk(tree):
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or guarded:
            late.update(id(child) for child in ast.walk(node))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) not in late) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) + "." if node.level else ""
            found += [(f"{base}{node.module or ''}.{alias.name}".strip("."), id(node) not in late) for alias in node.names]
    return found


def unit(path: Path, package: str) -> str:
    """The layer a file belongs to: the first name below the package."""
    return path.relative_to(ROOT / package).with_suffix("").parts[0]


def back_edges_of_the_core() -> list[str]:
    bad = []
    for path in modules("qtcore"):
        own = unit(path, "qtcore")
        if own == "__init__":
            continue  # it re-exports the public names
        assert own in LEVEL, f"{path.name} has no level; add it to LEVELS"
        for name, _ in imports(path):
            parts = name.split(".")
            if parts[0] == "research":
                bad.append(f"{path.relative_to(ROOT)} imports {name}: qtcore never imports research")
            if parts[0] != "qtcore" or len(parts) < 2 or parts[1] == own:
                continue
            if LEVEL[parts[1]] >= LEVEL[own] and (own, parts[1]) not in SIDEWAYS:
                bad.append(f"{path.relative_to(ROOT)} imports {name}: {own} may not know {parts[1]}")
    return bad


def test_the_core_has_no_back_edge():
    assert back_edges_of_the_core() == []


def test_the_core_needs_numpy_and_its_own_jit_alone():
    bad = []
    for path in modules("qtcore"):
        is_jit = path.name == "jit.py"
        for name, _ in imports(path):
            top = name.split(".")[0]
            outside = top not in sys.stdlib_module_names and top not in {"numpy", "numba", "llvmlite", "qtcore"}
            if outside or top in CORE_FORBIDDEN or (top in JIT_ONLY and not is_jit) or name.startswith("numpy.random"):
                bad.append(f"{path.relative_to(ROOT)} imports {name}")
        if "np.random" in path.read_text(encoding="utf-8"):
            bad.append(f"{path.relative_to(ROOT)} draws random numbers")
    assert bad == []


def upward(package: str, floors: tuple[tuple[str, ...], ...]) -> list[str]:
    """Imports of a package, late ones too, that do not point to a floor above."""
    floor = {room: rank for rank, row in enumerate(floors) for room in row}
    prefix, bad = package.replace("/", ".") + ".", []
    for path in modules(package):
        own = unit(path, package)
        if own == "__init__":
            continue  # it re-exports the public names
        assert own in floor, f"{path.relative_to(ROOT)} is in no room; add it to FLOORS or LIVE"
        for name, _ in imports(path):
            room = name.removeprefix(prefix).split(".")[0]
            if name.startswith(prefix) and room != own and floor[room] >= floor[own]:
                bad.append(f"{path.relative_to(ROOT)} imports {name}: {own} may not know {room}")
    return bad


def test_rooms_import_from_the_floors_above_them_alone():
    assert upward("research", FLOORS) == []
    assert upward("research/live", LIVE) == []


@pytest.mark.parametrize("package", ["qtcore", "research"])
def test_no_modules_import_each_other_in_a_circle(package):
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in modules(package)}
    graph = {}
    for name, path in names.items():
        wanted = [found if found in names else found.rpartition(".")[0] for found, is_early in imports(path) if is_early]
        graph[name] = {found for found in wanted if found in names and found != name}
    TopologicalSorter(graph).prepare()  # CycleError names a circle


def test_research_has_at_most_sixteen_entries():
    assert len([path for path in (ROOT / "research").iterdir() if path.name != "__pycache__"]) <= 16


def test_verify_imports_no_layer():
    layers = {f"qtcore.{name}" for name in LEVELS[3] + LEVELS[4]}
    bad = []
    for path in modules("research/verify"):
        if path.name in ("layers.py", "trading_layers.py") or path.name.startswith("scenario"):
            continue  # they put a researcher's layer, or a case of the specification, in the place of the chain
        for name, _ in imports(path):
            if ".".join(name.split(".")[:2]) in layers:
                bad.append(f"{path.relative_to(ROOT)} imports {name}: a proof may not lean on what it proves")
    assert bad == []


@pytest.mark.parametrize("package", ["qtcore", "research"])
def test_nothing_imports_tests_or_notebooks(package):
    names = [(p, n) for p in modules(package) for n, _ in imports(p)]
    assert [f"{p.name}: {n}" for p, n in names if n.split(".")[0] in {"tests", "notebooks", "conftest"}] == []


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `statement`."""
    code = f"import sys\n{statement}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


TABLES = {"numba", "pandas", "polars", "pyarrow"}  # half a second and more to import


def test_importing_a_package_loads_nothing_but_what_is_asked_for():
    assert loaded_by("import qtcore, research") & {"numpy", *TABLES, *HEAVY} == set()
    assert loaded_by("import qtcore\nqtcore.Params()") & {"research", *TABLES, *HEAVY} == set()
    assert loaded_by("import qtcore\nqtcore.Engine") & {"research", *TABLES, *HEAVY} == {"numba"}


def test_the_command_line_starts_without_tables_and_compiler():
    assert loaded_by("import research.cli.app") & {*TABLES, *HEAVY} == set()


@pytest.mark.parametrize("package", [qtcore, research], ids=["qtcore", "research"])
def test_a_package_holds_the_names_it_says_it_has(package):
    """The table read at run time, the imports read by type checkers, and __all__ are one list."""
    path = ROOT / package.__name__ / "__init__.py"
    typed = {full.rpartition(".")[2]: full.rpartition(".")[0] for full, _ in imports(path) if not full.endswith(".import_lazily")}
    del typed["TYPE_CHECKING"]
    assert package.home_of == typed
    assert sorted(package.__all__) == sorted(typed) == sorted({*dir(package)} & {*typed})
    for name, home in typed.items():
        assert getattr(package, name) is getattr(sys.modules[home], name)
    with pytest.raises(AttributeError, match=f"^module '{package.__name__}' has no attribute 'nothing'$"):
        package.nothing  # noqa: B018


def test_a_public_function_wins_over_the_package_of_its_name():
    """The import of a package puts it into the one above it; what a user calls stays the function."""
    assert loaded_by("import research\nimport research.sweep.run\nassert callable(research.sweep)")


def test_a_module_is_found_in_its_package():
    assert loaded_by("import qtcore, research\nqtcore.chain.trade.trade\nresearch.parallel.Here")


@pytest.mark.parametrize(
    "name", ["research.workflow.own_layers", "research.workflow.load", "research.live.start", "research.live.dashboard.server"]
)
def test_importing_research_loads_no_library_of_some_commands(name):
    assert loaded_by(f"import {name}") & set(HEAVY) == set()
