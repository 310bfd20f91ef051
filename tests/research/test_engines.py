"""Does a Ray cluster give the bits of this process, also after a worker was killed or a sweep stopped? Is its absence told?"""

import os
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

import research
from research import parallel
from research.errors import UserError
from research.evidence.ledger import Ledger
from research.parallel import RayPool, code, opened, private_folder
from research.sweep import run as run_module
from research.training.models.schedule import ModelSet
from tests.conftest import assert_same_bits, awkward_bars
from tests.support import PUBLISHED

GRID = {"governor.min_confidence": "0.50:0.80:0.01", "governor.order": "symbols,by_confidence", "arbiter.score_threshold": "0.05:0.30:0.05"}
BASE = PUBLISHED.with_values({"broker.max_holding_bars": 5, "governor.max_drawdown": 1.0})


@pytest.fixture(scope="module")
def cluster():
    """Return the address of two nodes with three workers, as a user starts them."""
    pytest.importorskip("ray", reason="ray is not installed; it is the extra `ray`")
    from ray.cluster_utils import Cluster

    small = {"include_dashboard": False, "object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **small})
    made.add_node(num_cpus=1, **small)
    yield made.address
    made.shutdown()


@pytest.fixture(scope="module")
def world():
    bars = research.load_bars("simulated:random_walk?n_bars=500&n_symbols=3&seed=4")
    return bars, research.Predictions.random(bars, seed=1)


@pytest.fixture
def parts(monkeypatch, world):
    """Cut the 372 settings into parts of 128, of which workers get 64 at a time."""
    case = run_module.Case.of(*world)
    monkeypatch.setattr(run_module, "PART_CELLS", 128 * case.cells)
    monkeypatch.setattr(run_module, "PIECE_CELLS", 64 * case.cells)


def sweep(world, out, **options):
    return research.sweep(*world, GRID, BASE, out=out, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "trials").iterdir())}


@dataclass(frozen=True)
class Hanging(run_module.Settings):
    """The work of a sweep that hangs in the part of setting 128 until its process is killed; `pid` names it then."""

    pid: Path = Path()

    def __call__(self, item):
        if item[0] == 128 and not self.pid.exists():
            self.pid.write_text(str(os.getpid()))
            time.sleep(60.0)
        return super().__call__(item)


def kill(path: Path, killed: list[int]) -> None:
    while not path.exists() or not path.read_text():
        time.sleep(0.05)
    killed.append(int(path.read_text()))
    os.kill(killed[0], signal.SIGKILL)


def test_a_sweep_on_ray_is_the_sweep_here_also_after_a_kill_and_a_stop(cluster, world, parts, tmp_path, monkeypatch):
    here = sweep(world, tmp_path / "here", record=False)
    assert [p.name for p in here.parts.values()] == ["part-000000000.parquet", "part-000000128.parquet", "part-000000256.parquet"]
    seen = []
    there = sweep(world, tmp_path / "ray", engine="ray", address=cluster, progress=lambda *report: seen.append(report))
    assert files(tmp_path / "ray") == files(tmp_path / "here")
    assert seen[0][0] == 0 < seen[1][0] <= 64 < seen[-1][0] == 372
    assert seen[-1][2].endswith("settings/s")
    assert there.tried.trials == Ledger().count() == 372  # each counts once, by the caller
    pd.testing.assert_frame_equal(there.table(), here.table())

    killed: list[int] = []
    pid = tmp_path / "pid"
    watch = threading.Thread(target=kill, args=(pid, killed))
    watch.start()
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "Settings", lambda *parts: Hanging(*parts, pid=pid))
        sweep(world, tmp_path / "killed", engine="ray", address=cluster, record=False)
    watch.join()
    assert not Path(f"/proc/{killed[0]}").exists()
    assert files(tmp_path / "killed") == files(tmp_path / "here")

    def stop(done, total, text):
        if done > 192:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(world, tmp_path / "cut", engine="ray", address=cluster, progress=stop)
    assert 0 < len(files(tmp_path / "cut")) < 3
    sweep(world, tmp_path / "cut", resume=True)  # here or there: the same sweep
    assert files(tmp_path / "cut") == files(tmp_path / "here")
    assert Ledger().count() == 372


@dataclass(frozen=True)
class Odd:
    """Work that does not go well."""

    how: str

    def __call__(self, item):
        if self.how == "refuses":
            raise UserError(f"an item must be even, was {item}")
        if self.how == "breaks":
            return 1 // 0
        os.kill(os.getpid(), signal.SIGKILL)

    def for_worker(self):
        return self


@pytest.mark.parametrize(
    ("how", "error", "sentence"),
    [
        ("refuses", UserError, "^an item must be even, was 1$"),
        ("breaks", RuntimeError, "a worker of Ray failed: ZeroDivisionError"),
        ("dies", UserError, "workers of Ray must live, one was lost for good"),
    ],
)
def test_work_that_fails_is_told(cluster, how, error, sentence, monkeypatch):
    monkeypatch.setattr(parallel, "RETRIES", 1)
    with opened("ray", cluster) as pool, pytest.raises(error, match=sentence):
        list(pool.map(Odd(how), [1]))


