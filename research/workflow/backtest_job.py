"""Backtest job: load, train or import, run, prove, write, report, in this order, each stage once."""

import os
import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qtcore import Bars, Params
from qtcore.choices import EnsembleRule
from research.data import Loaded
from research.data import load as load_data
from research.data.sketch import sketch
from research.errors import ConfigError, UserError
from research.evidence.ledger import Ledger
from research.evidence.provenance import over_budget, provenance, refuse_synthetic
from research.files import home, put_in_place
from research.runs.backtest import backtest, resolved, seated, valued
from research.runs.config import Config
from research.runs.folder import check_output
from research.runs.tables import tested_rows
from research.training.meta.schedule import MetaSchedule
from research.training.models.layers import NONE, Layers, check_known
from research.training.models.schedule import ModelSet
from research.training.predictions import Predictions
from research.training.regime_weights import fit_regime_weights
from research.verify.own import sentences
from research.workflow.own_layers import try_chain, try_training
from research.workflow.run import Run

TREES = ("xgb", "lgbm")  # what a backtest trains unless told otherwise, with the voter of the profile: minutes; `qt train` trains all
DEMO = {  # what the demo runs on, by name, and its folder: the candles of `arch`, and a market in which something can be known
    "real candles": ("sample", ""),
    "a market with a known edge": ("simulated:macd?n_bars=5000&n_symbols=4&pull=0.11", "planted"),
}
Progress = Any  # callback (done, total, text)


@dataclass(frozen=True)
class Job:
    """What the user asked for."""

    data: str
    config: Config = Config()
    symbols: list[str] | None = None
    start: str | None = None
    end: str | None = None
    time_label: str = "open"
    calendar: str | None = None
    funding: Path | None = None
    predictions: Path | None = None
    models: Path | None = None
    out: Path | None = None
    meta: Path | None = None  # folder of a trained meta schedule
    engine: str = "local"  # that trains, and where it runs: `research.parallel.opened`
    address: str | None = None
    update: bool = False  # go on with the training in `out`
    time_zone: str | None = None
    day_start: str | None = None
    adjusted: bool = False
    layers: Layers = NONE  # of the file that the command named
    declare: int | None = None  # number of trials that there will be, said before the first

    def command(self) -> str:
        """Return the job as the command line that reproduces it; defaults are left out."""
        words = ["qt", "backtest", self.data]
        if self.symbols:
            words += ["--symbols", ",".join(self.symbols)]
        spans = (("from", self.start), ("to", self.end), ("calendar", self.calendar), ("funding", self.funding))
        for flag, value in (*spans, ("time-zone", self.time_zone), ("day-start", self.day_start)):
            words += [f"--{flag}", str(value)] if value is not None else []
        words += ["--time-label", self.time_label] if self.time_label != "open" else []
        words += ["--adjusted"] if self.adjusted else []
        for flag, path in (("predictions", self.predictions), ("models", self.models), ("meta", self.meta)):
            words += [f"--{flag}", str(path)] if path is not None else []
        words += ["--layers", str(self.layers.path)] if self.layers.path is not None else []
        words += ["--profile", self.config.profile]
        return shlex.join(words) + "".join(f" --set {shlex.quote(text)}" for text in self.config.changes())


def load(job: Job) -> Loaded:
    """Load the job's bars and what was noticed about them. Raises UserError when they cannot carry a run."""
    loaded = load_data(
        job.data,
        symbols=job.symbols,
        start=job.start,
        end=job.end,
        time_label=job.time_label,
        calendar=job.calendar,
        funding=job.funding,
        time_zone=job.time_zone,
        day_start=job.day_start,
        adjusted=job.adjusted,
    )
    warmup, n = job.config.params.features.warmup, loaded.bars.n
    if n <= warmup:
        raise UserError(f"{job.data} must have more bars than the warm-up of {warmup}, was {n}; add history or lower features.warmup")
    return loaded


