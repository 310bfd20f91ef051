"""Fitted meta models: how each kind answers, is stored and is read. Rows go in, probabilities of SELL, HOLD, BUY come out.

Regression and network are answered by our own kernels, forest and boosting by their libraries; each gives one row the bits of the batch. No
file holds code (`spec` D-76).
"""

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from qtcore.meta import MetaModel
from qtcore.meta.model import SHAPES
from qtcore.types import F8, InputError
from research.files import Kind, check_archive, reason, unpack_arrays
from research.training.models.base import ModelAbsentError, Scaler
from research.training.models.structure import check_forest, check_lightgbm, check_xgboost

ARCHIVE, MAX_ARCHIVE = Kind("an archive of a meta model", "train again", None), 1 << 28
TRUSTED = {"sklearn.tree._tree.Tree"}  # all that a forest holds beside scikit-learn's and NumPy's plain types


class MetaFit(Protocol):
    """A fitted meta model; suffix: of its file."""

    suffix: ClassVar[str]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""

    @property
    def scaler(self) -> Scaler:
        """Means and deviations of the training rows."""

    def answer(self, rows: F8) -> F8:
        """Return probabilities [k, 3] of rows [k, F], NaN where a feature is NaN."""

    def dump(self) -> bytes:
        """Return the model without its scaler, as its file holds it."""

    def digest(self) -> bytes:
        """Return bytes that are equal for equal models."""

    @classmethod
    def parse(cls, data: bytes, feature_names: tuple[str, ...], scaler: Scaler) -> Self:
        """Read what `dump` returned. Raises ModelAbsentError on anything else."""


@dataclass(frozen=True)
class KernelFit:
    """A regression or a network: arrays that our own kernels evaluate."""

    model: MetaModel
    suffix: ClassVar[str] = ".npz"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.model.feature_names

    @property
    def scaler(self) -> Scaler:
        """Means and deviations of the training rows."""
        return Scaler(self.model.arrays["mean"], self.model.arrays["scale"])

    def answer(self, rows: F8) -> F8:
        """Return probabilities [k, 3], see `MetaFit`."""
        return self.model.answer(rows, np.zeros(len(rows), np.int64))

    def dump(self) -> bytes:
        """Return kind and arrays as an npz archive; equal models give equal bytes."""
        out = io.BytesIO()
        arrays: dict[str, Any] = {name: array for name, array in self.model.arrays.items() if name not in ("mean", "scale")}
        np.savez(out, kind=np.array(self.model.kind), **arrays)
        return out.getvalue()

    digest = dump

    @classmethod
    def parse(cls, data: bytes, feature_names: tuple[str, ...], scaler: Scaler) -> Self:
        """Read an npz archive, see `MetaFit`."""
        try:
            arrays = unpack_arrays(data, ARCHIVE, "the file", MAX_ARCHIVE)
            kind = str(arrays.pop("kind", ""))
            if set(arrays) != set(SHAPES.get(kind, ())) - {"mean", "scale"} or any(a.dtype != np.float64 for a in arrays.values()):
                raise ValueError(f"kind {kind[:40]!r} with {', '.join(sorted(arrays))[:80]}")
            return cls(MetaModel(kind, feature_names, arrays | {"mean": scaler.mean, "scale": scaler.scale}))
        except (ValueError, InputError) as error:
            raise ModelAbsentError(f"meta model must be an npz archive of its arrays, was not ({reason(error)}); train again") from error


@dataclass(frozen=True)
class LibraryFit(ABC):
    """What forest and boosting share: only rows without NaN reach the library, scaled."""

    estimator: Any
    feature_names: tuple[str, ...]
    scaler: Scaler

    def answer(self, rows: F8) -> F8:
        """Return probabilities [k, 3], see `MetaFit`."""
        out, known = np.full((len(rows), 3), np.nan), ~np.isnan(rows).any(axis=1)
        if known.any():
            out[known] = self.predict((rows[known] - self.scaler.mean) / self.scaler.scale)
        return out

    @abstractmethod
    def predict(self, scaled: F8) -> F8:
        """Ask the library about scaled rows."""


