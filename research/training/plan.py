"""Training plan: every choice that decides which models a training makes, declared once.

A field's declaration holds its default, what it may be, its meaning and the name that users set it by (`--set run.NAME`, the table
`[run]`); `train` takes the fields as keywords, and a schedule keeps the plan, so that any fold can be fitted again. `Declared` reads such
declarations; the options of a run and the plan of a search are declared in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from typing import Any, ClassVar, Self

import numpy as np

from qtcore.declare import bounded, checked, described, names, optional, switch, text, word
from qtcore.profiles import values_of
from qtcore.types import N_MODELS, InputError
from research.errors import ConfigError
from research.files import misfit
from research.training.knowledge import parse_until, until_text
from research.training.labels import LABEL_SHAPE, Label
from research.training.models.base import COUNTED, EQUAL, PRESETS, UNIQUENESS
from research.training.models.calibration import KINDS
from research.training.splits import NO_SHUFFLE, SPLITS

N_FOLDS = 6  # test periods unless told otherwise
MOST_ROWS = 2**31 - 1
PUBLISHED: dict[str, Any] = {  # every field that decides what is learned, but for the models (`BESIDE`) and the seed
    "label": "auto",
    "n_folds": None,
    "train_share": 0.4,
    "embargo": None,
    "is_rolling": False,
    "preset": "default",
    "max_train_rows": None,
    "split": "walk_forward",
    "retrain_every": None,
    "calibration": "none",
    "weights": EQUAL,
    "maps": False,
}
PLANS: dict[str, Mapping[str, Any]] = {"default": {}, "published": PUBLISHED, "original": PUBLISHED}  # what a profile trains
LINEAR = "linear"
BESIDE: dict[str, Mapping[str, str]] = {"default": {"voter": LINEAR}, "published": {}, "original": {}}  # the models of a command


def usual_models(profile: str, models: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what a profile trains where no model is named, and sentences about who is left out.

    models: of the command. The profile's own voter takes the last place, where one is free.

    >>> usual_models("default", ["xgb", "lgbm"])
    (('xgb', 'lgbm', 'linear'), ())
    """
    beside = tuple(values_of(profile, BESIDE).values())
    others = tuple(dict.fromkeys(name for name in models if name != LINEAR))
    if not beside or len(others) < N_MODELS:
        return (*others, *beside), ()
    told = f"{', '.join(others[:-1])} and {others[-1]} take the {N_MODELS} places of voters"
    return others, (f"{LINEAR} is left out: {told}; name in run.models who votes to have it in the place of another",)


def option(declared: Any, *, said: str = "", flag: str = "", also: tuple[type, ...] = ()) -> Any:
    """Add to a declaration of `qtcore.declare` the name that users say, where it is another, and its own flag on the command line.

    also: types that Python may hand in beside; who reads the field checks those.
    """
    return field(default=declared.default, metadata={**declared.metadata, "said": said, "flag": flag, "also": also})


class Declared:
    """A set of declared fields, each instance valid; the table that users set them in is `TABLE`."""

    TABLE: ClassVar[str]

    def __post_init__(self) -> None:
        for name, spec in self.declared().items():
            value, flag = getattr(self, spec.name), spec.metadata.get("flag")
            if isinstance(value, spec.metadata.get("also", ())) and not isinstance(value, str):
                continue
            try:
                object.__setattr__(self, spec.name, checked(f"{self.TABLE}.{name}" + (f" ({flag})" if flag else ""), value, spec))
            except InputError as error:
                raise ConfigError(error) from None

    @classmethod
    def declared(cls) -> dict[str, Any]:
        """Fields by the name that users say."""
        return {spec.metadata.get("said") or spec.name: spec for spec in fields(cls) if "meaning" in spec.metadata}  # type: ignore[arg-type]

    @classmethod
    def describe(cls) -> list[dict[str, Any]]:
        """List name, default, what is allowed, and meaning, one row a field."""
        return [described(f"{cls.TABLE}.{name}", spec) for name, spec in cls.declared().items()]

    @classmethod
    def read(cls, table: Mapping[str, Any], origin: str) -> dict[str, Any]:
        """Return what a table sets by the names of the fields. Raises ConfigError naming the first that is unknown."""
        known = cls.declared()
        if unknown := [name for name in table if name not in known]:
            raise ConfigError(f"{origin}: {cls.TABLE}.{unknown[0]} must be one of {', '.join(known)}")
        return {known[name].name: value for name, value in table.items()}

    @classmethod
    def told(cls, **asked: Any) -> Self:
        """Make one of keywords. Raises ConfigError on a name that is no field."""
        known = {spec.name for spec in fields(cls)}  # type: ignore[arg-type]
        if unknown := [name for name in asked if name not in known]:
            raise ConfigError(f"{unknown[0]} must be one of {', '.join(sorted(known))}")
        return cls(**asked)


