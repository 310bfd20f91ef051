"""Surrogate data test of the whole procedure: it is repeated on surrogate markets, and a p-value says how it compares.

The procedure is everything that a researcher does: train walk-forward, try every setting of a grid, keep the best. Its statistic, the best
Sharpe ratio a year after costs, is measured on the real candles and on K surrogate ones (`surrogates`), each trained from scratch. With
p = (1 + surrogates at least as good) / (K + 1), luck and the search itself are in both sides of the comparison; 39 worlds can reach 0.025.

Every finished world is one line of a file, so an interrupted test goes on where it was; the file belongs to one procedure on one market.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qtcore.params import Params
from qtcore.profiles import values_of
from qtcore.types import Bars
from research.data.facts import fingerprint
from research.errors import ConfigError, UserError
from research.evidence.surrogates import KINDS, check_kind, surrogate
from research.files import Kind, parse_json, read_text, save_text, writable

STOPS = (0.01, 0.02, 0.05)
OF_CONFIDENCE: Mapping[str, tuple[Any, ...]] = {"governor.min_confidence": (0.50, 0.55, 0.60, 0.65, 0.70), "governor.stop_loss": STOPS}
GRIDS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {  # of each profile: what its trades depend on
    "default": {"decide.min_edge": (0.0, 0.0002, 0.0005, 0.001, 0.002), "governor.stop_loss": STOPS},
    "published": OF_CONFIDENCE,
    "original": OF_CONFIDENCE,
}

WORLDS = Kind("a null world in a line of JSON", "remove the file or choose another --out", {"key": str, "world": int, "value": float})


@dataclass(frozen=True)
class Procedure:
    """The default procedure: tree models, a grid of thresholds, the best Sharpe ratio a year.

    models, label, n_folds, seed, profile: of `research.train`. values: parameters other than the profile's. grid: settings that are all
    tried, by default those of `GRIDS`.
    """

    models: tuple[str, ...] = ("lgbm",)
    label: str = "auto"
    n_folds: int = 3
    seed: int = 42
    values: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] | None = None
    profile: str = "default"

    def __post_init__(self) -> None:
        if self.grid is None:
            object.__setattr__(self, "grid", dict(values_of(self.profile, GRIDS)))

    @property
    def params(self) -> Params:
        """Parameters of the training, and of every setting that the grid does not change."""
        return Params.profile(self.profile).with_values(self.values)

    def __call__(self, bars: Bars) -> float:
        """Train and search on `bars`; return the best Sharpe ratio a year, 0.0 when no setting trades."""
        from research.training.walk_forward import train

        assert self.grid is not None
        asked: dict[str, Any] = {"models": self.models, "label": self.label, "n_folds": self.n_folds, "seed": self.seed}
        predictions = train(bars, params=self.params, profile=self.profile, use_store=False, **asked)
        return max(search(bars, predictions, self.params, self.grid), default=0.0)


@dataclass(frozen=True)
class NullWorlds:
    """What came out. observed: the statistic on the real candles; null [K]: on surrogates; kinds [K]: of which kind each was."""

    observed: float
    null: np.ndarray
    kinds: tuple[str, ...]
    path: Path | None = None

    @property
    def p_value(self) -> float:
        """Chance of a statistic like the observed one without any edge, (1 + as good) / (K + 1)."""
        return (1 + int(np.sum(self.null >= self.observed))) / (len(self.null) + 1)

    @property
    def sentence(self) -> str:
        """Say the outcome in one sentence."""
        n, better = len(self.null), int(np.sum(self.null >= self.observed))
        found = f"the procedure's best Sharpe ratio is {self.observed:.2f} a year, and {better} of {n} markets without an edge give as much"
        if 1.0 / (n + 1) > 0.05:
            return f"Not enough data: {found}; 19 worlds are needed for 5 %."
        verdict = "more than luck" if self.p_value <= 0.05 else "no more than luck"
        return f"{verdict.capitalize()}: {found} (p = {self.p_value:.3f})."

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        worlds = [{"kind": kind, "value": float(value)} for kind, value in zip(self.kinds, self.null)]
        return {"observed": self.observed, "p_value": self.p_value, "sentence": self.sentence, "worlds": worlds}


def null_worlds(
    bars: Bars,
    procedure: Callable[[Bars], float] | None = None,
    *,
    n_worlds: int = 39,
    kinds: tuple[str, ...] = KINDS,
    block: float = 1.0,
    seed: int = 42,
    out: str | Path | None = None,
    progress: Callable[[int, int, str], Any] | None = None,
) -> NullWorlds:
    """Measure `procedure` (bars -> statistic, larger is better; default `Procedure()`) on real and on surrogate candles.

    kinds: worlds take turns among them. out: file to which every finished world is added and from which a later call goes on; a procedure
    of your own is known by its `repr`. progress(done, total, text) is called after each world. Raises UserError on a bad argument, or when
    `out` belongs to another procedure or market. KeyboardInterrupt keeps what is done.
    """
    chosen = Procedure() if procedure is None else procedure
    if n_worlds < 1:
        raise ConfigError(f"n_worlds (--worlds) must be 1 or more, was {n_worlds}; 39 can reach p = 0.025")
    for kind in kinds or ("",):
        check_kind(kind, block)
    config = {"market": fingerprint(bars), "procedure": _describe(chosen), "kinds": list(kinds), "block": block, "seed": seed}
    path = None if out is None else Path(out)
    known = {} if path is None else _read(path, config)
    turn = [kinds[k % len(kinds)] for k in range(n_worlds)]
    report = progress or (lambda done, total, text: None)
    report(len([k for k in known if k < n_worlds]), n_worlds + 1, "null worlds")
    for k in (k for k in range(-1, n_worlds) if k not in known):
        began = time.monotonic()
        world = bars if k < 0 else surrogate(bars, turn[k], seed=seed + k, block=block)
        known[k] = float(chosen(world))
        if path is not None:
            _append(
                path, config, {"world": k, "kind": "real" if k < 0 else turn[k], "value": known[k], "seconds": time.monotonic() - began}
            )
        report(sum(i < n_worlds for i in known), n_worlds + 1, "null worlds: the real market" if k < 0 else f"null worlds: {turn[k]}")
    return NullWorlds(known[-1], np.array([known[k] for k in range(n_worlds)]), tuple(turn), path)


def search(bars: Bars, predictions: Any, params: Params, grid: Mapping[str, tuple[Any, ...]]) -> list[float]:
    """Trade every setting of a grid; return the Sharpe ratio a year of each, after costs, over the tested bars; 0.0 where it is refused."""
    from itertools import product

    from research.data import bars_per_year
    from research.evidence import sharpe as sr
    from research.runs.backtest import backtest
    from research.runs.benchmark import bar_returns
    from research.runs.tables import tested_rows

    per_year, out = float(bars_per_year(bars)), []
    for setting in product(*grid.values()):
        run = backtest(bars, predictions, params.with_values(dict(zip(grid, setting))))
        m = sr.moments(bar_returns(run.result.equity[tested_rows(run)]))
        out.append(0.0 if sr.refusal(m, per_year) else m.sharpe * per_year**0.5)
    return out


def _describe(procedure: Any) -> Any:
    """Describe a procedure by its fields, or by its `repr`, as JSON gives it back; parameters as far as they are not the published ones."""
    if not isinstance(procedure, Procedure):
        return repr(procedure)
    published, mine = Params.profile("published").flat(), procedure.params.flat()
    told = asdict(procedure) | {"values": {name: value for name, value in mine.items() if value != published.get(name)}}
    if procedure.profile == "published":
        del told["profile"]  # files of versions before 0.3 name none
    return json.loads(json.dumps(told))


def _key(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path, config: Mapping[str, Any]) -> dict[int, float]:
    """Read finished worlds, -1 the real market; a last line that was cut off is left out."""
    if not path.exists():
        return {}
    known: dict[int, float] = {}
    lines = read_text(path, WORLDS).split("\n")
    for number, line in enumerate(lines, 1):
        if not line or (number == len(lines) and not line.endswith("}")):
            continue  # a last line that was cut off
        row = parse_json(line, WORLDS, f"line {number} of {path}")
        if row["key"] != _key(config):
            raise UserError(f"null worlds of {path} must be of this procedure and market, was of another; choose another --out")
        known[row["world"]] = float(row["value"])
    return known


def _append(path: Path, config: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """Add one line; a cut-off last line is ended first."""
    text = read_text(path, WORLDS) if path.exists() else ""
    with writable("null worlds", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_text(path, text[: text.rfind("\n") + 1] + json.dumps({"key": _key(config), **row}) + "\n")
