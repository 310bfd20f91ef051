"""Configuration: profile, then `qt.toml`, then `--set`; the later one wins, each is checked by `qtcore.params`.

A configuration file holds one table per layer and a table `[run]`:

    [governor]
    stop_loss = 0.03

    [run]
    label = "L3"
    models = ["xgb"]

and, for a staged rollout, a table for each change of the two switches:

    [[stage]]
    from = 2024-03-01
    meta = true
    arbiter = false

Base models of one's own, each a class of the file that `--layers` names; no file is found through a configuration:

    [models]
    forest = "Forest"

The voters may be weighed by name; whoever is not named keeps the weight of its slot, a voter of a name of its own an equal share:

    [ensemble.weights]
    forest = 0.3

Weights that follow the regime are a table of slices and voters, each a factor on `ensemble.weights`:

    [ensemble.regime_weights]
    volatility_high = {xgb = 1.2, nhits = 0.8}
    volatility_low.trend_sideways = {lgbm = 1.5}
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from qtcore import declare
from qtcore.params import Params
from qtcore.params import describe as describe_layers
from qtcore.stages import stages_text
from research.errors import ConfigError
from research.files import Kind, read_toml
from research.runs.search_plan import SearchPlan
from research.runs.study_plan import StudyPlan
from research.training.plan import TrainingPlan

CONFIG = Kind("a TOML file with a table per layer", "correct it or leave --config out")


@dataclass(frozen=True)
class RunOptions(TrainingPlan):
    """How predictions are made and used; the table `[run]`."""

    regime_fit: bool = declare.switch(False, "weights by regime are fitted on earlier folds (spec D-36)")
    provenance_budget: float = declare.bounded(
        1.0, 0.0, 1.0, "share of the due predictions that may be absent, stale or synthetic before the command fails"
    )
    allow_synthetic: bool = declare.switch(False, "models of synthetic labels may vote (spec D-24)")
    meta: str = declare.text(
        "auto", "learned meta layer: auto (a network in mode v5, else a logistic regression), none, or a kind of research.training.meta"
    )
    meta_vector: str = declare.text("auto", "rows of the meta layer; auto by kind")
    meta_calibration: str = declare.text("auto", "of the meta layer; auto by kind")
    meta_smote: bool = declare.switch(False, "synthetic training rows of the meta layer for the rarer classes")
    ceilings: bool = declare.switch(
        True, "figures that no honest run reaches make the verdict implausible; off says that you know why they are right"
    )

    def training(self, models: tuple[str, ...]) -> TrainingPlan:
        """Return the plan of the training alone; `models` where none were named."""
        return TrainingPlan(**{spec.name: getattr(self, spec.name) for spec in fields(TrainingPlan)} | {"models": self.models or models})


def describe() -> list[dict[str, Any]]:
    """List everything that `--set` takes: the parameters of the layers, the stages, and the tables `[run]`, `[search]` and `[study]`."""
    stages = {"name": "stages", "default": "", "allowed": "text", "meaning": "TIME meta=on arbiter=off; TIME ...", "read": ""}
    return [*describe_layers(), stages, *RunOptions.describe(), *SearchPlan.describe(), *StudyPlan.describe()]


@dataclass(frozen=True)
class Config:
    """Everything a command was told."""

    params: Params = field(default_factory=Params)
    run: RunOptions = RunOptions()
    search: SearchPlan = SearchPlan()
    study: StudyPlan = StudyPlan()
    profile: str = "default"
    models: Mapping[str, str] = field(default_factory=dict)  # classes of a file of layers, by the name they train under

    def changes(self) -> list[str]:
        """Return what differs from the profile's defaults, as `layer.name=value` texts that `--set` takes."""
        usual, mine = Params.profile(self.profile).flat(), self.params.flat()
        values, usual_run = {name: mine[name] for name in mine if mine[name] != usual.get(name)}, RunOptions.profile(self.profile)
        for name, spec in RunOptions.declared().items():
            if (value := getattr(self.run, spec.name)) != getattr(usual_run, spec.name):
                values[f"run.{name}"] = declare.shown(spec.metadata, value)
        values |= {f"models.{name}": value for name, value in self.models.items()}
        if self.params.sharing is not None:
            values["ensemble.weights"] = mine["ensemble.weights"]
        if self.params.stages:
            values["stages"] = stages_text(self.params.stages)
        return [f"{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}" for name, value in values.items()]


class Tables(NamedTuple):
    """The tables of a configuration that are none of a layer, by their names."""

    run: RunOptions
    search: SearchPlan
    study: StudyPlan


def load_config(
    profile: str = "default", path: Path | None = None, sets: Iterable[str] = (), environment: Mapping[str, Any] | None = None
) -> Config:
    """Resolve profile, environment (`{"layer.name": value}`, live only), file and `layer.name=value` texts; of one name the later wins.

    Different names may come in any order: a stage holds from its time on, whatever was said before or after it. Raises UserError naming
    the first bad one.
    """
    usual, values = Params.profile(profile), dict(environment or {})
    tables = Tables(RunOptions.profile(profile), SearchPlan(), StudyPlan())
    models: dict[str, str] = {}
    if path is not None:
        read = read_toml(path, CONFIG)
        models |= _read_models(read.pop("models", {}), str(path))
        tables = _read_tables(read, str(path), values, tables)
    usual.parts(values)
    for text in sets:
        name, sign, value = text.partition("=")
        layer, dot, key = name.strip().partition(".")
        if sign and layer == "stages":
            values["stages"] = value
            usual.parts(values)
            continue
        if sign and layer == "models" and dot:
            models |= _read_models({key: value.strip()}, "--set")
            continue
        if not sign or not dot:
            near = [row["name"] for row in describe() if row["name"].rpartition(".")[2] == layer] if sign else []
            hint = f"; did you mean {' or '.join(near)}?" if near else "; `qt doctor --params` lists the names"
            raise ConfigError(f"--set must be layer.name=value, was {text!r}{hint}")
        tables = _read_tables({layer: {key: value.strip()}}, "--set", values, tables)
        usual.parts(values)  # what is wrong by itself is told of the first that is
    return Config(usual.with_values(values), *tables, profile, models)


def _read_models(table: Any, origin: str) -> dict[str, str]:
    """Read names of models with the names of their classes; where a class is, the command line alone says (`--layers`)."""
    if not isinstance(table, dict) or not all(isinstance(value, str) and value.isidentifier() for value in table.values()):
        raise ConfigError(f'{origin}: [models] must name classes of the file of --layers, such as forest = "Forest", was {table!r:.80}')
    return dict(table)


def _read_tables(tables: dict[str, Any], origin: str, values: dict[str, Any], plans: Tables) -> Tables:
    """Put what tables say of layers into `values`; return the other tables with what is said of them."""
    for layer, table in tables.items():
        if layer == "stage":
            values["stages"] = table if isinstance(table, list) else [table]
            continue
        if not isinstance(table, dict):
            raise ConfigError(f"{origin}: {layer} must be a table such as [governor], was {table!r}")
        if layer == "ensemble" and isinstance(table.get("regime_weights"), dict):
            from research.training.regime_weights import regime_factors

            regime_factors(table["regime_weights"], names=None)  # the voters are not known yet
        if layer in plans._fields:
            plan = getattr(plans, layer)
            plans = plans._replace(**{layer: replace(plan, **plan.read(table, origin))})
        else:
            for name, value in ((f"{layer}.{key}", value) for key, value in table.items()):
                values.pop(name, None)  # what is said later comes later
                values[name] = value
    return plans