@dataclass(frozen=True)
class TrainingPlan(Declared):
    """What a training is told.

    label: `auto`, an id of `research.training.labels`, or a Label's fields. params: of features and broker, by `layer.name`; base: the
    profile that they were set over, at whose values maps are fitted. periods: of a training that was updated
    (`research.training.update`), one a fold: close of the first test row and of the last bar that was known when the fold was made, ns UTC.
    """

    TABLE: ClassVar[str] = "run"

    models: tuple[str, ...] = names((), "base models that are trained; empty for the command's own choice")
    label: str | Mapping[str, Any] = option(
        text(
            "auto",
            "label that the models learn (L1 to L5, L10, FR, TB, XS; L3@8, L3:vol; L3@4+24 for several horizons); auto is L1, or L4 where "
            "a class of L1 is too rare",
        ),
        also=(Mapping, Label),
    )
    params: Mapping[str, Any] = field(default_factory=dict)
    base: str = "published"
    n_folds: int | None = option(optional(bounded(N_FOLDS, 1, 10_000, "walk-forward folds; auto is 6"), "auto"), said="folds")
    train_share: float = bounded(0.4, 0.01, 0.99, "share of the bars before the first fold")
    embargo: int | None = optional(bounded(0, 0, MOST_ROWS, "rows between training and test; auto for the label's horizon"), "auto")
    is_rolling: bool = option(
        switch(False, "each fold is trained on as many bars as the first, instead of on all before it"), said="rolling"
    )
    seed: int = option(bounded(42, 0, 2**32 - 1, "of everything random (--seed)"), flag="--seed")
    preset: str = option(word("fast", PRESETS, "sizes of every base model; default and published: networks at full size"), flag="--preset")
    max_train_rows: int | None = optional(bounded(0, 0, MOST_ROWS, "newest rows (bar and symbol) that a fit learns from; 0 for all"), 0)
    split: str = word("walk_forward", SPLITS, "how training and test follow each other; single_split is 70/15/15 by time")
    retrain_every: str | int | None = option(optional(text("", "rows, or a length of time such as 7d, instead of folds"), ""), also=(int,))
    calibration: str = word("prior", KINDS, "of the base models' probabilities")
    weights: str = word(UNIQUENESS, COUNTED, "of training cells, beside those of their classes; a label that shares its bars counts less")
    maps: bool = switch(True, "what opinions are worth is fitted fold by fold, for decide.rule = edge")
    shuffle: bool = switch(False, "refused: rows of the future would train")
    knows_until: str | None = option(
        optional(text("", "latest data that imported predictions, or models that bring what they know, were made of; a date: its end"), ""),
        flag="--knows-until",
        also=(int, date, np.datetime64),
    )
    periods: Sequence[Sequence[int]] = ()

    @classmethod
    def profile(cls, name: str, **asked: Any) -> Self:
        """Make the plan of a profile, with what was asked for in place of its values. Raises InputError or ConfigError on a wrong name."""
        return cls.told(**{**values_of(name, PLANS), **asked})

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> Self:
        """Read a plan that a schedule holds; a field that its version did not have yet is that of `published` (`Params.stored`)."""
        return cls.profile("published", **values)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shuffle:
            raise ConfigError(NO_SHUFFLE.format(f"{self.TABLE}.shuffle=true"))
        if self.knows_until is not None:
            object.__setattr__(self, "knows_until", until_text(parse_until(self.knows_until)))
        if isinstance(self.label, Label):
            object.__setattr__(self, "label", self.label.to_dict())
        if isinstance(self.label, Mapping) and (misfit(self.label, LABEL_SHAPE) or not {*self.label} <= {f.name for f in fields(Label)}):
            names = ", ".join(name.removesuffix("?") for name in LABEL_SHAPE)
            raise ConfigError(f"{self.TABLE}.label (--label) must be the name of a label, or its fields {names}, was {dict(self.label)!r}")

    @property
    def folds(self) -> int:
        """Test periods."""
        usual = 1 if self.split == "single_split" else N_FOLDS
        return usual if self.n_folds is None else self.n_folds
