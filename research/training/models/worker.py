"""Fit workers: one model of one fold each, several at once. Jobs in files, workers as plain processes, nothing pickled.

A job is a JSON object; its arrays lie in the job folder: `matrix.npy` [n, S, F] float32, `usable.npy` [n, S] bool, `labels.npy` [K, n, S]
int8, `roles.npy` [K, n] int8 and `ends.npy` [n, S], the rows in which labels end; `ahead.npy` [n, S] is the number that a
label of a score is made of, else of shape (0, 0). A worker is a Python process that runs
`main`: jobs come as lines on its standard input, answers go as lines to its standard output. That needs no `if __name__ == "__main__"` in
the caller's script and works in notebooks, which process pools do not. Each fit uses one thread, so the number of workers changes nothing
but the time (`spec` D-90).

A worker puts each finished fit into the store (`research.training.models.fits`) itself: what it finished outlives an interrupt of its
caller. Workers of a cluster (`Fits`, on a pool of `research.parallel`) send the files back instead, and the caller puts them where they
belong. A model with an attribute `on_progress` tells how far it is: an answer `{"progress": [done, total, text]}` before the last one; a
cluster's tell the last one alone.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from qtcore.own_code import said
from qtcore.types import F8, I8
from research.errors import ModelError, UserError
from research.parallel import Pool
from research.training.labels import uniqueness
from research.training.models import fits
from research.training.models.base import (
    EQUAL,
    F4,
    ModelAbsentError,
    RowModel,
    asked,
    class_weights,
    lookback_of,
    make_model,
    own_digest,
    takes_weights,
    weights_rule,
)
from research.training.models.calibration import calibrated, fit_calibration
from research.training.models.importance import permutation
from research.training.models.layers import hold
from research.training.models.windows import complete, inputs_of
from research.training.splits import FIT, TEST, VALID

CALIBRATED = 10_000  # cells of the validation slice that a calibration of at most four numbers is fitted on
Job = dict[str, Any]
Tell = Callable[[Job], Any]


class Arrays(NamedTuple):
    """What fits read, none of it changed: as in the job folder."""

    matrix: F4
    usable: NDArray[np.bool_]
    labels: NDArray[np.int8]
    roles: NDArray[np.int8]
    ends: I8
    ahead: F8

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open the arrays of a job folder; what is asked for is read from the disk then."""
        return cls(*(np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)) for name in cls._fields))


def fit_job(job: Job, tell: Tell | None = None, arrays: Arrays | None = None) -> Job:
    """Fit, save, read back and predict the test rows: what is served later is what predicted here.

    Returns sizes, class counts, parameters, versions and `absent`: None, or why there is no model. Writes the model to `job["path"]` and
    `<path>.npz` with the test cells' flat numbers and probabilities, and all of it to the store `job["store"]` if there is one. arrays:
    read from `job["folder"]` unless given.
    """
    if job.get("layers"):
        hold(job["layers"])
    answer = _fit(job, tell, arrays)
    if job.get("store") is not None:
        fits.keep(Path(job["store"]), job["key"], answer, Path(job["path"]))
    return answer


def _fit(job: Job, tell: Tell | None, arrays: Arrays | None) -> Job:
    path, arrays = Path(job["path"]), arrays or Arrays.read(Path(job["folder"]))
    matrix = arrays.matrix
    usable, labels, roles = arrays.usable, arrays.labels[job["fold"]], arrays.roles[job["fold"]]
    model = make_model(job["target"], job["features"], job["preset"])
    if tell is not None and hasattr(model, "on_progress"):
        model.on_progress = lambda done, total, text: tell({"progress": [done, total, text]})
    lookback = lookback_of(model)
    usable, classes = complete(usable, lookback), labels.reshape(-1)

    def cells(role: int) -> I8:
        return np.flatnonzero(((roles == role)[:, None] & usable & (labels >= 0)).ravel())

    fit, valid, test = cells(FIT), cells(VALID), np.flatnonzero(((roles == TEST)[:, None] & usable).ravel())
    if job["max_train_rows"]:
        fit = fit[-job["max_train_rows"] :]  # cells are in order of time: the most recent ones
    answer: Job = {"absent": None, "n_fit": len(fit), "n_valid": len(valid), "n_test": len(test)}
    answer["fit_counts"] = np.bincount(classes[fit], minlength=3).tolist()
    answer["train_counts"] = (np.bincount(classes[fit], minlength=3) + np.bincount(classes[valid], minlength=3)).tolist()
    rows = {part: inputs_of(matrix, part_cells, lookback) for part, part_cells in (("fit", fit), ("valid", valid), ("test", test))}
    weighing = {"weights": fit_weights(job["weights"], labels, fit, arrays.ends)} if takes_weights(model) else {}
    answer["weights"] = job["weights"] if weighing else EQUAL
    fit_score = getattr(model, "fit_score", None) if job["limits"] is not None else None
    try:
        if fit_score is not None:
            values = arrays.ahead.reshape(-1)
            fit_score(rows["fit"], values[fit], rows["valid"], values[valid], tuple(job["limits"]), job["seed"], **weighing)
        else:
            model.fit(rows["fit"], classes[fit], rows["valid"], classes[valid], job["seed"], **weighing)
    except ModelAbsentError as error:
        return answer | {"absent": str(error)}
    if job["calibration"] != "none" and hasattr(model, "calibration") and fit_score is None:
        some = valid[np.linspace(0, len(valid) - 1, min(len(valid), CALIBRATED)).astype(np.int64)]  # evenly over time
        said = model.predict_proba(inputs_of(matrix, some, lookback))  # gathered anew: fitting scaled the others in place
        weights = class_weights(answer["fit_counts"], weights_rule(model.params()))
        model.calibration = fit_calibration(job["calibration"], said, classes[some], weights)
        answer["calibration"] = model.calibration.to_dict()
    model.save(path)
    served = make_model(job["target"], job["features"], job["preset"]).load(path)
    np.savez(f"{path}.npz", cells=test, probs=calibrated(served, asked(served, job["slot"], rows["test"])))
    params = model.params() | {"preset": job["preset"]}
    curves = params.pop("history", getattr(model, "history", {}))
    importance = {"gain": served.gains()} if isinstance(served, RowModel) else {}
    if lookback == 1:  # windows: as many predictions as features, too slow
        answers = partial(permutation, lambda x: calibrated(served, served.predict_proba(x)))
        own = (rows["test"], classes[test], test, matrix.shape[1])
        importance["permutation"] = answers(*own, names=job["features"], block=job["horizon"], seed=job["seed"])
    more = {"params": params, "suffix": model.suffix, "lookback": lookback, "history": curves, "importance": importance}
    return answer | more | own_digest(served)