@dataclass(frozen=True)
class ForestFit(LibraryFit):
    """A random forest of scikit-learn, stored by skops."""

    suffix: ClassVar[str] = ".skops"

    def predict(self, scaled: F8) -> F8:
        """Average the trees, in their order."""
        return np.asarray(self.estimator.predict_proba(scaled), np.float64)

    def dump(self) -> bytes:
        """Return a skops archive; its bytes differ from time to time, which is why `digest` reads the trees."""
        from skops import io as skops

        return bytes(skops.dumps(self.estimator))

    def digest(self) -> bytes:
        """Return the arrays of every tree, one after the other."""
        parts = []
        for tree in (member.tree_ for member in self.estimator.estimators_):
            parts += [
                np.ascontiguousarray(a).tobytes()
                for a in (tree.children_left, tree.children_right, tree.feature, tree.threshold, tree.value)
            ]
        return b"".join(parts)

    @classmethod
    def parse(cls, data: bytes, feature_names: tuple[str, ...], scaler: Scaler) -> Self:
        """Read a skops archive that holds nothing but trees, see `MetaFit`."""
        from skops import io as skops

        try:
            check_archive(data, ARCHIVE, "the file", MAX_ARCHIVE)
            foreign = set(skops.get_untrusted_types(data=data)) - TRUSTED
            if foreign:
                raise ModelAbsentError(f"forest must hold trees only, was with {', '.join(sorted(foreign))}; train again")
            forest = skops.loads(data, trusted=sorted(TRUSTED))
            check_forest(forest, len(feature_names))
            return cls(forest, feature_names, scaler)
        except ModelAbsentError:
            raise
        except Exception as error:  # the library has errors of its own; whatever it is, the model is absent
            raise ModelAbsentError(f"forest must be a skops archive, was not ({reason(error)}); train again") from error


@dataclass(frozen=True)
class BoostedFit(LibraryFit):
    """Boosted trees of XGBoost in its own format."""

    suffix: ClassVar[str] = ".ubj"

    def predict(self, scaled: F8) -> F8:
        """Add the trees, in their order."""
        return np.asarray(self.estimator.inplace_predict(scaled.astype(np.float32), validate_features=False), np.float64)

    def dump(self) -> bytes:
        """Return the booster as UBJSON; equal models give equal bytes."""
        return bytes(self.estimator.save_raw("ubj"))

    digest = dump

    @classmethod
    def parse(cls, data: bytes, feature_names: tuple[str, ...], scaler: Scaler) -> Self:
        """Read UBJSON, see `MetaFit`."""
        import xgboost

        booster = xgboost.Booster({"nthread": 1})
        try:
            check_xgboost(data, len(feature_names))
            booster.load_model(bytearray(data))
        except Exception as error:
            raise ModelAbsentError(f"meta model must be a ubj file of XGBoost, was not ({reason(error)}); train again") from error
        return cls(booster, feature_names, scaler)


@dataclass(frozen=True)
class LeafWiseFit(LibraryFit):
    """Boosted trees of LightGBM in its own text format."""

    suffix: ClassVar[str] = ".txt"

    def predict(self, scaled: F8) -> F8:
        """Add the trees, in their order."""
        return np.asarray(self.estimator.predict(scaled, num_threads=1), np.float64)

    def dump(self) -> bytes:
        """Return the booster as text; equal models give equal bytes."""
        text: str = self.estimator.model_to_string()
        return text.encode()

    digest = dump

    @classmethod
    def parse(cls, data: bytes, feature_names: tuple[str, ...], scaler: Scaler) -> Self:
        """Read the text, see `MetaFit`."""
        import lightgbm

        try:
            check_lightgbm(data, len(feature_names))
            return cls(lightgbm.Booster(model_str=data.decode()), feature_names, scaler)
        except Exception as error:
            raise ModelAbsentError(f"meta model must be a text file of LightGBM, was not ({reason(error)}); train again") from error


FITS: Mapping[str, type[Any]] = {
    "logistic": KernelFit,
    "mlp": KernelFit,
    "forest": ForestFit,
    "xgboost": BoostedFit,
    "lightgbm": LeafWiseFit,
}


def check_varies(fit: MetaFit) -> None:
    """Raise ModelAbsentError when random inputs, drawn in scaled space, all get the same answer within 1e-4 (D-42)."""
    drawn = np.random.default_rng(42).normal(size=(8, len(fit.feature_names)))  # two would do for anything but trees
    answers = fit.answer(drawn * fit.scaler.scale + fit.scaler.mean)
    if not np.isfinite(answers).all() or float(np.ptp(answers, axis=0).max()) < 1e-4:
        raise ModelAbsentError("meta model must answer different inputs differently, was constant; train again")


def fit_digest(fit: MetaFit) -> str:
    """Hash a model with its scaler and feature names: equal hashes answer equally."""
    text = "\n".join(fit.feature_names).encode()
    return hashlib.sha256(b"|".join([fit.digest(), fit.scaler.mean.tobytes(), fit.scaler.scale.tobytes(), text])).hexdigest()
