"""Gaps of rules: what a rule of the account, or its parameter, still lacks, and in which file. The sources are read, not imported."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DECLARED, PARAMETERS, TWIN, CASES = "qtcore/rules.py", "qtcore/params.py", "tests/naive/trade.py", "tests/qtcore/test_trade.py"
TWINS, EVERY_CASE = (TWIN, "tests/naive/book.py"), (CASES, "tests/support/books.py")  # a new rule is for the first
KERNELS = (  # a new rule is for the first
    "qtcore/governor.py",
    "qtcore/broker.py",
    "qtcore/portfolio.py",
    "qtcore/chain/trade.py",
    "qtcore/chain/book.py",
)


@dataclass(frozen=True)
class Row:
    """A row of the table as it is written: the code, who asks it, whether its decision is a failure, and what steers it."""

    code: str
    layer: str
    fails: bool
    parameter: str


class Source:
    """One file: the codes that it names (`Reason.STOP`) and its words, the names of parameters among them."""

    def __init__(self, root: Path, *names: str) -> None:
        self.trees = [ast.parse((root / name).read_text(encoding="utf-8")) for name in names]
        self.nodes = [node for tree in self.trees for node in ast.walk(tree)]
        attributes = [node for node in self.nodes if isinstance(node, ast.Attribute)]
        self.codes = {node.attr for node in attributes if ast.unparse(node.value) == "Reason"}
        self.words = {node.value for node in self.nodes if isinstance(node, ast.Constant)} | {node.attr for node in attributes}

    def members(self, is_wanted: str) -> Iterator[tuple[str, str]]:
        """Yield class and name of what the classes assign that have this name or base."""
        for node in self.nodes:
            if isinstance(node, ast.ClassDef) and is_wanted in (node.name, *map(ast.unparse, node.bases)):
                for line in node.body:
                    if isinstance(line, ast.Assign | ast.AnnAssign):
                        yield node.name, ast.unparse(line.target if isinstance(line, ast.AnnAssign) else line.targets[0])

    def rows(self) -> list[Row]:
        """Read every `Rule(Reason.X, "layer", Kind.Y, parameter="layer.name", ...)`."""
        out = []
        for node in self.nodes:
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Rule":
                words, named = list(map(ast.unparse, node.args)), {word.arg: ast.unparse(word.value) for word in node.keywords}
                parameter = ast.literal_eval(named.get("parameter", "''"))
                out.append(Row(words[0].partition(".")[2], ast.literal_eval(words[1]), "Kind.ERROR" in words, parameter))
        return out


def gaps(root: Path) -> list[str]:
    """Name every gap in the checkout at `root`: one sentence each, which begins with the file to write in."""
    declared, kernels, twin, cases = Source(root, DECLARED), Source(root, *KERNELS), Source(root, *TWINS), Source(root, *EVERY_CASE)
    named = declared.codes | kernels.codes | twin.codes
    codes, rows = {name for _, name in declared.members("Reason")}, declared.rows()
    account = [f"{layer.lower()}.{name}" for layer, name in declared.members("ParamSet")]
    known = {*account, *(f"{layer.lower()}.{name}" for layer, name in Source(root, PARAMETERS).members("ParamSet"))}
    found = [f"{DECLARED} declares no code {code}, which a row, a kernel or the twin gives" for code in named - codes]
    found += [f"{DECLARED} has no row for {code}" for code in codes - {row.code for row in rows}]
    for row in rows:
        if row.parameter not in {"", *known}:
            found.append(f"{DECLARED} declares no parameter {row.parameter}, which steers {row.code}")
        if row.layer in ("governor", "exit") and not row.fails:  # what fails is noticed outside the kernels
            found += [
                f"{name} never gives {row.code}" for name, source in ((KERNELS[0], kernels), (TWIN, twin)) if row.code not in source.codes
            ]
    for name in account:
        key = name.partition(".")[2]
        found += [f"{KERNELS[0]} never reads {name}"] if key not in kernels.words else []
        found += [
            f"{file} never {does} {name}"
            for file, does, source in ((TWIN, "reads", twin), (CASES, "sets", cases))
            if name not in source.words
        ]
    return sorted(found)
