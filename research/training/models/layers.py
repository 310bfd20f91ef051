"""Layers file: the user's own models, features, opinion, trade loop and feeds in one Python file, run only where a command names it.

The names at the top of the file are those of the keywords, and any of them may be there:

    models = {"forest": Forest}                        name -> class, as `research.training.models.register` takes it
    features = [RANGE_POSITION]                        as `research.train(custom=...)`
    judge = unanimous                                  as `research.backtest(judge=...)`
    trade = qt.rebind(qt.trade, govern_step=careful)   as `research.backtest(trade=...)`
    feeds = {"mine": open_mine}                        prefix -> opener, as `research.register_feed`

The file is imported under one name, `qt_layers`, wherever it lies and whatever it is called, so that a class in it is the same class in
every process and on every machine. What was made with it is known by its hash: of its own bytes and of the files beside it that it
imports. No path in a configuration, a manifest or a model's folder is ever followed to code.
"""

import hashlib
import importlib.util
import inspect
import json
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from qtcore.own_code import said, shown
from qtcore.types import MODELS, InputError
from qtcore.voters import check_names
from research.errors import ConfigError, refusing
from research.training.models.base import OURS, model_target, register, registered, unregister

if TYPE_CHECKING:
    from qtcore.features.custom import Feature

MODULE = "qt_layers"  # what the file is imported as
PREFIX = re.compile("[a-z][a-z0-9_-]*")  # of a feed
FEEDS = ("replay", "ccxt")  # prefixes of ours, `research.live.feeds.registry`
NAMES = ("models", "features", "judge", "trade", "feeds")
LISTED = f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"
SHOWN = 12  # digits of a hash in a sentence
JUDGED = "(votes, planes, params)"


@dataclass(frozen=True)
class Layers:
    """What a file of layers holds; without a file, layers that were handed over in Python, or none at all.

    hash: of the file and of the user's other files that it imports, empty without a file; modules: what these are imported as. models:
    `module:Class` by name.
    """

    path: Path | None = None
    hash: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    features: "tuple[Feature, ...]" = ()
    judge: Callable[..., Any] | None = None
    trade: Callable[..., int] | None = None
    feeds: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    modules: frozenset[str] = frozenset()

    @property
    def about(self) -> dict[str, str] | None:
        """Name and hash of the file, as manifests, metadata and journals keep them; None without a file."""
        return None if self.path is None else {"file": self.path.name, "hash": self.hash}

    @property
    def chain(self) -> dict[str, Any]:
        """What an `Engine` takes in the place of its own layers, by keyword."""
        return {name: layer for name, layer in (("judge", self.judge), ("trade", self.trade)) if layer is not None}

    @property
    def engine(self) -> dict[str, Any]:
        """What an `Engine` takes of them where votes are stored, by keyword: of the features, which models read too, those of a judge."""
        return self.chain | ({"custom": self.features} if self.features and self.judge is not None else {})

    @property
    def decides(self) -> bool:
        """Whether something of them takes part in decisions."""
        return bool(self.chain or self.features or self.models)

    def holds(self, target: str) -> bool:
        """Whether a class, `module:Class`, is of the file or of one that came with it."""
        return target.partition(":")[0] in self.modules

    def needed_by(self, target: str, features: Collection[str]) -> bool:
        """Whether a model's class or one of the features it reads is of these."""
        return self.holds(target) or any(feature.name in features for feature in self.features)


NONE = Layers()
_IN_USE: list[Layers] = []  # at most one
_BEFORE: dict[str, str | None] = {}  # what the names of its models meant without it
_PLACES: list[str] = []  # its folder, where Python looks for the files beside it
_CAME: dict[str, str] = {}  # modules beside it that its import brought, by hash


def in_use() -> Layers:
    """Return the layers of the file that this process was told to run, empty ones without."""
    return _IN_USE[-1] if _IN_USE else NONE


def given(**chain: Any) -> Layers:
    """Return layers that were handed over in Python: those of the file in use where they are its own, so that its hash goes with them."""
    used = {name: layer for name, layer in chain.items() if layer is not None and layer != ()}
    mine = in_use()
    if used and all(getattr(mine, name) is layer for name, layer in used.items()):
        return replace(mine, judge=used.get("judge"), trade=used.get("trade"), features=used.get("features", ()))
    return Layers(**used)


def at_hand(own: Layers) -> Layers:
    """Return what there is to prove a run with: its own layers, and of the file in use, where that made them, the features and models."""
    mine = in_use()
    is_its_file = mine.path is not None and own.about in (None, mine.about)
    return replace(mine, judge=own.judge, trade=own.trade) if is_its_file else own


def load_layers(path: str | Path, classes: Mapping[str, str] | None = None) -> Layers:
    """Run a file of layers, register its models, and return what it holds; it stays in use until another is asked for.

    classes: further models by name, each a class at the top of the file (the table `[models]` of a configuration). Raises ConfigError in
    one sentence where the file cannot be read or run, holds none of the names, or one of another type; then no file is in use.
    """
    _forget()
    file = _file_of(path)
    try:
        made = _read(_run(file), file, classes or {})
        for name, target in made.models.items():
            _BEFORE[name] = model_target(name) if name in registered() else None
            register(name, target)
    except BaseException:
        _forget()
        raise
    _IN_USE.append(made)
    return made


