"""Study job of `qt study`: families of features, targets and books tried together walk-forward, the last part of the data held back.

Every combination is what `qt backtest` makes with its features, label and book, and counts as a trial of the market. Skill is told before
money: what the models of a pair of features and target know, on the bars that nobody trained on. The best combination is the one whose
hedged returns have the largest t value, or with `study.best_by = "skill"` the one whose gain over the base is the surest: the largest lower
end of an interval of balanced accuracy. Its run is proven, and its verdict knows all trials. What is held back is opened by `--held-back`,
for that one alone: its models are trained on as before, fold by fold, its skill is told beside that of the base, and every opening is kept
in `QT_HOME/openings.jsonl`.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qtcore import Bars
from research.data.clock import iso
from research.errors import several
from research.evidence import summarise
from research.evidence.earnings import money_of
from research.evidence.ledger import Ledger, trial_of
from research.evidence.openings import note_opening, openings
from research.evidence.skill import above_prior, mean_probs, skill_of
from research.evidence.standing import Result
from research.files import plain, put_in_place, save_json
from research.runs.backtest import backtest, priced, resolved
from research.runs.config import Config
from research.runs.folder import check_output
from research.runs.record import RunRecord
from research.runs.study_plan import BASE, SKILL, StudyPlan
from research.runs.tables import tested_rows
from research.runs.verdict import UNPROVEN, combined
from research.training.labels import check_symbols, get_label
from research.training.models.layers import NONE as NO_LAYERS
from research.training.models.layers import Layers
from research.training.scoring.opinions import Opinion
from research.workflow.backtest_job import Job, inputs_of, load, note_declared
from research.workflow.run import Run

SCHEMA_VERSION = 1
MARK, PAGE, BEST = "study.json", "study.html", "best"
Progress = Any  # callback (done, total, text)
Combination = tuple[str, str, str]  # families, target, book


@dataclass(frozen=True)
class StudyReport:
    """What to show: the page's path, and what `study.json` holds."""

    page: Path
    summary: dict[str, Any]