def fit_weights(rule: str, labels: NDArray[np.int8], fit: I8, ends: I8) -> F8 | None:
    """Weight of each fitted cell [N], mean 1: its average uniqueness among the labels that are fitted on; None where all count alike.

    labels int8 [n, S]; fit: flat numbers of the fitted cells; ends [n] or [n, S]: rows in which labels end.
    """
    if rule == EQUAL:
        return None
    fitted = np.full(labels.shape, -1, np.int8)
    fitted.flat[fit] = labels.flat[fit]
    found = uniqueness(fitted, ends).ravel()[fit]
    return found / np.mean(found) if len(fit) else found


def answer_of(job: Job, tell: Tell | None = None, arrays: Arrays | None = None) -> Job:
    """Do a job; where it fails, answer `refused` (the disk), `told` (a mistake of the user's) or `error` with the reason."""
    try:
        return fit_job(job, tell, arrays)
    except OSError as error:
        return {"refused": str(error)}
    except UserError as error:
        return {"told": str(error)}
    except (Exception, SystemExit) as error:  # the caller raises it, in whichever process that is
        return {"error": said(error)}


@dataclass(frozen=True)
class Fits:
    """The work of a training on a cluster: an item is the number of a job and the job.

    The result: its answer, the files that it wrote by name, and what else moves bits there (`fits.machine`).
    """

    arrays: Arrays

    def __call__(self, item: tuple[int, Job]) -> tuple[Job, dict[str, bytes], str]:
        """Fit in a folder of its own; what it wrote is handed back."""
        with tempfile.TemporaryDirectory(prefix="qt_fit_") as folder:
            path = Path(folder) / Path(item[1]["path"]).name
            answer = answer_of(item[1] | {"path": str(path), "store": None}, None, self.arrays)
            files = {name: file.read_bytes() for name, file in fits.files_of(path).items() if file.exists()}
        return answer, files, fits.machine()

    def for_worker(self) -> "Fits":
        """Read the arrays where they are: fits change none, and no kernel sees them."""
        return self


class Report:
    """Tells how far all fits are, `progress(done, total, text)`, with the time that the rest will take at the pace so far.

    jobs: those to be fitted; known: how many more came from the store.
    """

    def __init__(self, progress: Callable[[int, int, str], Any] | None, jobs: Sequence[Job], known: int) -> None:
        self.progress, self.known, self.total = progress, known, len(jobs) + known
        self.parts = [0.0] * len(jobs)
        self.costs = [job["cost"] for job in jobs]
        self.began = time.monotonic()
        self._say(f"{known} of {self.total} fits from the store" if known else "the longest fits first")

    def __call__(self, i: int, job: Job, answer: Job) -> None:
        """Take a report on job `i`, or its last answer."""
        name = f"{job['slot']}, fold {job['fold'] + 1}"
        if "progress" in answer:
            done, total, text = answer["progress"]
            self.parts[i] = min(done / max(total, 1), 0.99)
            self._say(f"{name}, {text}")
        else:
            self.parts[i] = 1.0
            self._say(f"{name} done")

    def _say(self, text: str) -> None:
        if self.progress is None:
            return
        spent = sum(part * cost for part, cost in zip(self.parts, self.costs))
        left = (time.monotonic() - self.began) * (sum(self.costs) / spent - 1.0) if spent else 0.0
        more = f", {left / 60.0:.0f} min left" if left >= 90.0 else f", {left:.0f} s left" if left >= 1.0 else ""
        self.progress(self.known + self.parts.count(1.0), self.total, f"training: {text}{more}")


