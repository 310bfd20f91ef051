"""House rules that ruff cannot see: twins, docstrings of kernels, budgets, paths, loading of code, looking forward."""

import ast
import re
import subprocess
import warnings
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_MODULE, MAX_TEST, MAX_KERNEL, MAX_PARAMETERS = 400, 700, 40, 8

# Kernels without a twin of their own name: each is a rule or a loop that the named twin covers, on the same inputs.
COVERED_BY: dict[str, str] = {
    "outcome_line": "trade",
    "mend": "advance",
    "hide": "advance",
    "copy": "advance",
    "load": "advance",
    "load_holes": "advance",
    "place": "advance",
    "mark_valid": "advance",
    "row_mean": "advance",
    "row_value": "advance",
    "pair_up": "ema_bank",
    "rank_four": "rank",
    "rank_many": "rank",
    "key_rule": "rank",
    "count_four": "rank",
    "one": "rank",
    "share": "rank",
    "stop_level_rule": "enter",
    "gap_rule": "fill_exits",
    "stop_rule": "fill_stops",
    "stop_fill_rule": "fill_stops",
    "funding_rule": "pay_funding",
    "fill_step": "enter",
    "impact_rule": "moved",
    "part_rule": "reduce",
    "average_rule": "enter",
    "reduces_rule": "leave",
    "resize_position": "reduce",
    "enters_rule": "band",
    "beta_rule": "band",
    "multipliers": "neutral",
    "excess_rule": "band",
    "share_of": "scaled",
    "weight_rule": "rebalance",
    "book_rule": "govern_book",
    "terms_rule": "neutral",
    "solve": "neutral",
    "aim_rule": "scaled",
    "limit_rule": "scaled",
    "held_rule": "rebalance",
    "move_rule": "rebalance",
    "forecast_rule": "price",
    "leave_book": "leave",
    "enter_book": "fill_entries",
    "drop_entries": "fill_entries",
    "mark_book": "mark",
    "begin_book": "rebalance",
    "forecast_lanes": "price",
    "weigh_lanes": "neutral",
    "level_lanes": "neutral",
    "aim_lanes": "scaled",
    "limit_lanes": "scaled",
    "rebalance_lanes": "rebalance",
    "room_lanes": "rebalance",
    "choose_lanes": "govern_book",
    "approve_lanes": "govern_book",
    "liquidate_book": "liquidate",
    "run_book_lanes": "sweep_rows",
    "depth_of": "moved",
    "worth_of": "trade",
    "worst_rule": "worst",
    "begin": "note_fill",
    "cancel": "fill_entries",
    "hold": "trade",
    "sort_falling": "govern",
    "edge_share_rule": "size",
    "note_last_bars": "mark",
    "decide_by_edge": "decide_block",
    "bet_columns_rule": "judge_bets",
    "average_cells": "average_block",
    "is_told_rule": "fill_in",
    "choice_rule": "largest",
    "agreement_rule": "average_block",
    "length_rule": "price",
    "n_heard": "decide_block",
    "n_maps": "decide_block",
    "stand": "hear",
    "note": "hear",
    "outbid": "hear",
    "speak": "hear",
    "value_cells": "value",
    "price_lanes": "price",
    "bet_by_share": "size",
    "screen_rule": "screen",
    "exit_rule": "order_exit",
    "open_cell_rule": "order_exit",
    "kelly_rule": "size",
    "size_rule": "size",
    "size_step": "size",
    "veto_rule": "govern_step",
    "veto_step": "govern_step",
    "govern_rule": "govern_step",
    "empirical_odds": "odds",
    "last_loss": "govern_step",
    "drawdown_rule": "halt",
    "update_metrics": "metrics",
    "apply_fill": "note_fill",
    "clear": "leave",
    "open_position": "enter",
    "close_position": "leave",
    "mark_step": "mark",
    "sum_up": "mark",
    "number": "look_up",
    "prepare": "score_cells",
    "slippage_rule": "note_fill",
    "change_rule": "leave",
    "value_rule": "mark",
    "entry_rule": "enter",
    "exit_amount_rule": "leave",
    "bar_rule": "bar_step",
    "scale_rule": "size",
    "new_day_rule": "roll_day",
    "sweep_lanes": "sweep_rows",
    "lanes_piece": "sweep_rows",
    "lay_out": "sweep_rows",
    "run_lanes": "sweep_rows",
    "opinion_rule": "decide",
    "reset_lanes": "sweep_rows",
    "leave_lanes": "leave",
    "liquidate_lanes": "liquidate",
    "write_off": "liquidate",
    "ruin_rule": "trade",
    "exits_at_open": "fill_exits",
    "exits_in_bar": "fill_stops",
    "enter_lanes": "fill_entries",
    "note_stops": "fill_stops",
    "pay_lanes": "pay_funding",
    "mark_lanes": "mark",
    "opine_lanes": "decide",
    "screen_lanes": "screen",
    "order_exits": "order_exit",
    "close_bar": "halt",
    "bet_by_confidence": "size",
    "govern_lanes": "govern",
    "measure_lanes": "bar_step",
    "sweep_piece": "sweep_rows",
    "start_row": "sweep_rows",
    "opine": "sweep_rows",
    "select_block": "sweep_rows",
    "opine_block": "decide",
}


