"""What did the user set, and where? Profile, then `qt.toml`, then `--set`: the later one wins, each is checked by `qtcore.params`.

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
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from qtcore.params import Params
from research.errors import UserError


@dataclass(frozen=True)
class RunOptions:
    """How predictions are made; the table `[run]`."""

    label: str = "auto"
    models: tuple[str, ...] = ("xgb", "lgbm")
    preset: str = "default"
    folds: int = 6
    train_share: float = 0.4
    seed: int = 42


@dataclass(frozen=True)
class Config:
    """Everything a command was told."""

    params: Params = field(default_factory=Params)
    run: RunOptions = RunOptions()
    profile: str = "default"


def load_config(profile: str = "default", path: Path | None = None, sets: Iterable[str] = ()) -> Config:
    """Resolve profile, file and `layer.name=value` texts, in this order. Raises UserError naming the first bad one."""
    config = Config(Params.profile(profile), RunOptions(), profile)
    if path is not None:
        config = _with_tables(config, _read_toml(path), str(path))
    for text in sets:
        name, sign, value = text.partition("=")
        layer, dot, key = name.strip().partition(".")
        if not sign or not dot:
            raise UserError(f"--set must be layer.name=value, was {text!r}")
        config = _with_tables(config, {layer: {key: value.strip()}}, "--set")
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--config must be a readable file, was {str(path)!r} ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"--config must be TOML, {path} is not: {error}") from error


def _with_tables(config: Config, tables: dict[str, Any], origin: str) -> Config:
    values: dict[str, Any] = {}
    run = config.run
    for layer, table in tables.items():
        if layer == "stage":
            values["stages"] = table if isinstance(table, list) else [table]
            continue
        if not isinstance(table, dict):
            raise UserError(f"{origin}: {layer} must be a table such as [governor], was {table!r}")
        if layer == "run":
            run = _with_run(run, table, origin)
        else:
            values |= {f"{layer}.{key}": value for key, value in table.items()}
    return replace(config, params=config.params.with_values(values), run=run)


def _with_run(run: RunOptions, table: dict[str, Any], origin: str) -> RunOptions:
    kinds = {spec.name: type(getattr(run, spec.name)) for spec in fields(run)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in kinds:
            raise UserError(f"{origin}: run.{key} must be one of {', '.join(kinds)}")
        kind = kinds[key]
        try:
            is_list = kind is tuple and isinstance(value, str)
            values[key] = kind(value.replace(",", " ").split() if is_list else value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{origin}: run.{key} must be {kind.__name__}, was {value!r}") from error
    return replace(run, **values)