def run_jobs(
    jobs: Sequence[Job], processes: int, heard: Callable[[int, Job, Job], None] | None = None, pool: Pool | None = None
) -> list[Job]:
    """Run all jobs, at most `processes` at a time, and return the answers in their order; `heard(i, job, answer)` sees each as it comes.

    The costliest start first. One process means this one. pool: workers of a cluster to do it instead. Raises UserError when files cannot
    be written, RuntimeError with the worker's own words when a fit fails.
    """
    hear = heard or (lambda i, job, answer: None)
    answers: dict[int, Job] = {}
    order = sorted(range(len(jobs)), key=lambda i: -jobs[i].get("cost", 0.0))
    if pool is not None:
        source = _on_cluster(jobs, order, pool)
    else:
        source = _here(jobs, order, hear) if processes <= 1 else _in_processes(jobs, order, processes)
    for i, answer in source:
        if "refused" in answer:
            raise ModelError(f"training must be able to write its temporary files, was not: {answer['refused']}; free space or set TMPDIR")
        if "told" in answer:
            raise ModelError(answer["told"])
        if "error" in answer:
            if jobs[i].get("layers"):
                what = f"{jobs[i]['slot']} of {jobs[i]['layers']['file']} must be fitted on every fold"
                why = f"was not on fold {jobs[i]['fold'] + 1}: {answer['error']}"
                raise ModelError(f"{what}, {why}; raise ModelAbsentError where it cannot be")
            raise RuntimeError(f"fitting {jobs[i]['slot']} of fold {jobs[i]['fold']} failed: {answer['error']}")
        hear(i, jobs[i], answer)
        if "progress" not in answer:
            answers[i] = answer
    return [answers[i] for i in range(len(jobs))]


def _here(jobs: Sequence[Job], order: Sequence[int], hear: Callable[[int, Job, Job], None]) -> Iterator[tuple[int, Job]]:
    for i in order:
        yield i, answer_of(jobs[i], partial(hear, i, jobs[i]))


def _on_cluster(jobs: Sequence[Job], order: Sequence[int], pool: Pool) -> Iterator[tuple[int, Job]]:
    work = Fits(Arrays.read(Path(jobs[0]["folder"])))
    with contextlib.closing(pool.map(work, [(i, jobs[i]) for i in order])) as results:
        for (i, job), (answer, files, machine) in results:
            path = Path(job["path"])
            for name, file in fits.files_of(path).items():
                if name in files:
                    file.write_bytes(files[name])
            if job["store"] is not None and "absent" in answer and machine == fits.machine():
                fits.keep(Path(job["store"]), job["key"], answer, path)
            yield i, answer


def _in_processes(jobs: Sequence[Job], order: Sequence[int], processes: int) -> Iterator[tuple[int, Job]]:
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for i in order:
        todo.put(i)
    back: queue.SimpleQueue[tuple[int, Job]] = queue.SimpleQueue()
    workers = [_start() for _ in range(min(processes, len(jobs)))]
    threads = [threading.Thread(target=_feed, args=(worker, jobs, todo, back), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    left = len(jobs)
    try:
        while left:
            i, answer = back.get()
            left -= "progress" not in answer
            yield i, answer
    finally:
        for worker in workers:
            worker.kill()
        for thread in threads:
            thread.join()
        for worker in workers:
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                with contextlib.suppress(OSError):  # what was still in the pipe of a killed worker
                    cast(IO[str], pipe).close()


def _start() -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    command = [sys.executable, "-c", "from research.training.models.worker import main; main()"]
    pipe = subprocess.PIPE  # an interrupt is the parent's to handle: a session of its own keeps it from the workers
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, start_new_session=True)


def _feed(worker: "subprocess.Popen[str]", jobs: Sequence[Job], todo: Any, back: Any) -> None:
    assert worker.stdin is not None
    assert worker.stdout is not None
    while True:
        try:
            i = todo.get_nowait()
        except queue.Empty:
            return
        try:
            worker.stdin.write(json.dumps(jobs[i]) + "\n")
            worker.stdin.flush()
            answer: Job = {"progress": None}
            while "progress" in answer:
                line = worker.stdout.readline()
                answer = json.loads(line) if line else {"error": f"its process ended with code {worker.wait()}, out of memory perhaps"}
                if "progress" in answer:
                    back.put((i, answer))
        except (OSError, ValueError) as error:
            answer = {"error": str(error)}
        back.put((i, answer))


def main() -> None:
    """Answer jobs until the input ends. Libraries that print would garble the answers, so their output goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(answer: Job) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    for line in sys.stdin:
        tell(answer_of(json.loads(line), tell))