def python_files(*packages: str) -> list[Path]:
    return sorted(p for package in packages for p in (ROOT / package).rglob("*.py"))


def tracked() -> list[Path]:
    """Files under version control that are text; the tree itself where this is no checkout."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = done.stdout.split("\n") if done.returncode == 0 else [str(p.relative_to(ROOT)) for p in python_files("qtcore", "research")]
    suffixes = {".py", ".md", ".toml", ".ipynb", ".html", ".css", ".js", ".lock", ".yaml", ".yml", ""}
    return [ROOT / name for name in names if name and Path(name).suffix in suffixes and (ROOT / name).is_file()]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]


def is_kernel(node: ast.FunctionDef) -> bool:
    names = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return any(isinstance(d, ast.Name) and d.id == "kernel" for d in names)


def kernels() -> list[tuple[Path, ast.FunctionDef]]:
    return [(p, node) for p in python_files("qtcore") for node in functions(p) if is_kernel(node)]


def twins() -> set[str]:
    return {node.name for p in python_files("tests/naive") for node in functions(p)}


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} {getattr(node, 'name', '')}"


def test_every_kernel_has_a_twin():
    known = twins()
    bad = [where(p, k) for p, k in kernels() if k.name not in known and COVERED_BY.get(k.name) not in known]
    assert bad == [], "kernels without a naive twin; write one in tests/naive or name the twin that covers the rule in COVERED_BY"


def test_no_stale_line_in_the_table_of_covered_rules():
    names = {k.name for _, k in kernels()}
    assert sorted(set(COVERED_BY) - names) == []
    assert sorted(set(COVERED_BY) & twins()) == []


def test_every_kernel_says_what_it_does():
    bad = [where(p, k) for p, k in kernels() if not ast.get_docstring(k)]
    assert bad == []


def test_every_module_opens_with_a_docstring():
    bad = [str(p.relative_to(ROOT)) for p in python_files("qtcore", "research") if not ast.get_docstring(tree(p))]
    assert [name for name in bad if (ROOT / name).stat().st_size] == []


ASKING = re.compile(
    r"(what|which|who|whose|whom|where|when|why|how|is|are|was|were|do|does|did|has|have|had"
    r"|can|could|may|might|must|shall|should|will|would)\b",
    re.IGNORECASE,
)


def first_sentence(docstring: str) -> str:
    return re.split(r"(?<=[.?!])\s", docstring.strip(), maxsplit=1)[0]


def asks(docstring: str) -> bool:
    """Whether the first sentence is a question, or begins as one: it must name the thing; a question may follow."""
    first = first_sentence(docstring)
    return first.endswith("?") or ASKING.match(first) is not None


def test_first_lines_of_modules_name_the_thing():
    """Search and API pages need the noun: `Trial ledger: record of every trial. How many tries did it take?`, never the question alone."""
    lines = {str(p.relative_to(ROOT)): ast.get_docstring(tree(p)) or "." for p in python_files("qtcore", "research")}
    assert {name: text.splitlines()[0] for name, text in lines.items() if asks(text)} == {}


def test_docstrings_of_functions_and_classes_do_not_ask():
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [(p, node) for p in python_files("qtcore", "research") for node in ast.walk(tree(p)) if isinstance(node, kinds)]
    bad = [where(p, node) for p, node in nodes if first_sentence(ast.get_docstring(node) or "").endswith("?")]
    assert bad == [], "say `Whether ...`"


@pytest.mark.parametrize(
    ("line", "is_bad"),
    [
        ("What did a run show? `summarise` says it.", True),
        ("How good is the model, whether a rule asked it or not?", True),
        ("`qt trials`: what has been tried, and what is the best of it worth?", True),
        ("Which driver runs a setting.", True),
        ("Trial ledger: record of every trial (`spec` 12.1). How many tries did it take?", False),
        ("Labels: what would have been right at each bar.", False),
    ],
)
def test_a_question_may_follow_the_name_but_not_replace_it(line, is_bad):
    assert asks(line) == is_bad


def test_no_fastmath_and_no_parallel_outside_the_sweep():
    bad = []
    for path in python_files("qtcore"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.keyword) and node.arg in {"fastmath", "parallel"}:
                allowed = node.arg == "parallel" and (path.parent.name == "sweep" or path.name == "jit.py")
                if not allowed:
                    bad.append(where(path, node.value) + node.arg)
    assert bad == []


def test_kernels_use_only_exact_arithmetic():
    """Sums, means, powers and NumPy's log and exp differ between compiled and interpreted code."""
    bad = []
    for path, k in kernels():
        for node in ast.walk(k):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
                bad.append(where(path, node) + "**")
            if isinstance(node, ast.Attribute) and node.attr in {
                "sum",
                "mean",
                "std",
                "var",
                "dot",
                "log",
                "exp",
                "sqrt",
                "cumsum",
                "sort",
            }:
                if isinstance(node.value, ast.Name) and node.value.id == "math":
                    continue
                bad.append(where(path, node) + node.attr)
    assert bad == []


