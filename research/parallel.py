"""Worker pools for sweeps and trainings: this process, or the workers of a Ray cluster; the results are the same bits.

A pool maps work over items and hands each result back when it is done. `Here` does one item after the other; `RayPool` keeps one worker a
processor, started with what all items share: that is put into Ray's object store once, and read from there by every worker. Arrays in
that store are read-only, and kernels would be compiled a second time for them, so `Work.for_worker` makes a worker's own copy, once.

A worker that dies is started again, and its item given to it again, by Ray, up to RETRIES times. Items change nothing outside their
result, so a second try is harmless; ledger, files and store are written by the caller alone. Ray itself is not started again: where its
head is gone, the work ends with one sentence within seconds, and finished items are kept.

Ray is started here for the time of the work, or found at an address (`ray start --head`). A worker refuses to work unless its sources and
libraries are those of the caller: the same code or no run. On other machines qtcore must therefore be installed beside Ray. Nothing is
sent to anybody: no dashboard, no usage statistics.
"""

import copy
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, islice
from typing import Any, Protocol

from qtcore.jit import source_hash, use_threads
from qtcore.types import InputError
from research.errors import ConfigError, UserError, need

Results = Generator[tuple[Any, Any], None, None]
ENGINES = ("local", "ray")
LIBRARIES = ("numpy", "scipy", "xgboost", "lightgbm", "torch", "safetensors")
RETRIES = 3  # deaths that one worker is forgiven
PATIENCE, TRUST = 3.0, 20.0  # seconds for an address to answer: one that is new to us, one that has answered before
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"  # of a client of HTTP/2, which Ray speaks: preface, settings (4)
LONGEST = 107 - len("/qt_ray_12345678/r/session_2026-11-30_00-00-00_000000_4194304/sockets/plasma_store")  # bytes; 107 has a socket
_BEGUN: set[int] = set()  # processes that have started a Ray of their own
QUIET = {  # read by Ray when it is imported or started
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "3",  # seconds until a refused connection is given up, 20 otherwise
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what goes wrong is told in one sentence, see `_hushed`
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # an accelerator stays as visible to workers as it is here
}


class Work(Protocol):
    """What is done with each item."""

    def __call__(self, item: Any, /) -> Any:
        """Return the result of one item; nothing else may change."""
        ...

    def for_worker(self) -> Callable[[Any], Any]:
        """Make ready in another process, where all arrays are read-only."""
        ...


class Pool(Protocol):
    """Workers."""

    @property
    def n_workers(self) -> int:
        """Items that are done at a time."""
        ...

    def map(self, work: Work, items: Iterable[Any], waiting: int = 0) -> Results:
        """Do all items, begun in order; yield each with its result when it is done. Close it to stop early.

        waiting: items that each worker is given beside the one in hand, so that it need not wait for the next.
        """
        ...


class Here:
    """The process itself: one item after the other, kernels on all threads."""

    n_workers = 1

    def map(self, work: Work, items: Iterable[Any], waiting: int = 0) -> Results:
        """Do all items in order."""
        for item in items:
            yield item, work(item)


class RayPool:
    """Workers of the Ray that this process is connected to; they are started when there is work for them, and last until `close`."""

    def __init__(self, n_workers: int, address: str) -> None:
        self.n_workers, self.address = n_workers, address
        self._workers: list[Any] = []

    def map(self, work: Work, items: Iterable[Any], waiting: int = 0) -> Results:
        """Do all items. Raises UserError when a worker has other code, when one or Ray is lost for good, or when the work does."""
        import ray

        remote: Any = ray.remote(num_cpus=1, max_restarts=RETRIES, max_task_retries=RETRIES)(Worker)
        shared, rest = [ray.put(work)], iter(items)
        first = list(islice(rest, self.n_workers))
        self._workers += [remote.remote(code()) for _ in first[len(self._workers) :]]
        todo = chain(first, rest)
        doing: dict[Any, tuple[Any, Any]] = {worker.check.remote(): (worker, None) for worker, _ in zip(self._workers, first)}
        while doing:
            ready = ray.wait(list(doing), timeout=PATIENCE)[0]
            if not ready:
                _check_stays(self.address)
                continue
            worker, item = doing.pop(ready[0])
            result = _result(ray, ready[0], self.address)
            for following in islice(todo, 1 if item is not None else 1 + waiting):
                doing[worker.do.remote(following, shared)] = (worker, following)
            if item is not None:
                yield item, result

    def close(self) -> None:
        """End the workers, in the middle of their items too."""
        import ray

        for worker in self._workers:
            ray.kill(worker)
        self._workers.clear()


