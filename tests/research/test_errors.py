"""Can a caller catch the kind of mistake? Every room raises the class of its own."""

import ast

import pytest

import qtcore
import research
from research.errors import ConfigError, DataError, ModelError, ProofError, UserError
from research.runs.config import load_config
from tests.test_style import ROOT, tree

ROOMS = {"data": DataError, "training": ModelError, "verify": ProofError, "cli": ConfigError}
CONFIGURATION = ("runs/config.py", "runs/space.py", "training/models/layers.py", "training/plan.py", "verify/own.py", "workflow/asked.py")
FILES = dict.fromkeys(CONFIGURATION, ConfigError)
WORLD = "simulated:random_walk?n_bars=400&n_symbols=2"


def bars() -> qtcore.Bars:
    return research.load_bars(WORLD)


@pytest.mark.parametrize(
    ("kind", "mistake"),
    [
        (DataError, lambda: research.load_bars("nowhere.parquet")),
        (DataError, lambda: research.load_bars("simulated:nothing")),
        (DataError, lambda: research.resample(bars(), "7m")),
        (ConfigError, lambda: load_config("default", None, ["governor"])),
        (ConfigError, lambda: research.sweep(bars(), research.Predictions.random(bars()), {"governor.min_confidence": "0.9:0.5:0.1"})),
        (ModelError, lambda: research.train(bars(), models=("nothing",))),
        (ModelError, lambda: research.train_meta(bars(), research.Predictions.random(bars()), kind="nothing")),
        (ModelError, lambda: research.regime_factors({"nothing": {"xgb": 1.0}})),
        (ProofError, lambda: research.check_layer(len, "nothing")),
    ],
)
def test_error_class_is_that_of_the_mistake(kind, mistake) -> None:
    with pytest.raises(UserError) as caught:
        mistake()
    assert type(caught.value) is kind, caught.value


def test_error_classes_are_public_and_one_family() -> None:
    for name in ("DataError", "ConfigError", "ModelError", "ProofError"):
        assert issubclass(getattr(research, name), research.UserError)
    assert issubclass(research.UserError, qtcore.InputError)


def raised() -> list[tuple[str, str, str]]:
    """Every `raise NAME(text)` of research: the file below it, the name, and what the text begins with."""
    found = []
    for path in sorted((ROOT / "research").rglob("*.py")):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                first = node.exc.args[0] if node.exc.args else None
                first = first.values[0] if isinstance(first, ast.JoinedStr) and first.values else first
                text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
                found.append((str(path.relative_to(ROOT / "research")), node.exc.func.id, text))
    return found


def test_error_classes_follow_the_room_and_flags() -> None:
    """A sentence that names a flag before its rule is about the configuration wherever it is raised; others are their room's."""
    bad = []
    for file, name, text in raised():
        kind = ConfigError if "--" in text.partition(" must ")[0] else FILES.get(file) or ROOMS.get(file.split("/")[0])
        if name == "UserError" and kind is not None:
            bad.append(f"{file} raises UserError({text!r}); raise {kind.__name__}")
        if name in {"DataError", "ConfigError", "ModelError", "ProofError"} and kind is not None and name != kind.__name__:
            bad.append(f"{file} raises {name}({text!r}); raise {kind.__name__}")
    assert bad == []