def run_job(job: Job, verify: bool = True, report: bool = True, export_log: bool = False, progress: Progress = None) -> Run:
    """Do everything `qt backtest` does and return the saved run; its folder holds report, tables and proof."""
    if job.predictions is not None and job.models is not None:
        raise ConfigError("--predictions and --models exclude each other, both were given; leave one out")
    folder = job.out or Path("reports") / _run_name(job)
    check_output(folder)
    checked = try_chain(job.layers, job.config.params)
    loaded = load(job)
    note_declared(job, loaded.bars)
    predictions, params, meta, absent = inputs_of(job, loaded.bars, progress)
    run = Run.of(backtest(loaded.bars, predictions, params, meta=meta, **job.layers.engine, ceilings=job.config.run.ceilings))
    run.own_checks = tuple(checked)
    notes = (*run.notes, *absent, *sentences(checked))
    over = over_budget(provenance(run, tested_rows(run)), job.config.run.provenance_budget)
    notes = (*notes, over) if over else notes
    run = replace(run, notes=notes, lacked=tuple(loaded.report.lacked), command=job.command(), profile=job.config.profile)
    run.save(folder)
    if export_log:
        from research.runs.prediction_log import export_log as write_log

        write_log(run, folder)
    if verify:
        run.verify(progress)
    if report:
        run.report(folder / "report.html")
    return run


def note_declared(job: Job, bars: Bars) -> None:
    """Put the number of trials that the job declares into the ledger. Raises UserError where it is too late, or another one is there.

    A ledger that is damaged, gone or locked is told here too, before the work.
    """
    ledger = Ledger()
    ledger.resets()
    if job.declare is not None:
        ledger.declare(sketch(bars), job.declare)


def inputs_of(job: Job, bars: Bars, progress: Progress = None) -> tuple[Predictions, Params, MetaSchedule | None, tuple[str, ...]]:
    """Return what a job runs on its bars: predictions, parameters, the learned meta layer, and sentences about what is absent.

    Raises UserError before anything is trained where the meta layer of the job's folder was trained for another mode.
    """
    _check_meta(job.config)
    if job.config.run.regime_fit and job.config.params.ensemble.rule != EnsembleRule.VOTE:
        rule = job.config.params.ensemble.rule.name.lower()
        raise ConfigError(
            f"run.regime_fit must be off where ensemble.rule is {rule}, was on: its weights are those of a vote; take --profile published"
        )
    if job.meta is not None:
        MetaSchedule.load(job.meta).check_mode(job.config.params)
    predictions, params = _predictions(job, bars, progress), job.config.params
    predictions = valued(bars, predictions, resolved(params, predictions), job.layers.judge, job.layers.features)
    refuse_synthetic(predictions.models, job.config.run.allow_synthetic)
    if job.config.run.regime_fit:
        params = fit_regime_weights(bars, predictions, params)
    return predictions, params, *_meta(job, bars, predictions, progress)


def _check_meta(config: Config) -> None:
    """Raise UserError on options of the meta layer that no training takes, before the base models are trained."""
    from research.training.meta.train import resolve_plan

    options = config.run
    if options.meta != "none":
        kind, vector, calibration = options.meta, options.meta_vector, options.meta_calibration
        resolve_plan(config.params, True, True, 1, kind=kind, vector=vector, calibration=calibration)


def _predictions(job: Job, bars: Bars, progress: Progress) -> Predictions:
    from research.training.registry import resolve

    options, params = job.config.run, job.config.params
    if job.predictions is not None:
        label, until = str(options.label), options.knows_until
        return Predictions.import_file(job.predictions, bars, label=label, time_zone=job.time_zone, knows_until=until)
    if job.models is not None:
        models = ModelSet.load(resolve(job.models))
        models.check_label(str(options.label))
        models.check_until(options.knows_until)
        _check_reach(models, bars)
        return Predictions.from_models(models, bars, params, job.layers.features, progress)
    return _train(job, bars, progress, (*TREES, *job.layers.models))


