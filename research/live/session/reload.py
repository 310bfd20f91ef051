"""Model reload: promoted models trade from the next bar on, if they are fit to; what trades now goes on until then, or for good.

`qt live --models NAME` serves the registry's current version of NAME and looks at its pointer before every bar. Another version (promoted,
or rolled back to) is loaded beside the running one, in a thread of its own where bars cannot wait, and takes over between two bars, the
first at which all of it is valid: positions, orders, features and the rows that windows see stay as they are. The journal keeps a row of
`versions` and an event `reload`. A version that `qt live` would refuse at its start, or that does not fit the running account, is refused
once, with an event `reload_refused`.

A journal says which version each bar was decided with. A restart begins with the last of them, whatever the pointer says, so that the bars
behind the last snapshot come out again bit for bit; only then it looks at the pointer.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtcore import Engine
from qtcore.features import FEATURES
from qtcore.meta import MetaSource
from research.errors import UserError
from research.live.journal.journal import Entry
from research.live.journal.reading import Reading
from research.live.records import Event
from research.live.session.runner import Runner, check_rows
from research.live.storage.cells import parsed, rows_of
from research.live.storage.files import guarded
from research.training.meta.schedule import MetaSchedule
from research.training.registry import NAME, find, pointer, resolve

SOURCE, META_SOURCE = "source", "meta_source"  # where the models of a version come from, beside their hashes
LAYERS = "layers"  # name and hash of the file of own layers that a version was decided with

Loaded = tuple[Any, MetaSchedule | None, Mapping[str, Any]]  # base models, meta layer, what the journal says of them


@dataclass
class Reload:
    """Serve what is promoted under `name`.

    version: what is served now. load: reads `NAME@VERSION`, raises UserError where it may not trade. waits: load before the bar rather than
    beside it, for replays, whose bars wait.
    """

    name: str
    version: int
    load: Callable[[str], Loaded]
    waits: bool = False
    _seen: tuple[int, int] | None = None
    _work: "tuple[int, Future[Loaded]] | None" = None
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "reload"))

    def before(self, runner: Runner, bar: int, now: int) -> Iterator[Event]:
        """Serve the version that the pointer means once it is loaded and valid."""
        try:
            self._look()
            if self._work is not None and (self.waits or self._work[1].done()):
                version, work = self._work
                models, meta, about = work.result()
                if all(any(a.slot == slot and a.valid_from <= now < a.valid_until for a in models.artefacts) for slot in models.slots):
                    self._work = None
                    check_fits(runner.engine, models, meta)
                    text = f"{self.name}@{self.version} -> {self.name}@{version}"
                    runner.serve(bar, models, meta, about, f"{text}: {_said(models, meta)} from this bar on")
                    self.version = version
        except UserError as error:
            self._work = None
            yield Event(now, "reload_refused", f"{self.name}@{self.version} goes on: {error}")

    def after(self, runner: Runner, entry: Entry) -> Iterable[Event]:
        """Do nothing."""
        return ()

    def close(self) -> None:
        """Let the thread go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> None:
        """Begin to load what the pointer means where it moved since the last look."""
        path = pointer(self.name)
        stat = path.stat() if path.exists() else None
        seen = None if stat is None else (stat.st_mtime_ns, stat.st_ino)
        if seen != self._seen:
            self._seen, self._work = seen, None
            if (version := find(self.name).version) != self.version:
                self._work = version, self._pool.submit(self.load, f"{self.name}@{version}")


def _said(models: Any, meta: MetaSource | None) -> str:
    return f"{', '.join(models.slots)} and {'a' if meta is not None else 'no'} meta layer"


def check_fits(engine: Engine, models: Any, meta: MetaSource | None) -> None:
    """Raise UserError unless models can take over a running engine."""
    params, running = engine.params, engine.models
    models.check_params(params)
    check_rows(models, engine.state)
    assert running is not None
    if models.feature_names != running.feature_names:
        raise UserError("models must take the features of those that are served, was others; start a new --journal with them")
    if models.names != engine.voters:
        raise UserError(
            f"models must be of the voters {', '.join(engine.voters)}, was {', '.join(models.names)}; start a new --journal with them"
        )
    if models.horizon != running.horizon and params.broker.max_holding_bars == running.horizon:
        raise UserError(
            f"the label must look {running.horizon} bars ahead, as long as positions are held, was {models.horizon}; start a new --journal"
        )
    if models.later != getattr(running, "later", ()):
        spoken = [f"of {several_text(each)}" for each in (getattr(running, "later", ()), models.later)]
        raise UserError(f"models must speak of the horizons of those that are served, {spoken[0]}, was {spoken[1]}; start a new --journal")
    if _asked(meta) != _asked(engine.meta_model):
        raise UserError("the meta layer must read the features that are carried, was with others; start a new --journal with it")


def _asked(meta: MetaSource | None) -> tuple[str, ...]:
    """Features that are made for a meta layer's rows."""
    return () if meta is None else tuple(name for name in meta.feature_names if name in FEATURES)


def split_name(models: str) -> str | None:
    """Return the registry's name when `models` means its current version, None for a folder or `NAME@VERSION`."""
    return models if NAME.fullmatch(models) and not Path(models).is_dir() else None


def last_source(journal: Path) -> str | None:
    """Return where the models of a journal's newest version came from; None in a new journal or where it does not say."""
    if not journal.exists() or journal.stat().st_size == 0:
        return None
    with guarded(journal), closing(Reading(journal)) as reading:
        try:
            found = rows_of(reading.db.execute("SELECT models FROM versions ORDER BY id DESC LIMIT 1"))
        except sqlite3.OperationalError:
            return None  # not a journal, or one without a bar; opening it says more
        source = parsed(found[0][0], dict, "models").get(SOURCE) if found else None
    return source if isinstance(source, str) else None


def meta_of(about: Mapping[str, Any], served: MetaSchedule | None) -> MetaSchedule | None:
    """Return the meta layer that a version of the journal says. served: the one at hand.

    Raises UserError where it is gone or another.
    """
    wanted = about.get("meta")
    if wanted is None or (served is not None and served.hash == wanted):
        return None if wanted is None else served
    source = about.get(META_SOURCE) or about.get(SOURCE)
    try:
        found = MetaSchedule.load(about[META_SOURCE] if META_SOURCE in about else resolve(str(source)) / "meta")
    except UserError as error:
        raise UserError(
            f"journal must find the meta layer that decided its last bars, was without: {error}; name its folder with --meta"
        ) from error
    if found.hash != wanted:
        raise UserError(f"the meta layer of {source} must be the one that decided the journal's last bars, was another; put that one back")
    return found


def several_text(later: tuple[int, ...]) -> str:
    """Say which horizons models speak of beside the first."""
    return f"the first and {', '.join(map(str, later))} bars" if later else "the first alone"
