"""Sweep request: what the user asks a sweep for. Every mistake of the flags is told before anything is read, trained or run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtcore import Params
from research.errors import ConfigError
from research.parallel import check_engine
from research.runs.folder import RunFiles, check_output
from research.runs.search_plan import SearchPlan
from research.sweep.run import MARK, check_plan, check_resume
from research.training.models.layers import Layers
from research.workflow.backtest_job import Job

SEARCHING = ("run.seed", "run.ceilings")  # what a sweep of a finished run takes of the table [run]


@dataclass(frozen=True)
class SweepJob:
    """What the user asked for: candles or a run, what is tried on them, and how it is done."""

    job: Job
    plan: SearchPlan
    resume: bool = False
    walk_forward: int = 0

    def base(self, swept: RunFiles | None) -> Params:
        """Return the parameters that the grid does not name: those of the run that is swept with what was set, else of the job."""
        if swept is None:
            return self.job.config.params
        return swept.params().with_values({name: value for name, value in self._changes().items() if name not in SEARCHING})

    def check(self, folder: Path, swept: RunFiles | None, own: Layers) -> None:
        """Raise UserError on every mistake that can be told without candles. folder: of the result; swept: the run that DATA is.

        own: layers of the user's that the settings are run with.
        """
        check_output(folder, MARK)
        if self.resume:
            check_resume(folder)
        self._check_sources(swept)
        check_plan(self.plan, self.job.engine, is_own=bool(own.chain))
        space = self.plan.space(self.base(swept))
        if not own.chain:
            space.check_read()
        if self.walk_forward == 1:
            raise ConfigError(
                "--walk-forward must be 2 or more folds, was 1: the pick of one is scored on the next; take more or leave it out"
            )
        check_engine(self.job.engine, self.job.address)  # last: a cluster may take seconds to answer

    def _changes(self) -> dict[str, str]:
        return dict(text.split("=", 1) for text in self.job.config.changes())

    def _check_sources(self, swept: RunFiles | None) -> None:
        job = self.job
        own: dict[str, Any] = {"--predictions": job.predictions, "--models": job.models}
        if swept is None:
            if all(own.values()):
                raise ConfigError("--predictions and --models exclude each other, both were given; leave one out")
            return
        own |= {"--symbols": job.symbols, "--from": job.start, "--to": job.end, "--funding": job.funding, "--time-zone": job.time_zone}
        own |= {"--day-start": job.day_start, "--adjusted": job.adjusted or None}
        own |= {"--layers": job.layers.path if job.layers.chain and swept.manifest.get("layers") is None else None}
        own |= {"--profile": None if job.config.profile == "default" else job.config.profile}
        own |= {f"--set {name}": value for name, value in self._changes().items() if name.startswith("run.") and name not in SEARCHING}
        if given := [flag for flag, value in own.items() if value is not None]:
            raise ConfigError(
                f"{given[0]} must come with candles, was given with the finished run {job.data}, which has its own; leave it out"
            )


def parse_grid(texts: tuple[str, ...]) -> dict[str, str]:
    """Split `layer.name=values`. Raises UserError on text without a sign of equality and on a parameter that is named twice."""
    out: dict[str, str] = {}
    for text in texts:
        name, sign, values = (part.strip() for part in text.partition("="))
        if not sign:
            raise ConfigError(f"--grid must be layer.name=values, was {text!r}; e.g. governor.stop_loss=0.01:0.05:0.005")
        if name in out:
            raise ConfigError(f"--grid must name a parameter once, was {name} twice; join its values")
        out[name] = values
    return out