def test_a_worker_with_other_code_refuses(cluster, monkeypatch):
    mine = code()
    monkeypatch.setattr(parallel, "code", lambda: mine | {"research": "0123456789ab"})
    with opened("ray", cluster) as pool:
        assert isinstance(pool, RayPool)
        assert pool.n_workers == 3
        with pytest.raises(UserError, match=f"must have its caller's code, was research {mine['research']} on .* with 0123456789ab in the"):
            list(pool.map(Odd("refuses"), [1]))


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("somewhere", "--address must be host:port of a running Ray, was 'somewhere'"),
        ("ray://127.0.0.1:10001", "--address must be host:port of a running Ray, was 'ray://"),
        ("127.0.0.1:1", "Ray must answer at 127.0.0.1:1, did not: .*refused"),
        ("silent", "did not: timed out"),
        ("other", "did not: something else is there"),
    ],
)
def test_an_address_without_ray_is_told_at_once(address, sentence, monkeypatch):
    monkeypatch.setattr(parallel, "PATIENCE", 0.3)
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        line.listen()
        port = line.getsockname()[1]
        if address == "other":
            threading.Thread(target=lambda: line.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n"), daemon=True).start()
        started = time.monotonic()
        with (
            pytest.raises(UserError, match=sentence),
            opened("ray", address if address not in ("silent", "other") else f"127.0.0.1:{port}"),
        ):
            pass
        assert time.monotonic() - started < 3.0


def test_the_folder_of_ray_is_private_and_goes_also_after_a_fault(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    seen = []

    def use():
        with private_folder() as folder:
            Path(folder).mkdir(0o777)
            seen.append(Path(folder).parent)
            assert stat.S_IMODE(seen[-1].stat().st_mode) == 0o700
            raise RuntimeError("a fault")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="a fault"):
            use()
    assert seen[0] != seen[1]
    assert not any(path.exists() for path in seen)


def test_a_place_without_a_short_path_is_told(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(Path("/tmp") / ("x" * 100)))
    monkeypatch.setattr(parallel, "LONGEST", 3)
    with pytest.raises(UserError, match=r"RAY_TMPDIR must be a folder with a path of at most 3 bytes, was .*xxx"), private_folder():
        pass


def test_ray_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"pip install 'qtcore\[ray\]'"), opened("ray"):
        pass


def test_a_training_on_ray_makes_the_artefacts_of_one_here(cluster, tmp_path):
    bars = awkward_bars(600, seed=0, n_symbols=4)
    told = {"models": ("lgbm",), "n_folds": 2, "preset": "tiny"}
    here = research.train(bars, processes=1, use_store=False, profile="published", **told)
    seen = []
    there = research.train(
        bars,
        engine="ray",
        address=cluster,
        out=tmp_path / "models",
        progress=lambda *report: seen.append(report),
        profile="published",
        **told,
    )
    assert there.models.n_stored == 0
    assert [a.hash for a in there.models.artefacts] == [a.hash for a in here.models.artefacts]
    assert_same_bits(there.probs, here.probs)
    assert [report[0] for report in seen] == [0, 1, 2]
    assert ModelSet.load(tmp_path / "models").notes == ()
    again = research.train(bars, engine="ray", address=cluster, profile="published", **told)
    assert again.models.n_stored == 2  # the caller kept them
    assert_same_bits(again.probs, here.probs)


# last: they end this process's connection to the cluster of the others, and it can use none afterwards


@pytest.mark.parametrize("place", ["short", "long"])
def test_a_ray_that_is_started_here_keeps_its_files_from_others(place, monkeypatch):
    """In a folder of a new name, which nobody else may enter; it is gone afterwards, and the shared one is not touched."""
    ray = pytest.importorskip("ray", reason="ray is not installed; it is the extra `ray`")
    if ray.is_initialized():
        ray.shutdown()
    base = Path(tempfile.mkdtemp(prefix="q", dir="/tmp"))
    base = base / ("x" * 90) if place == "long" else base
    base.mkdir(exist_ok=True)
    monkeypatch.setenv("RAY_TMPDIR", str(base))
    before = sorted((Path("/tmp") / "ray").glob(f"session_*_{os.getpid()}"))  # of the cluster above
    with opened("ray") as pool:
        assert pool.n_workers > 0
        folder = Path(ray._private.worker._global_node.get_temp_dir_path())
        socket_name = ray._private.worker._global_node.plasma_store_socket_name
    assert not folder.parent.exists()
    assert folder.parent.parent == (base if place == "short" else Path("/tmp"))
    assert len(socket_name) <= 107
    assert sorted((Path("/tmp") / "ray").glob(f"session_*_{os.getpid()}")) == before


def test_a_process_that_started_a_ray_of_its_own_is_told_that_it_can_use_no_cluster(monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed; it is the extra `ray`")
    if ray.is_initialized():
        ray.shutdown()
    monkeypatch.setattr(parallel, "_BEGUN", set())
    with opened("ray") as pool:
        assert pool.n_workers > 0
    monkeypatch.setattr(parallel, "_check_answer", lambda address: None)
    with pytest.raises(UserError, match=r"--address must come before a Ray .* use a new process"):
        parallel.check_engine("ray", "127.0.0.1:1")