class Worker:
    """One process of a cluster, on one thread. wanted: the caller's `code`."""

    def __init__(self, wanted: dict[str, str]) -> None:
        mine, here = code(), socket.gethostname()
        different = [name for name in wanted if mine.get(name) != wanted[name]]
        self.others = [f"{name} {mine.get(name, 'none')} on {here} with {wanted[name]}" for name in different]
        self.held: tuple[Any, Callable[[Any], Any]] | None = None
        use_threads(1)

    def check(self) -> None:
        """Raise UserError where the caller has other code."""
        if self.others:
            raise UserError(f"every worker of Ray must have its caller's code, was {self.others[0]} in the caller; install the same there")

    def do(self, item: Any, shared: list[Any]) -> Any:
        """Return the result of one item. shared: a reference to the work, in a list so that Ray does not read it for every item."""
        import ray

        self.check()
        if self.held is None or self.held[0] != shared[0]:
            self.held = shared[0], ray.get(shared[0]).for_worker()
        return self.held[1](item)


@contextmanager
def opened(engine: str, address: str | None = None) -> Iterator[Pool]:
    """Open the workers of `engine`, one of ENGINES, for the time of a with block.

    address: `host:port` of a running Ray; None for RAY_ADDRESS, the Ray that this process is connected to, or one that is started here.
    Raises UserError where the engine is unknown, not installed or does not answer.
    """
    check_engine(engine, address)
    if engine == "local":
        yield Here()
        return
    with ExitStack() as open_:
        ray, is_ours = _connect(address, lambda: open_.enter_context(private_folder()))
        pool = RayPool(int(ray.cluster_resources().get("CPU", 0)), ray.get_runtime_context().gcs_address)
        open_.callback(ray.shutdown if is_ours else pool.close)  # with all that this process has running there
        if pool.n_workers < 1:
            raise ConfigError("--engine ray needs a cluster with a processor, was one without; add a node with ray start --address")
        yield pool


@contextmanager
def private_folder() -> Iterator[str]:
    """Make the folder of a Ray that is started here, which nobody else can enter or have put there before, and take it away again.

    It lies in RAY_TMPDIR, or where temporary files lie, or in /tmp where those paths are too long for the sockets that Ray puts there.
    Raises UserError where no place is short enough.
    """
    places = dict.fromkeys((os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "/tmp"))
    place = next((each for each in places if len(os.fsencode(os.path.abspath(each))) <= LONGEST and os.path.isdir(each)), None)
    if place is None:
        raise UserError(f"RAY_TMPDIR must be a folder with a path of at most {LONGEST} bytes, was {next(iter(places))}; name a shorter one")
    folder = tempfile.mkdtemp(prefix="qt_ray_", dir=os.path.abspath(place))
    try:
        yield os.path.join(folder, "r")  # Ray lets everybody into the folder it is given, but not into this one
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what still writes there ends with Ray


def check_engine(engine: str, address: str | None = None) -> None:
    """Raise UserError where `opened` would, as far as that is known without waiting: before hours of other work, say."""
    if engine not in ENGINES:
        raise ConfigError(f"--engine must be one of {', '.join(ENGINES)}, was {engine!r}")
    if engine == "local":
        if address is not None:
            raise ConfigError(f"--address must come with --engine ray, was {address!r} without; leave it out")
        return
    if address := address or os.environ.get("RAY_ADDRESS"):
        _check_answer(address)
        if os.getpid() in _BEGUN:  # Ray cancels the work of other clusters in such a process
            raise ConfigError(
                f"--address must come before a Ray that a process starts for itself, was {address} after it; use a new process"
            )
    need("ray", "--engine ray")