@contextmanager
def using(path: str | Path | None, classes: Mapping[str, str] | None = None) -> Iterator[Layers]:
    """Hold a file of layers in use for some time; None for no file, and then `classes` must be empty."""
    if path is None:
        if classes:
            name, value = next(iter(classes.items()))
            raise ConfigError(
                f"[models] must name classes of a file of layers, was {name} = {value!r} without one; name the file with --layers"
            )
        yield NONE
        return
    try:
        yield load_layers(path, classes)
    finally:
        _forget()


def hold(about: Mapping[str, str]) -> None:
    """Load the file that a caller was told of, in a process of his. about: its `path`, and what it must be, as `Layers.about`."""
    if in_use().hash != about["hash"]:
        load_layers(about["path"])
    check_layers(about, "this process")


def check_layers(about: Mapping[str, Any] | None, what: str) -> None:
    """Raise ConfigError unless the file in use is the one that something was made with. about: `Layers.about` of then, None for no file."""
    if about is None:
        return
    mine, known = in_use(), f"{about['file']} ({about['hash'][:SHOWN]})"
    if mine.path is None:
        raise ConfigError(f"{what} must have the file of layers that made it, {known}, was without; name the file with --layers")
    if mine.hash != about["hash"]:
        was = f"{mine.path.name} ({mine.hash[:SHOWN]})"
        raise ConfigError(f"{what} must have the file of layers that made it, {known}, was given {was}; give that one, or make it again")


def check_known(names: Collection[str]) -> None:
    """Raise ConfigError on a model that nobody registered while a file of layers is in use: it does not hold what it was named for."""
    mine, unknown = in_use(), [name for name in names if name not in registered()]
    if mine.path is not None and unknown:
        held = f"the models {', '.join(mine.models)}" if mine.models else "no models"
        rule = f"run.models must be of {', '.join(registered())}, was {unknown[0]!r}, and {mine.path.name} holds {held} at its top"
        raise ConfigError(f"{rule} (it may hold {LISTED}); add it there")


def adopt(name: str, target: str) -> None:
    """Register a model under the name that it was trained under, where a configuration named it then: a class of the file in use."""
    module, _, made_by = target.partition(":")
    if name not in registered() and in_use().holds(target) and isinstance(getattr(sys.modules.get(module), made_by, None), type):
        register(name, target)
        _BEFORE[name] = None


def _forget() -> None:
    """Take the file in use away: what it named, its module and those that came with it."""
    for name, before in _BEFORE.items():
        unregister(name, before)
    for name in {MODULE, *_CAME, *in_use().modules}:
        parts = name.split(".")
        for n in range(len(parts)):  # a package holds what was imported from it, also one without a file
            sys.modules.pop(".".join(parts[: n + 1]), None)
    for place in _PLACES:
        sys.path.remove(place)
    for known in (_IN_USE, _BEFORE, _PLACES, _CAME):
        known.clear()


def _file_of(told: Any) -> Path:
    """Return the whole path of a Python file that is there."""
    was = shown(told)
    if isinstance(told, str | Path) and str(told):
        was = str(told)
        try:
            file = Path(told).resolve()
            if file.is_file() and file.suffix == ".py":
                return file
            was += " (a folder)" if file.is_dir() else " (no .py file)" if file.exists() else " (not found)"
        except (OSError, RuntimeError, ValueError) as error:  # a link to itself, a name that no file can have
            why = error.strerror if isinstance(error, OSError) else str(error)
            was = f"{was:.60} ({why})"
    raise ConfigError(f"--layers must be a Python file, was {was}; see docs/extending.md")


def _run(file: Path) -> ModuleType:
    """Import the file as `MODULE`, of the very bytes that are hashed. Its folder is searched last: nothing installed is hidden by it."""
    from research.training.models.imports import brought

    spec = importlib.util.spec_from_file_location(MODULE, file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
        _PLACES.append(str(file.parent))
    sys.modules[MODULE] = module
    known, writes = set(sys.modules), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a helper that is changed within the same second would be taken from its old bytecode
    importlib.invalidate_caches()
    try:
        with redirect_stdout(sys.stderr):  # what a command prints may be read by a program
            exec(_compiled(file), module.__dict__)
    except (KeyboardInterrupt, ConfigError):
        raise
    except SyntaxError as error:
        raise _mistaken(error, file) from error
    except BaseException as error:  # a stranger's code: whatever it raises is told
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == file.parent]
        where = "" if not frames else f" in line {frames[-1].lineno} of {Path(frames[-1].filename).name}"
        kind, colon, text = said(error).partition(": ")
        raise ConfigError(f"--layers must run to its end, was {file}, which raised {kind}{where}{colon}{text}; correct it") from error
    finally:
        sys.dont_write_bytecode = writes
        _CAME.update(brought(known, file.parent))
    return module


