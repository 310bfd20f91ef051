"""Configuration: profile, then `qt.toml`, then `--set`; the later one wins, each is checked by `qtcore.params`.

A configuration file holds one table per layer and a table `[run]`:

    [governor]
    min_confidence = 0.60

    [run]
    label = "L3"
    models = ["xgb"]

and, for a staged rollout, a table for each change of the two switches:

    [[stage]]
    from = 2024-03-01
    meta = true
    arbiter = false

Weights that follow the regime are a table of slices and models, each a factor on `ensemble.weights`:

    [ensemble.regime_weights]
    volatility_high = {xgb = 1.2, nhits = 0.8}
    volatility_low.trend_sideways = {lgbm = 1.5}
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from qtcore.declare import as_bool
from qtcore.params import Params
from qtcore.params import describe as describe_layers
from qtcore.stages import stages_text
from research.errors import ConfigError
from research.files import Kind, read_toml
from research.training.models.base import PRESETS
from research.training.models.calibration import KINDS
from research.training.splits import NO_SHUFFLE, SPLITS

MOST_ROWS = 2**31 - 1
BOUNDS = {
    "folds": (1, 10_000),
    "train_share": (0.01, 0.99),
    "max_train_rows": (0, MOST_ROWS),
    "seed": (0, 2**32 - 1),  # what every library takes
    "provenance_budget": (0.0, 1.0),
}
CONFIG = Kind("a TOML file with a table per layer", "correct it or leave --config out")


MEANINGS = {
    "label": "label that the models learn; auto is L1, or L4 where a class of L1 is too rare",
    "models": "base models that are trained; empty for the command's own choice",
    "preset": "parameters of every base model",
    "split": "how training and test follow each other",
    "folds": "walk-forward folds; without it 6, or 4 with the preset fast",
    "train_share": "share of the bars before the first fold",
    "rolling": "each fold is trained on as many bars as the first, instead of on all before it",
    "embargo": "rows between training and test; auto for the label's horizon",
    "retrain_every": "rows, or a length of time such as 7d, instead of folds",
    "shuffle": "refused: rows of the future would train",
    "calibration": "of the base models' probabilities",
    "max_train_rows": "newest rows that a fit learns from; 0 for all",
    "seed": "of everything random (--seed)",
    "regime_fit": "weights by regime are fitted on earlier folds (spec D-36)",
    "provenance_budget": "share of the due predictions that may be absent, stale or synthetic before the command fails",
    "allow_synthetic": "models of synthetic labels may vote (spec D-24)",
    "meta": "learned meta layer: auto (a network in mode v5, else a logistic regression), none, or a kind of research.training.meta",
    "meta_vector": "rows of the meta layer; auto by kind",
    "meta_calibration": "of the meta layer; auto by kind",
    "meta_smote": "synthetic training rows of the meta layer for the rarer classes",
    "ceilings": "figures that no honest run reaches make the verdict implausible; off says that you know why they are right",
}


@dataclass(frozen=True)
class RunOptions:
    """How predictions are made; the table `[run]`. Each field's meaning is in `MEANINGS`; folds is 0 where nobody chose."""

    label: str = "auto"
    models: tuple[str, ...] = ()
    preset: str = "default"
    split: str = "walk_forward"
    folds: int = 0
    train_share: float = 0.4
    rolling: bool = False
    embargo: str = "auto"
    retrain_every: str = ""
    shuffle: bool = False
    calibration: str = "none"
    max_train_rows: int = 0
    seed: int = 42
    regime_fit: bool = False
    provenance_budget: float = 1.0
    allow_synthetic: bool = False
    meta: str = "auto"
    meta_vector: str = "auto"
    meta_calibration: str = "auto"
    meta_smote: bool = False
    ceilings: bool = True

    def __post_init__(self) -> None:
        if self.shuffle:
            raise ConfigError(NO_SHUFFLE.format("run.shuffle=true"))
        for name, allowed in (("split", SPLITS), ("preset", PRESETS), ("calibration", KINDS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"run.{name} must be one of {', '.join(allowed)}, was {getattr(self, name)!r}")
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high and (name, getattr(self, name)) != ("folds", 0):
                flag = " (--seed)" if name == "seed" else ""
                raise ConfigError(f"run.{name}{flag} must be in [{low}, {high}], was {getattr(self, name)!r}")
        if self.embargo != "auto" and not (re.fullmatch("[0-9]{1,10}", self.embargo) and int(self.embargo) <= MOST_ROWS):
            raise ConfigError(f"run.embargo must be auto or a number of rows up to {MOST_ROWS}, was {self.embargo[:40]!r}")

    def training(self, models: tuple[str, ...]) -> dict[str, Any]:
        """Return what `research.training.walk_forward.train` takes; `models` where none were named."""
        return {
            "models": self.models or models,
            "label": self.label,
            "preset": self.preset,
            "split": self.split,
            "n_folds": self.folds or None,
            "train_share": self.train_share,
            "is_rolling": self.rolling,
            "embargo": None if self.embargo == "auto" else int(self.embargo),
            "retrain_every": self.retrain_every or None,
            "calibration": self.calibration,
            "max_train_rows": self.max_train_rows or None,
            "seed": self.seed,
        }


def describe() -> list[dict[str, Any]]:
    """List everything that `--set` takes: the parameters of the layers, the stages, and the table `[run]`."""
    choices = {"split": SPLITS, "preset": PRESETS, "calibration": KINDS}
    rows = [*describe_layers(), {"name": "stages", "default": "", "allowed": "text", "meaning": "TIME meta=on arbiter=off; TIME ..."}]
    for spec in fields(RunOptions):
        low, high = BOUNDS.get(spec.name, (None, None))
        if spec.name in choices:
            allowed = " | ".join(choices[spec.name])
        else:
            allowed = _KINDS[type(spec.default)] if low is None else f"[{low}, {high}]"
        default = ",".join(spec.default) if isinstance(spec.default, tuple) else spec.default
        rows.append({"name": f"run.{spec.name}", "default": default, "allowed": allowed, "meaning": MEANINGS[spec.name]})
    return rows


@dataclass(frozen=True)
class Config:
    """Everything a command was told."""

    params: Params = field(default_factory=Params)
    run: RunOptions = RunOptions()
    profile: str = "default"

    def changes(self) -> list[str]:
        """Return what differs from the profile's defaults, as `layer.name=value` texts that `--set` takes."""
        usual, mine = Params.profile(self.profile).flat(), self.params.flat()
        values = {name: mine[name] for name in mine if mine[name] != usual.get(name)}
        values |= {f"run.{f.name}": getattr(self.run, f.name) for f in fields(self.run) if getattr(self.run, f.name) != f.default}
        if self.params.stages:
            values["stages"] = stages_text(self.params.stages)
        return [f"{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}" for name, value in values.items()]


def load_config(
    profile: str = "default", path: Path | None = None, sets: Iterable[str] = (), environment: Mapping[str, Any] | None = None
) -> Config:
    """Resolve profile, environment (`{"layer.name": value}`, live only), file and `layer.name=value` texts; of one name the later wins.

    Different names may come in any order: a stage holds from its time on, whatever was said before or after it. Raises UserError naming
    the first bad one.
    """
    usual, run, values = Params.profile(profile), RunOptions(), dict(environment or {})
    if path is not None:
        run = _read_tables(read_toml(path, CONFIG), str(path), values, run)
    usual.with_values(values)
    for text in sets:
        name, sign, value = text.partition("=")
        layer, dot, key = name.strip().partition(".")
        if sign and layer == "stages":
            values["stages"] = value
            usual.with_values(values)
            continue
        if not sign or not dot:
            near = [row["name"] for row in describe() if row["name"].rpartition(".")[2] == layer] if sign else []
            hint = f"; did you mean {' or '.join(near)}?" if near else "; `qt doctor --params` lists the names"
            raise ConfigError(f"--set must be layer.name=value, was {text!r}{hint}")
        run = _read_tables({layer: {key: value.strip()}}, "--set", values, run)
        usual.with_values(values)  # what is wrong is told of the first that is
    return Config(usual.with_values(values), run, profile)


def _read_tables(tables: dict[str, Any], origin: str, values: dict[str, Any], run: RunOptions) -> RunOptions:
    """Put what tables say of layers into `values`; return what they say of `[run]`."""
    for layer, table in tables.items():
        if layer == "stage":
            values["stages"] = table if isinstance(table, list) else [table]
            continue
        if not isinstance(table, dict):
            raise ConfigError(f"{origin}: {layer} must be a table such as [governor], was {table!r}")
        if layer == "ensemble" and isinstance(table.get("regime_weights"), dict):
            from research.training.regime_weights import FACTORS, regime_factors

            table = dict(table)
            values[FACTORS] = regime_factors(table.pop("regime_weights"))
        if layer == "run":
            run = _with_run(run, table, origin)
        else:
            values.update({f"{layer}.{key}": value for key, value in table.items()})
    return run


_KINDS: dict[type, str] = {bool: "on or off", tuple: "names, comma-separated", int: "a whole number", float: "a number", str: "text"}


def _parsed(kind: type, key: str, value: Any) -> Any:
    """Read one value of `[run]`. Raises ValueError, TypeError or OverflowError where it is of another kind."""
    if kind is bool:
        return as_bool(key, value)
    if kind is tuple:
        words = value.replace(",", " ").split() if isinstance(value, str) else value
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise TypeError
        return tuple(words)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or (kind is int and isinstance(value, float)):
        raise TypeError
    return kind(value)


def _with_run(run: RunOptions, table: dict[str, Any], origin: str) -> RunOptions:
    kinds = {spec.name: type(getattr(run, spec.name)) for spec in fields(run)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in kinds:
            raise ConfigError(f"{origin}: run.{key} must be one of {', '.join(kinds)}")
        kind = kinds[key]
        try:
            values[key] = _parsed(kind, key, value)
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(f"{origin}: run.{key} must be {_KINDS[kind]}, was {value!r}") from None
        if (key, values[key]) == ("folds", 0):
            raise ConfigError(f"{origin}: run.folds must be 1 or more, was 0; leave it out for 6 folds, or 4 with the preset fast")
    return replace(run, **values)
