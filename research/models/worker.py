"""How is one model of one fold fitted, and how do several run at once? Jobs in files, workers as plain processes, nothing pickled.

A job is a JSON object; its arrays lie in the job folder: `matrix.npy` [n, S, F] float32, `usable.npy` [n, S] bool, `labels.npy`
[K, n, S] int8 and `roles.npy` [K, n] int8. A worker is a Python process that runs `main`: jobs come as lines on its standard input,
answers go as lines to its standard output. That needs no `if __name__ == "__main__"` in the caller's script and works in notebooks,
which process pools do not. Each fit uses one thread, so the number of workers changes nothing but the time (`spec` D-90).
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from qtcore.types import I8
from research.errors import UserError
from research.models.base import ModelAbsentError, lookback_of, make_model
from research.models.windows import complete, inputs_of
from research.splits import FIT, TEST, VALID

Job = dict[str, Any]


def fit_job(job: Job) -> Job:
    """Fit, save, read back and predict the test rows: what is served later is what predicted here.

    Returns sizes, class counts, parameters, versions and `absent`: None, or why there is no model. Writes the model to `job["path"]` and
    `<path>.npz` with the test cells' flat numbers and probabilities.
    """
    folder, fold, path = Path(job["folder"]), job["fold"], Path(job["path"])
    matrix = np.load(folder / "matrix.npy", mmap_mode="r", allow_pickle=False)
    usable = np.load(folder / "usable.npy", allow_pickle=False)
    labels = np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False)[fold]
    roles = np.load(folder / "roles.npy", allow_pickle=False)[fold]
    model = make_model(job["target"], job["features"], job["preset"])
    lookback = lookback_of(model)
    usable, classes = complete(usable, lookback), labels.reshape(-1)

    def cells(role: int) -> I8:
        return np.flatnonzero(((roles == role)[:, None] & usable & (labels >= 0)).ravel())

    fit, valid, test = cells(FIT), cells(VALID), np.flatnonzero(((roles == TEST)[:, None] & usable).ravel())
    if job["max_train_rows"]:
        fit = fit[-job["max_train_rows"] :]  # cells are in order of time: the most recent ones
    answer: Job = {"slot": job["slot"], "fold": fold, "absent": None, "n_fit": len(fit), "n_valid": len(valid), "n_test": len(test)}
    answer["fit_counts"] = np.bincount(classes[fit], minlength=3).tolist()
    answer["train_counts"] = (np.bincount(classes[fit], minlength=3) + np.bincount(classes[valid], minlength=3)).tolist()
    rows = {part: inputs_of(matrix, part_cells, lookback) for part, part_cells in (("fit", fit), ("valid", valid), ("test", test))}
    try:
        model.fit(rows["fit"], classes[fit], rows["valid"], classes[valid], job["seed"])
    except ModelAbsentError as error:
        return answer | {"absent": str(error)}
    model.save(path)
    served = make_model(job["target"], job["features"], job["preset"]).load(path)
    np.savez(f"{path}.npz", cells=test, probs=served.predict_proba(rows["test"]))
    return answer | {"params": model.params(), "suffix": model.suffix, "lookback": lookback}


def answer_of(job: Job) -> Job:
    """Do a job; where it fails, answer `refused` (the disk) or `error` (anything else) with the reason."""
    try:
        return fit_job(job)
    except OSError as error:
        return {"refused": str(error)}
    except Exception as error:  # the caller raises it, in whichever process that is
        return {"error": f"{type(error).__name__}: {error}"}


def run_jobs(jobs: Sequence[Job], processes: int, done: Callable[[Job], None]) -> list[Job]:
    """Run all jobs, at most `processes` at a time, and return the answers in the order of `jobs`; `done` sees each as it comes.

    One process means this one. Raises UserError when files cannot be written, RuntimeError with the worker's own words when a fit fails.
    """
    answers: dict[int, Job] = {}
    source = ((i, answer_of(job)) for i, job in enumerate(jobs)) if processes <= 1 else _in_processes(jobs, processes)
    for i, answer in source:
        if "refused" in answer:
            raise UserError(f"training must be able to write its temporary files, was not: {answer['refused']}; free space or set TMPDIR")
        if "error" in answer:
            raise RuntimeError(f"fitting {jobs[i]['slot']} of fold {jobs[i]['fold']} failed: {answer['error']}")
        answers[i] = answer
        done(answer)
    return [answers[i] for i in range(len(jobs))]


def _in_processes(jobs: Sequence[Job], processes: int) -> Iterator[tuple[int, Job]]:
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for i in sorted(range(len(jobs)), key=lambda i: -jobs[i]["fold"]):  # later folds train longer: they start first
        todo.put(i)
    back: queue.SimpleQueue[tuple[int, Job]] = queue.SimpleQueue()
    workers = [_start() for _ in range(min(processes, len(jobs)))]
    threads = [threading.Thread(target=_feed, args=(worker, jobs, todo, back), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        for _ in jobs:
            yield back.get()
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
    command = [sys.executable, "-c", "from research.models.worker import main; main()"]
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
            line = worker.stdout.readline()
            answer = json.loads(line) if line else {"error": f"its process ended with code {worker.wait()}, out of memory perhaps"}
        except (OSError, ValueError) as error:
            answer = {"error": str(error)}
        back.put((i, answer))


def main() -> None:
    """Answer jobs until the input ends. Libraries that print would garble the answers, so their output goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(answer_of(json.loads(line))) + "\n")
        answers.flush()