def _compiled(file: Path) -> CodeType:
    try:
        return compile(file.read_bytes(), str(file), "exec")
    except SyntaxError as error:
        raise _mistaken(error, file) from error
    except (OSError, ValueError) as error:  # no right to read it; bytes that are no source
        raise ConfigError(f"--layers must be Python, was {file}: {said(error)}; correct it") from error


def _mistaken(error: SyntaxError, file: Path) -> ConfigError:
    """Say where Python could not read the file or a helper of it; of some mistakes it knows no line."""
    name = Path(error.filename or file).name
    where = f"line {error.lineno} of {name}" if error.lineno else name
    return ConfigError(f"--layers must be Python, was {file} with a mistake in {where}: {error.msg}; correct it")


def _read(module: ModuleType, file: Path, classes: Mapping[str, str]) -> Layers:
    """Check what stands at the top of the file."""
    from qtcore.features.custom import own_features
    from research.training.models.imports import hidden_by, sources_of

    if place := hidden_by(MODULE, file.parent):
        raise ConfigError(
            f"a file beside {file.name} must have a name that nothing installed has, was {place[0]}, found in {place[1]}; rename it"
        )
    found = {name: vars(module)[name] for name in NAMES if name in vars(module)}
    models = _models(found.get("models", {}), module, classes, file)
    sources = sources_of(MODULE)
    for name in sorted(_CAME):  # what no import in the source names
        sources = {name: _CAME[name]} | sources_of(name) | sources
    if not found and not any(isinstance(value, type) and value.__module__ in sources for value in vars(module).values()):
        raise ConfigError(f"--layers must be a file with {LISTED} at its top, was {file.name} with none; add one")
    try:
        features = own_features(found.get("features", ()))
    except InputError as error:
        raise ConfigError(f"features of {file.name}: {error}".replace("custom", "features")) from error
    judge, trade = found.get("judge"), found.get("trade")
    if judge is not None and not callable(judge):
        raise ConfigError(f"judge of {file.name} must be a function {JUDGED}, was {shown(judge)}")
    if trade is not None and not callable(trade):
        raise ConfigError(f"trade of {file.name} must be a trade loop such as qt.rebind(qt.trade, govern_step=mine), was {shown(trade)}")
    feeds = _feeds(found.get("feeds", {}), file)
    parts = {("" if name == MODULE else name): value for name, value in sources.items()}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return Layers(file, digest, models, features, judge, trade, feeds, frozenset(sources))


def _models(told: Any, module: ModuleType, classes: Mapping[str, str], file: Path) -> dict[str, str]:
    """Name the class of every model, `module:Class`; those of the configuration are looked up at the top of the file."""
    if not isinstance(told, Mapping):
        raise ConfigError(f'models of {file.name} must be names with a class each, was {shown(told)}; write models = {{"forest": Forest}}')
    wanted: dict[str, Any] = dict(told)
    for name, text in classes.items():
        if not isinstance(text, str) or not isinstance(getattr(module, text, None), type):
            known = ", ".join(sorted(k for k, v in vars(module).items() if isinstance(v, type))) or "none"
            raise ConfigError(f"[models] {name} must be a class at the top of {file.name} ({known}), was {text!r}")
        wanted[name] = getattr(module, text)
    if ours := [name for name in wanted if name in (*MODELS, *OURS)]:
        raise ConfigError(f"models of {file.name} must have names of their own, was {ours[0]!r}, a model of ours; choose another name")
    out = {}
    for name, made_by in wanted.items():
        if not isinstance(made_by, type):
            remedy = 'give the class itself, such as models = {"forest": Forest}'
            raise ConfigError(f"models of {file.name} must be classes, was {name} = {shown(made_by)}; {remedy}")
        title = made_by.__qualname__
        if getattr(sys.modules.get(made_by.__module__), title, None) is not made_by:
            raise ConfigError(f"models of {file.name} must be classes at the top of a file, was {name} = {title}; move it there")
        out[name] = f"{made_by.__module__}:{title}"
    with refusing(ConfigError):
        check_names(out)
    return out


def _feeds(told: Any, file: Path) -> dict[str, Callable[..., Any]]:
    """Check the feeds: prefixes that are words and none of ours, each with a function that takes a name."""
    if not isinstance(told, Mapping) or not all(isinstance(name, str) and callable(opener) for name, opener in told.items()):
        raise ConfigError(
            f'feeds of {file.name} must be prefixes with a function each, was {shown(told)}; write feeds = {{"mine": open_mine}}'
        )
    for prefix, opener in told.items():
        if not PREFIX.fullmatch(prefix) or prefix in FEEDS:
            was = f"{prefix!r}" + (", a feed of ours" if prefix in FEEDS else "")
            rule = f"prefix in feeds of {file.name} must be a new word of small letters, digits, - and _"
            raise ConfigError(f"{rule}, was {was}; choose another")
        try:
            inspect.signature(opener).bind("name")
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"feeds of {file.name} must be functions that take a name and flags, was {prefix} = {shown(opener)}; "
                "write def open_mine(name, symbols=None)"
            ) from error
    return dict(told)