def test_only_jit_imports_numba():
    bad = [str(p) for p in python_files("qtcore", "research") if re.search(r"^\s*(import|from) numba", p.read_text("utf-8"), re.M)]
    assert [Path(p).name for p in bad] == ["jit.py"]


NAMED = "layers.py"  # runs the file that the user named


def test_nothing_loads_code_from_data():
    """A model file is data: no pickle, no joblib, no torch.load without weights_only (`spec` D-76). Code is what `--layers` names."""
    bad = []
    for path in python_files("qtcore", "research"):
        for node in ast.walk(tree(path)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            bad += [
                where(path, node) + n
                for n in names
                if n.split(".")[0] in {"pickle", "cPickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
            ]
            if (
                isinstance(node, ast.keyword)
                and node.arg == "allow_pickle"
                and not (isinstance(node.value, ast.Constant) and not node.value.value)
            ):
                bad.append(where(path, node.value) + "allow_pickle")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "pd.read_pickle", "eval", "exec"}:
                safe = any(k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True for k in node.keywords)
                if not safe and path.name != NAMED:
                    bad.append(where(path, node) + ast.unparse(node.func))
    assert bad == []


def test_no_print():
    bad = []
    for path in python_files("qtcore", "research"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                bad.append(where(path, node))
    assert bad == []


HISTORY = "before"  # rows of history in front of a block: `x[t + before - k]` lies k bars back
LOOKS_FORWARD = {"labels.py", "outcome.py"}
PLANTED = {"leaks.py", "planted.py"}  # they name what they hunt


def forward_looks(path: Path) -> list[str]:
    """Spot the usual ways of reading the future: negative shifts, centred windows, back-fills, and `x[t + k]` in a kernel."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            negative = [a for a in node.args if isinstance(a, ast.UnaryOp) and isinstance(a.op, ast.USub)]
            if node.func.attr in {"shift", "roll"} and negative:
                found.append(where(path, node) + node.func.attr)
            if node.func.attr in {"bfill", "backfill"}:
                found.append(where(path, node) + node.func.attr)
        if isinstance(node, ast.keyword) and node.arg == "center" and isinstance(node.value, ast.Constant) and node.value.value is True:
            found.append(where(path, node.value) + "center=True")
    for k in filter(is_kernel, functions(path)):
        for node in ast.walk(k):
            if isinstance(node, ast.Subscript):
                index = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
                is_sum = isinstance(index, ast.BinOp) and isinstance(index.op, ast.Add)
                if is_sum and ast.unparse(index.left) == "t" and ast.unparse(index.right) != HISTORY:
                    found.append(where(path, node) + ast.unparse(node))
    return found


def test_only_labels_look_forward():
    files = [p for p in python_files("qtcore", "research") if p.name not in LOOKS_FORWARD | PLANTED]
    assert [line for p in files for line in forward_looks(p)] == []


def test_no_word_of_a_machine():
    """The repository speaks of the product alone: no absolute path of a machine, no package-index host."""
    words = re.compile(
        "|".join(["/" + "work/", "/" + "tmp/", "/" + "home/[a-z]", "/" + "root/", "pypi" + r"\.org", "files." + "pythonhosted"])
    )
    bad = []
    for path in tracked():
        for i, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
            if words.search(line):
                bad.append(f"{path.relative_to(ROOT)}:{i} {line.strip()[:80]}")
    assert bad == []


def test_text_is_ascii():
    bad = []
    for path in python_files("qtcore", "research", "tests"):
        for i, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if not line.isascii():
                bad.append(f"{path.relative_to(ROOT)}:{i}")
    assert bad == []


def test_no_unfinished_work():
    words = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]))
    bad = [str(p.relative_to(ROOT)) for p in python_files("qtcore", "research", "tests") if words.search(p.read_text(encoding="utf-8"))]
    assert bad == []


def over_budget() -> list[str]:
    """What is longer or wider than planned: a list to look at, not a failure."""
    found = []
    for path in python_files("qtcore", "research", "tests"):
        n = path.read_text(encoding="utf-8").count("\n")
        limit = MAX_TEST if path.parts[len(ROOT.parts)] == "tests" else MAX_MODULE
        if n > limit:
            found.append(f"{path.relative_to(ROOT)}: {n} lines, budget {limit}")
    for path in python_files("qtcore", "research"):
        for node in functions(path):
            n = (node.end_lineno or 0) - node.lineno + 1
            if is_kernel(node) and n > MAX_KERNEL:
                found.append(f"{where(path, node)}: kernel of {n} lines, budget {MAX_KERNEL}")
            width = len(node.args.args) + len(node.args.kwonlyargs)
            is_command = path.parent.name == "cli"  # a command's options are its documentation
            if not is_kernel(node) and not is_command and width > MAX_PARAMETERS:
                found.append(f"{where(path, node)}: {width} parameters, budget {MAX_PARAMETERS}")
    return found


def test_budgets_are_reported():
    found = over_budget()
    if found:
        warnings.warn("over budget:\n  " + "\n  ".join(found), stacklevel=1)
    sizes = [p.read_text(encoding="utf-8").count("\n") for p in python_files("qtcore", "research")]
    assert max(sizes) <= 2 * MAX_MODULE, "a module of twice the budget is a missing layer"


@pytest.mark.parametrize("package", ["qtcore", "research"])
def test_packages_are_typed(package):
    assert (ROOT / package / "py.typed").exists()