def code() -> dict[str, str]:
    """Name everything that moves bits: sources and libraries."""
    packages = {name: source_hash(name) for name in ("qtcore", "research")}
    return packages | versions() | {name: version(name) for name in ("numba", "pandas")}


def versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Versions of libraries, those that fit and store models unless told others; what is not installed is left out."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def n_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _connect(address: str | None, folder: Callable[[], str]) -> tuple[Any, bool]:
    """Connect to Ray, or start it with its files in `folder()`; return the library, and whether the connection is ours to end."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    address = address or os.environ.get("RAY_ADDRESS")
    with _hushed():
        import ray
    if ray.is_initialized():
        known = ray.get_runtime_context().gcs_address
        if address is not None and known.rpartition(":")[2] != address.rpartition(":")[2]:
            raise ConfigError(f"--address must be {known}, to which this process is connected already, was {address}; leave it out")
        return ray, False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    one_thread = {"OMP_NUM_THREADS": "1"}
    try:
        with _hushed():
            if address is None:
                paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
                environment = {"env_vars": one_thread | {"PYTHONPATH": paths}}
                quiet |= {"_temp_dir": folder(), "include_dashboard": False}
                ray.init(address="local", num_cpus=n_processors(), runtime_env=environment, **quiet)
                _BEGUN.add(os.getpid())
            else:
                ray.init(address=address, runtime_env={"env_vars": one_thread}, **quiet)
    except (RuntimeError, OSError, ValueError, ray.exceptions.RayError) as error:
        where = "on this machine" if address is None else f"at {address}"
        said = " ".join(str(error).split())[:200]
        remedy = "run the same Ray on both sides; where `ray start` spoke of a token set RAY_AUTH_MODE=token, elsewhere RAY_AUTH_TOKEN too"
        raise UserError(f"Ray {where} must let this process in, did not ({said}); {remedy}") from error
    return ray, True


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep off the terminal what Ray writes to descriptor 2 before it knows its level: that it was set, and each try without a token."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_answer(address: str) -> None:
    """Raise UserError unless something at `address` speaks as Ray does: Ray itself would end this process after a minute."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise ConfigError(f"--address must be host:port of a running Ray, was {address!r}; leave it out to start one here")
    if reason := _silence(address, PATIENCE):
        raise UserError(f"Ray must answer at {address}, did not: {reason}; start it there with `ray start --head`, or leave --address out")


def _check_stays(address: str) -> None:
    """Raise UserError where the Ray that works for us is gone."""
    if reason := _silence(address, TRUST):
        raise UserError(f"Ray at {address} must stay until the work is done, was gone ({reason}); start it again, what is done is kept")


def _silence(address: str, patience: float) -> str:
    """Say why nothing at `host:port` speaks as Ray does; nothing where it does."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), patience) as line:
            line.settimeout(patience)
            line.sendall(HELLO)
            said = line.recv(9)
    except (OSError, OverflowError) as error:
        return str(error) or type(error).__name__
    return "" if os.environ.get("RAY_USE_TLS", "0") != "0" or said[3:4] == b"\4" else "something else is there"


def _result(ray: Any, ref: Any, address: str) -> Any:
    """Fetch a result into memory of our own. Raises UserError for the work's own, and when a worker or Ray is lost."""
    try:
        return copy.deepcopy(ray.get(ref))
    except InputError as error:
        cause = error.cause  # type: ignore[attr-defined]
        raise cause if isinstance(cause, UserError) else UserError(str(cause)) from None
    except ray.exceptions.RayTaskError as error:
        raise RuntimeError(f"a worker of Ray failed: {error.cause!r}") from error
    except ray.exceptions.RayError as error:
        _check_stays(address)
        said = " ".join(str(error).split())
        raise UserError(f"workers of Ray must live, one was lost for good: {said[-300:]}") from error