@dataclass(frozen=True)
class Study:
    """A study on its bars. seen: number of bars before those that are held back; fold: bars of a test period; first: of the first one."""

    plan: StudyPlan
    job: Job
    bars: Bars
    seen: int
    fold: int
    first: int

    @classmethod
    def of(cls, plan: StudyPlan, job: Job, bars: Bars) -> "Study":
        """Cut the bars. Raises UserError where either part is too short, or a family needs more symbols."""
        for families in plan.families:
            plan.sets(job.config.params, families, len(bars.symbols))
        for target in plan.targets:
            check_symbols(get_label(target, job.config.params.broker), len(bars.symbols))
        seen, options = plan.held_from(bars.close_time), job.config.run
        first = int(seen * options.train_share)
        return cls(plan, job, bars, seen, max(1, -(-(seen - first) // options.folds)), first)

    def job_of(self, combination: Combination, n: int) -> Job:
        """Return the backtest of a combination on the first n bars, its folds those on the seen ones and more of their length."""
        families, target, book = combination
        params = self.job.config.params.with_values({"governor.book": book})
        if families != BASE:
            params = params.with_values({"features.sets": list(self.plan.sets(params, families, len(self.bars.symbols)))})
        share = round((self.first + 0.5) / n, 9)
        options = replace(self.job.config.run, label=target, retrain_every=self.fold, train_share=share)
        return replace(self.job, config=replace(self.job.config, params=params, run=options))

    def run(self, combination: Combination, n: int, progress: Progress) -> RunRecord:
        """Train a combination on the first n bars and run it; past the seen ones a fresh account trades what is held back alone."""
        job = self.job_of(combination, n)
        bars, own = self.bars[:n], job.layers
        predictions, params, meta, _ = inputs_of(job, bars, progress)
        if n > self.seen:  # what layers are worth is learned from the votes before, which make no trade
            known = priced(bars, predictions, resolved(params, predictions), own.judge, own.features, meta)
            predictions = known.silent_before(self.seen)
        record = backtest(bars, predictions, params, meta=meta, **own.engine, ceilings=job.config.run.ceilings)
        return replace(record, command=self.command(combination), profile=job.config.profile)

    def command(self, combination: Combination) -> str:
        """Return the command line that makes a combination on the seen bars."""
        until = np.datetime_as_string(np.datetime64(int(self.bars.open_time[self.seen]), "ns"), unit="s")
        return replace(self.job_of(combination, self.seen), end=until).command()


def run_study(
    config: Config,
    out: Path | None = None,
    *,
    opens: bool = False,
    layers: Layers = NO_LAYERS,
    declare: int | None = None,
    progress: Progress = None,
) -> StudyReport:
    """Do everything `qt study` does; `study.json` and the page lie in the folder `out`.

    opens: also trade the best combination on what is held back. declare: number of trials that there will be, said before the first.
    Raises UserError on a plan that cannot be carried out, before any work.
    """
    plan = config.study
    plan.check(config.params)
    named = Path(plan.data).stem.replace(":", "-") or "study"
    folder = out or Path("reports") / f"study-{named}-{pd.Timestamp.now(tz='UTC'):%Y%m%d-%H%M%S}"
    check_output(folder, MARK)
    job = Job(plan.data, config, list(plan.symbols) or None, plan.start or None, plan.end or None, layers=layers, declare=declare)
    draft = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        found = _studied(job, draft, opens, progress)
        put_in_place(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return StudyReport(folder / PAGE, found)


def _studied(job: Job, folder: Path, opens: bool, progress: Progress) -> dict[str, Any]:
    """Carry out a study, write everything into a folder, and return what `study.json` holds."""
    from research.report.study import build

    plan, loaded = job.config.study, load(job)
    note_declared(job, loaded.bars)
    study = Study.of(plan, job, loaded.bars)
    folder.mkdir(parents=True, exist_ok=True)
    told = Steps(progress, len(plan.combinations()))
    skills: dict[tuple[str, str], dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    base: dict[str, Opinion] = {}
    best: tuple[tuple[float, float], Combination, RunRecord] | None = None
    untraded: dict[str, Any] | None = None
    for combination in plan.combinations():
        families, target, book = combination
        run = study.run(combination, study.seen, told.begin(", ".join(combination)))
        if (families, target) not in skills:
            about = {"families": families, "target": target}
            skills[families, target] = about | skill_of(run.bars, run.predictions, base.get(target))
            if target not in base:
                base[target] = above_prior(mean_probs(run.predictions), run.predictions)
        evidence = combined(summarise(run), UNPROVEN)["evidence"]
        Ledger().record(trial_of(run, evidence["sharpe"]), Result())
        t = evidence["test"]["t"]
        rows.append({"families": families, "target": target, "book": book, "t": t} | money_of(run, tested_rows(run)))
        merit = _merit(plan, t, skills[families, target]["gain"], families == BASE)
        if merit is None:
            untraded = untraded or {name: evidence[name] for name in ("verdict", "sentence", "reason")}
        elif best is None or merit > best[0]:
            best = merit, combination, run
    proven = None
    if best is not None:
        run = replace(best[2], lacked=tuple(loaded.report.lacked))
        proven = _proven(run, best[1], folder / BEST, told.begin("proof of the best"))
    held: dict[str, Any] = {"from": iso(int(study.bars.open_time[study.seen])), "bars": study.bars.n - study.seen, "opened": None}
    if opens and best is not None:
        held["opened"] = _opened(study, best[1], told.begin("what is held back"))
    held["openings"] = openings(study.bars[study.seen :])
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "plan": {name: plain(getattr(plan, spec.name)) for name, spec in plan.declared().items()},
        "profile": job.config.profile,
        "data": _data(study, loaded.lacks(job.config.params)),
        "skill": list(skills.values()),
        "money": rows,
        "untraded": untraded,
        "best": proven,
        "held_back": held,
    }
    summary["sentences"] = sentences(summary)
    found: dict[str, Any] = plain(summary)
    save_json(folder / MARK, found)
    build(found, folder / PAGE)
    return found


def _merit(plan: StudyPlan, t: float | None, gain: Mapping[str, Any] | None, is_base: bool) -> tuple[float, float] | None:
    """Return what the best combination has most of, and what settles a tie; None where a combination has none of it."""
    if plan.best_by != SKILL:
        return None if t is None else (t, 0.0)
    earned = -np.inf if t is None else t
    if is_base:
        return 0.0, earned
    return None if gain is None else (gain["ci95"][0], earned)


@dataclass
class Steps:
    """Progress of a study: whole combinations, with what is done inside one as words."""

    progress: Progress
    total: int
    done: int = -1

    def begin(self, text: str) -> Progress:
        """Say that the next combination begins, and return what tells of the work inside it."""
        self.done += 1
        done, progress = self.done, self.progress
        if progress is None:
            return None

        def tell(part: int, parts: int, what: str) -> None:
            progress(done, self.total, f"{text}: {what} ({part} of {parts})")

        progress(done, self.total, text)
        return tell


def _data(study: Study, lacked: list[str]) -> dict[str, Any]:
    bars = study.bars
    return {
        "symbols": list(bars.symbols),
        "n_candles": int(np.isfinite(bars.close).sum()),
        "bars": bars.n,
        "start": iso(int(bars.open_time[0])),
        "end": iso(int(bars.close_time[-1])),
        "seen": study.seen,
        "tested_from": iso(int(bars.open_time[study.first])),
        "folds": -(-(study.seen - study.first) // study.fold),
        "fold_bars": study.fold,
        "lacked": lacked,
    }


def _proven(record: RunRecord, combination: Combination, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the run of the best combination, prove it, report on it, and say what became of it; its verdict knows all trials."""
    run = Run.of(record)
    run.save(folder)
    run.verify(progress)
    run.report(folder / "report.html")
    evidence, names = run.summary["evidence"], ("verdict", "sentence", "finding", "reason", "test", "trials", "sharpe")
    about = dict(zip(("families", "target", "book"), combination)) | {name: evidence[name] for name in names}
    return about | {"proven": run.summary["proven"], "command": run.command, "report": f"{folder.name}/report.html"}


def _opened(study: Study, combination: Combination, progress: Progress) -> dict[str, Any]:
    """Trade a combination on what was held back, say what its models know there, and note that it was opened."""
    families, target, book = combination
    run = study.run(combination, study.bars.n, progress)
    Ledger().record(trial_of(run, summarise(run)["evidence"]["sharpe"]), Result())
    base = None
    if families != BASE:
        made = study.run((BASE, target, book), study.bars.n, progress).predictions
        base = above_prior(mean_probs(made), made)
    skill = {"families": families, "target": target} | skill_of(run.bars, run.predictions, base)
    found = money_of(run, slice(study.seen - 1, study.bars.n))
    note_opening(study.bars[study.seen :], combination, found["net_return"])
    return found | {"skill": skill}


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """Say in words what carries skill, what survives costs, and what the search was worth."""
    skills, rows, best, held = summary["skill"], summary["money"], summary["best"], summary["held_back"]
    gains = [f"{s['families']} with {s['target']}" for s in skills if s["gain"] and s["gain"]["ci95"][0] > 0.0]
    ranks = [f"{s['families']} with {s['target']}" for s in skills if s["information"] and s["information"]["ci95"][0] > 0.0]
    before, after = (sum(row[name] is not None and row[name]["ci95"][0] > 0.0 for row in rows) for name in ("gross", "net"))
    told = [
        f"Balanced accuracy above that of the {BASE}: {', '.join(gains) or 'none can be told to have it'}.",
        f"Which symbols do better than others: {', '.join(ranks) or 'none can be told to know'}.",
        f"Of {several(len(rows), 'combinations')} {before} earn before costs and {after} after them, each taken alone.",
    ]
    if best is None:
        told.append(f"None traded enough to be judged, so there is no best: {summary['untraded']['reason']}")
    else:
        name = f"{best['families']}, {best['target']}, {best['book']}"
        told.append(f"The best ({name}) after {several(best['trials']['trials'], 'trials')} on this market: {best['verdict']}.")
    if held["opened"] is None:
        state = f"was opened {several(held['openings'], 'times')} before" if held["openings"] else "is unopened"
        return [*told, f"What is held back from {held['from']} on {state}."]
    net = held["opened"]["net"]
    figure = "no return at all"
    if net is not None:
        figure = f"a net Sharpe ratio of {net['value']:.2f} ({net['ci95'][0]:.2f} to {net['ci95'][1]:.2f})"
    gain = held["opened"]["skill"]["gain"]
    if gain is not None:
        low, high = gain["ci95"]
        figure += f" and balanced accuracy {100 * gain['difference']:+.1f} points from the {BASE}'s ({100 * low:+.1f} to {100 * high:+.1f})"
    often = "" if held["openings"] == 1 else f"; it was opened {held['openings']} times, so it is no longer unseen"
    return [*told, f"On what was held back it has {figure}{often}."]
