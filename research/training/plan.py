"""Training plan: every choice that decides which models a training makes, declared once.

A field's declaration holds its default, what it may be, its meaning and the name that users set it by (`--set run.NAME`, the table
`[run]`); `train` takes the fields as keywords, and a schedule keeps the plan, so that any fold can be fitted again. `Declared` reads such
declarations; the options of a run and the plan of a search are declared in the same way.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, ClassVar, Self

from qtcore.declare import as_bool
from research.errors import ConfigError
from research.training.labels import Label
from research.training.models.base import PRESETS
from research.training.models.calibration import KINDS
from research.training.splits import NO_SHUFFLE, SPLITS

N_FOLDS, PRESET_FOLDS = 6, {"fast": 4}  # test periods unless told otherwise
MOST_ROWS = 2**31 - 1
WORDS: dict[type, str] = {bool: "on or off", tuple: "names, comma-separated", int: "a whole number", float: "a number", str: "text"}


def option(
    default: Any,
    meaning: str,
    *,
    kind: type | None = None,
    said: str = "",
    bounds: tuple[float, float] | None = None,
    allowed: Sequence[str] = (),
    absent: Any = None,
    flag: str = "",
) -> Any:
    """Declare a field: its type (that of the default), the name that users say, numbers or words it may be.

    absent: what users write where the value is None; flag: one of its own on the command line.
    """
    rule = {"kind": kind or type(default), "bounds": bounds, "allowed": tuple(allowed), "absent": absent, "flag": flag}
    return field(default=default, metadata={"meaning": meaning, "said": said, **rule})


class Declared:
    """A set of declared fields, each instance valid; the table that users set them in is `TABLE`."""

    TABLE: ClassVar[str]

    def __post_init__(self) -> None:
        for name, spec in self.declared().items():
            object.__setattr__(self, spec.name, self._checked(name, spec, getattr(self, spec.name)))

    @classmethod
    def declared(cls) -> dict[str, Any]:
        """Fields by the name that users say."""
        return {spec.metadata["said"] or spec.name: spec for spec in fields(cls) if "meaning" in spec.metadata}  # type: ignore[arg-type]

    @classmethod
    def describe(cls) -> list[dict[str, Any]]:
        """List name, default, what is allowed, and meaning, one row a field."""
        rows = []
        for name, spec in cls.declared().items():
            rule = spec.metadata
            allowed = " | ".join(rule["allowed"]) or ("" if rule["bounds"] is None else "[{}, {}]".format(*rule["bounds"]))
            rows.append(
                {
                    "name": f"{cls.TABLE}.{name}",
                    "default": shown(rule, spec.default),
                    "allowed": allowed or WORDS[rule["kind"]],
                    "meaning": rule["meaning"],
                }
            )
        return rows

    @classmethod
    def read(cls, table: Mapping[str, Any], origin: str) -> dict[str, Any]:
        """Return fields of a table of texts or TOML values. Raises ConfigError naming the first that is unknown or of another kind."""
        known, out = cls.declared(), dict[str, Any]()
        for name, value in table.items():
            if name not in known:
                raise ConfigError(f"{origin}: {cls.TABLE}.{name} must be one of {', '.join(known)}")
            rule = known[name].metadata
            try:
                out[known[name].name] = None if _is_absent(rule, value) else _parsed(rule["kind"], f"{cls.TABLE}.{name}", value)
            except (TypeError, ValueError, OverflowError):
                text = value if isinstance(value, str) else repr(value)
                if rule["absent"] is not None and rule["kind"] is int:
                    most = rule["bounds"][1]
                    raise ConfigError(f"{cls.TABLE}.{name} must be {rule['absent']} or a number up to {most}, was {text[:40]!r}") from None
                raise ConfigError(f"{origin}: {cls.TABLE}.{name} must be {WORDS[rule['kind']]}, was {value!r}") from None
        return out

    @classmethod
    def told(cls, **asked: Any) -> Self:
        """Make one of keywords. Raises ConfigError on a name that is no field."""
        known = {spec.name for spec in fields(cls)}  # type: ignore[arg-type]
        if unknown := [name for name in asked if name not in known]:
            raise ConfigError(f"{unknown[0]} must be one of {', '.join(sorted(known))}")
        return cls(**asked)

    def _checked(self, name: str, spec: Any, value: Any) -> Any:
        rule, full = spec.metadata, f"{self.TABLE}.{name}" + (f" ({spec.metadata['flag']})" if spec.metadata["flag"] else "")
        if value is None and rule["absent"] is not None:
            return None
        if rule["kind"] is bool:
            return as_bool(full, value)
        if rule["allowed"] and value not in rule["allowed"]:
            raise ConfigError(f"{full} must be one of {', '.join(rule['allowed'])}, was {value!r}")
        if rule["bounds"] is not None:
            low, high = rule["bounds"]
            is_number = isinstance(value, Real) and not isinstance(value, bool)  # NumPy's numbers are Real too
            if not is_number or not low <= value <= high or (rule["kind"] is int and value != int(value)):
                either = f"{rule['absent']} or " if rule["absent"] else ""
                raise ConfigError(f"{full} must be {either}in [{low}, {high}], was {value!r}")
            return rule["kind"](value)
        return value


def shown(rule: Mapping[str, Any], value: Any) -> Any:
    """Return a value as users write it."""
    return rule["absent"] if value is None else ",".join(value) if isinstance(value, tuple) else value


def _is_absent(rule: Mapping[str, Any], value: Any) -> bool:
    return rule["absent"] is not None and isinstance(value, str | int) and not isinstance(value, bool) and str(value) == str(rule["absent"])


def _parsed(kind: type, name: str, value: Any) -> Any:
    """Read one value. Raises ValueError, TypeError or OverflowError where it is of another kind."""
    if kind is bool:
        return as_bool(name, value)
    if kind is tuple:
        words = value.replace(",", " ").split() if isinstance(value, str) else value
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise TypeError
        return tuple(words)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or (kind is int and isinstance(value, float)):
        raise TypeError
    if kind is int and isinstance(value, str) and not re.fullmatch(r"[-+]?[0-9]{1,20}", value.strip()):
        raise ValueError
    return kind(value)


@dataclass(frozen=True)
class TrainingPlan(Declared):
    """What a training is told.

    label: `auto`, an id of `research.training.labels`, or a Label's fields. params: of features and broker, by `layer.name`. periods: of a
    training that was updated (`research.training.update`), one a fold: close of the first test row and of the last bar that was known when
    the fold was made, ns UTC.
    """

    TABLE: ClassVar[str] = "run"

    models: tuple[str, ...] = option((), "base models that are trained; empty for the command's own choice")
    label: str | Mapping[str, Any] = option("auto", "label that the models learn; auto is L1, or L4 where a class of L1 is too rare")
    params: Mapping[str, Any] = field(default_factory=dict)
    n_folds: int | None = option(
        None, "walk-forward folds; auto is 6, or 4 with the preset fast", kind=int, said="folds", bounds=(1, 10_000), absent="auto"
    )
    train_share: float = option(0.4, "share of the bars before the first fold", bounds=(0.01, 0.99))
    embargo: int | None = option(
        None, "rows between training and test; auto for the label's horizon", kind=int, bounds=(0, MOST_ROWS), absent="auto"
    )
    is_rolling: bool = option(
        False, "each fold is trained on as many bars as the first, instead of on all before it", kind=bool, said="rolling"
    )
    seed: int = option(42, "of everything random (--seed)", bounds=(0, 2**32 - 1), flag="--seed")
    preset: str = option("default", "parameters of every base model", allowed=PRESETS, flag="--preset")
    max_train_rows: int | None = option(
        None, "newest rows (bar and symbol) that a fit learns from; 0 for all", kind=int, bounds=(0, MOST_ROWS), absent=0
    )
    split: str = option("walk_forward", "how training and test follow each other; single_split is 70/15/15 by time", allowed=SPLITS)
    retrain_every: str | int | None = option(None, "rows, or a length of time such as 7d, instead of folds", kind=str, absent="")
    calibration: str = option("none", "of the base models' probabilities", allowed=KINDS)
    shuffle: bool = option(False, "refused: rows of the future would train")
    periods: Sequence[Sequence[int]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shuffle:
            raise ConfigError(NO_SHUFFLE.format(f"{self.TABLE}.shuffle=true"))
        if isinstance(self.label, Label):
            object.__setattr__(self, "label", self.label.to_dict())

    @property
    def folds(self) -> int:
        """Test periods."""
        usual = 1 if self.split == "single_split" else PRESET_FOLDS.get(self.preset, N_FOLDS)
        return usual if self.n_folds is None else self.n_folds