def _check_reach(models: ModelSet, bars: Bars) -> None:
    """Raise UserError where bars end before the models serve."""
    first, end = min(each.valid_from for each in models.artefacts), int(bars.close_time[-1])
    if first > end:
        since, until = (np.datetime64(at, "ns").astype("datetime64[m]") for at in (first, end))
        raise ConfigError(f"the bars must reach {since}, from where on the models serve, was to {until}; give later bars or train on these")


def train_job(job: Job, progress: Progress = None) -> tuple[Predictions, list[str]]:
    """Do everything `qt train` does: artefacts, `predictions.parquet` and `envelope.json` land in the job's folder.

    Also returns what the data lacked.
    """
    from research.training.models.base import registered

    assert job.out is not None
    check_output(job.out, "schedule.json")
    _check_meta(job.config)
    if job.update:
        return update_job(job, progress)
    loaded = load(job)
    made = _with_meta(job, loaded.bars, _train(job, loaded.bars, progress, registered(), out=job.out), progress)
    return made, loaded.lacks(job.config.params)


def update_job(job: Job, progress: Progress = None) -> tuple[Predictions, list[str]]:
    """Do everything `qt train --update` does: the folder holds the longer training when it is whole, the earlier one until then."""
    from research.parallel import n_processors
    from research.training.update import update

    assert job.out is not None
    out, known = job.out, ModelSet.load(job.out)
    symbols = job.symbols or list(known.artefacts[0].meta["symbols"])
    job = replace(job, symbols=symbols, config=replace(job.config, params=job.config.params.with_values(_features(known))))
    loaded, draft = load(job), out.with_name(f".{out.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        made = update(loaded.bars, known, job.layers.features, processes=n_processors(), progress=progress, out=draft)
        made = _with_meta(replace(job, out=draft), loaded.bars, made, progress)
        put_in_place(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    assert made.models is not None
    return replace(made, models=replace(ModelSet.load(out), n_stored=made.models.n_stored)), loaded.lacks(job.config.params)


def _features(known: Any) -> dict[str, Any]:
    return {name: value for name, value in known.params().flat().items() if name.startswith("features.")}


def _with_meta(job: Job, bars: Bars, predictions: Predictions, progress: Progress) -> Predictions:
    """Train the meta layer of a training and put it and the envelope beside the base models."""
    from research.evidence.envelope import write_envelope

    assert job.out is not None
    meta, absent = _meta(job, bars, predictions, progress)
    if meta is not None:
        meta.save(job.out / "meta")
        predictions = _with_seat(job.out, bars, predictions, resolved(job.config.params, predictions), meta)
    write_envelope(backtest(bars, predictions, job.config.params, meta=meta), job.out)
    return replace(predictions, notes=(*predictions.notes, *(meta.remarks(predictions.slots) if meta is not None else absent)))


def _with_seat(out: Path, bars: Bars, predictions: Predictions, params: Params, meta: MetaSchedule) -> Predictions:
    """Store where the meta layer acts with the models and the predictions of a training, where opinions have a price."""
    made = seated(bars, predictions, params, meta)
    if made is predictions or made.models is None:
        return predictions
    made = replace(made, models=made.models.save(out))
    made.save(out / "predictions.parquet")
    return made


def train_from_files(
    config: Config, files: tuple[str, Path | None, Path | None], out: Path, min_date: str | None, tolerance_minutes: float
) -> tuple[MetaSchedule, dict[str, int]]:
    """Do everything `qt train --from-log` does: the meta layer lands in `out`, for `qt backtest --meta`. Returns it and the counts."""
    from research.live.journal.outcomes import is_journal, read_outcomes
    from research.training.meta import train_from_log

    data, log, outcomes = files
    if data or log is None:
        raise ConfigError("--from-log must come without DATA, and with --outcomes unless it is a live journal, was otherwise")
    if outcomes is None and not log.exists():
        raise ConfigError(f"--from-log must exist, was {str(log)!r} (not found); name a journal of `qt live` or a log of --export-log")
    if is_journal(log) != (outcomes is None):
        raise ConfigError(
            "--from-log must be a journal of `qt live`, or JSON lines that come with --outcomes, was otherwise; see `qt train --help`"
        )
    check_output(out, "schedule.json")
    options = config.run
    asked: dict[str, Any] = {name: getattr(options, f"meta_{name}") for name in ("vector", "calibration", "smote")}
    asked |= {"kind": options.meta, "seed": options.seed, "min_date": min_date, "tolerance_minutes": tolerance_minutes}
    made, counts = train_from_log(log if outcomes else read_outcomes(log), outcomes, config.params, **asked)
    return made.save(out), counts


def _meta(job: Job, bars: Bars, predictions: Predictions, progress: Progress) -> tuple[MetaSchedule | None, tuple[str, ...]]:
    """Return the learned meta layer of a run, from its folder or trained now, or none and the sentence that says why."""
    options, params = job.config.run, job.config.params
    is_on = any(part.meta.enabled for _, part in params.spans(bars.close_time))
    if options.meta == "none" or not is_on:
        return None, ()
    from research.training.meta import train_meta
    from research.training.registry import resolve

    if job.meta is not None:
        return MetaSchedule.load(job.meta), ()
    told: tuple[str, ...] = ()
    if job.models is not None and options.meta == "auto" and ((own := Path(resolve(job.models)) / "meta") / "schedule.json").exists():
        stored, mode = MetaSchedule.load(own), params.meta.mode.name.lower()
        if stored.mode == mode:
            return stored, ()
        told = (f"the meta layer beside the models was trained for meta.mode={stored.mode}: one for {mode} was trained in its place",)

    if progress is not None:
        progress(0, 1, "training the meta layer")
    asked: dict[str, Any] = {name: getattr(options, f"meta_{name}") for name in ("vector", "calibration", "smote")}
    try:
        made = train_meta(bars, predictions, params, kind=options.meta, seed=options.seed, **asked)
    except UserError as error:
        if options != replace(options, meta="auto", meta_vector="auto", meta_calibration="auto"):
            raise
        return None, (*told, f"the meta layer has no learned model, the rules alone act: {error}")
    if progress is not None:
        progress(1, 1, "training the meta layer")
    return (made, told) if made.artefacts else (None, (*told, *made.notes))


def _train(job: Job, bars: Bars, progress: Progress, models: tuple[str, ...], out: Path | None = None) -> Predictions:
    from research.training.plan import usual_models
    from research.training.walk_forward import train

    usual, left_out = usual_models(job.config.profile, models)
    plan, own, params = job.config.run.training(usual), job.layers, job.config.params
    notes = () if job.config.run.models else left_out
    check_known(plan.models)
    checked = try_training(own, plan.models, plan.preset, bars, params)
    made = train(
        bars, params=params, plan=plan, custom=own.features, own_checks=checked, notes=notes, engine=job.engine, address=job.address,
        progress=progress, out=out,
    )  # fmt: skip
    return replace(made, notes=(*made.notes, *sentences(checked)))


def run_demo(out: Path | None, seed: int, progress: Progress = None) -> tuple[dict[str, Run], Path]:
    """Run the main job, all models in their quickest form, on each of `DEMO`; their trials have a ledger of their own.

    Returns the runs by name and the page that shows them side by side.
    """
    from research.report.compare import write_page
    from research.runs.config import load_config

    os.environ["QT_HOME"] = str(home() / "demo")
    config = load_config(sets=["run.models=xgb,lgbm,nhits,patchtst,linear", "run.preset=tiny", "run.folds=4", f"run.seed={seed}"])
    folder = out or Path("reports") / "demo"
    runs = {name: run_job(Job(data, config, out=folder / part), progress=progress) for name, (data, part) in DEMO.items()}
    return runs, write_page({name: folder / part for name, (_, part) in DEMO.items()}, folder / "both.html")


def _run_name(job: Job) -> str:
    stem = Path(job.data).stem.replace(":", "-") or "run"
    return f"{stem}-{pd.Timestamp.now(tz='UTC'):%Y%m%d-%H%M%S}"
