"""Session start: what must be there before the first bar. Feed, models or predictions, journal, broker and controls, as asked."""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qtcore import Bars, Params, __version__
from qtcore.choices import DecideRule, MetaMode
from qtcore.meta import check_voters
from qtcore.reading import unread
from research.data.clock import iso
from research.errors import ConfigError, ModelError, UserError, refusing
from research.evidence.envelope import FILE as ENVELOPE
from research.live.broker.paper import PaperBroker
from research.live.feeds.feeds import REMEMBERED, Arrival, ReplayFeed, replays
from research.live.feeds.registry import feed_code, open_feed
from research.live.journal.journal import Entry, Journal
from research.live.monitoring.alerts import Alerts
from research.live.monitoring.bar_log import LogFile
from research.live.monitoring.self_checks import EVERY, REPLAY_EVERY, SelfChecks
from research.live.monitoring.status_source import ALLOWED
from research.live.records import Event
from research.live.session.controls import Controls, kill_file_of, parse_stages
from research.live.session.fast_start import import_lean
from research.live.session.governor_file import read_governor, take_over
from research.live.session.reload import LAYERS, META_SOURCE, SOURCE, Reload, last_source, meta_of, split_name
from research.live.session.runner import CHECKPOINT_BARS, SNAPSHOT_BARS, Options, Runner
from research.live.storage.codec import LATER, MAPS
from research.live.storage.files import lock_of
from research.live.storage.place import Made, check_apart, resolved
from research.runs.config import Config
from research.training.knowledge import COLUMN
from research.training.labels import Label, held_for
from research.training.maps import MapSchedule, check_priced
from research.training.meta.schedule import MetaSchedule
from research.training.models.layers import NONE, SHOWN, Layers
from research.training.models.schedule import ModelSet
from research.training.predictions import Predictions
from research.training.registry import find
from research.training.weights import settled, silent
from research.verify.own import sentences, try_layer

META_REMEDY = "serve one with --meta RUN/models/meta, or leave the layer out with --set meta.enabled=false"
ROUNDING = 1e-9  # by which a confidence may differ that was written as text in between

Served = tuple[Predictions | None, Any, MetaSchedule | None, Mapping[str, Any]]  # predictions, models, meta layer, their versions


@dataclass(frozen=True)
class LiveOptions:
    """What the user asked for; flags of `qt live`. how: flags of loading; exchange: timeframe and poll of a live feed.

    is_alone: the process does nothing else, so libraries may leave out what only others need (`lean`). layers: of the file that was named.
    """

    feed: str | None
    journal: Path | None
    config: Config = Config()
    predictions: Path | None = None
    models: str | None = None
    meta: Path | None = None
    allow_rejected: bool = False
    allow_synthetic: bool = False
    speed: str = "max"
    live_from: str | None = None
    stages: str | None = None
    import_governor: Path | None = None
    log: Path | None = None
    log_json: bool = False
    budget_ms: float = 250.0
    alert: str | None = None
    how: Mapping[str, Any] = field(default_factory=dict)
    exchange: Mapping[str, Any] = field(default_factory=dict)
    is_alone: bool = False
    layers: Layers = NONE

    @property
    def may_advise(self) -> bool:
        """Whether a model without skill may be served: where an opinion trades by its edge, and one without an edge does not."""
        return self.config.params.decide.rule == DecideRule.EDGE


def start_live(wish: LiveOptions, progress: Any = None) -> tuple[Runner, Callable[[], None]]:
    """Put a runner together; returns it and what closes its files. Raises UserError naming what is missing or wrong."""
    if wish.feed is None or wish.journal is None:
        given = {"--feed": wish.feed, "--journal": wish.journal}
        lacks = " and ".join(flag for flag, value in given.items() if value is None)
        raise UserError(f"qt live must have --feed and --journal, was without {lacks}; see `qt live --help`")
    if wish.predictions is not None and wish.models is not None:
        raise ConfigError("--predictions and --models exclude each other, both were given; leave one out")
    params, text = wish.config.params, wish.feed
    if wish.stages is not None:
        params = params.with_values({"stages": parse_stages(wish.stages)})
    journal = resolved(wish.journal)
    exchange = {**wish.exchange, "patience": math.inf} if journal.exists() else wish.exchange  # what runs for weeks waits for it
    wish = replace(wish, journal=journal)
    check_files(wish)
    with ExitStack() as open_:  # closes what was opened where the start is refused
        feed = open_feed(text, wish.speed, wish.live_from, exchange, **wish.how)
        open_.callback(_close, feed, text)
        params, served = served_by(wish, params, feed)
        runner = assemble(wish, params, feed, served, open_)
        runner.feed_code = partial(feed_code, text)
        if progress is not None and isinstance(feed, ReplayFeed):
            total = feed.bars.n
            runner.watchers = (*runner.watchers, lambda entry: progress(entry.bar + 1, total, "bars"))
        return runner, open_.pop_all().close


def _close(feed: Any, text: str) -> None:
    with feed_code(text):
        feed.close()


def check_files(wish: LiveOptions) -> None:
    """Raise UserError where the log would be written into a file that is something else."""
    assert wish.journal is not None
    if wish.log is None:
        if wish.log_json:
            raise ConfigError("--log-json must come with --log, was without; name the file of the lines with --log")
        return
    replayed = (wish.feed or "").removeprefix("replay:")
    parts = {"the journal": wish.journal, "the paper account": paper_of(wish.journal), "the lock": lock_of(wish.journal)}
    parts |= {"the journal's log": Path(f"{wish.journal}-wal"), "the kill switch": kill_file_of(wish.journal)}
    check_apart("--log", wish.log, {**parts, "the candles": replayed, "the predictions": wish.predictions})


def paper_of(journal: Path) -> Path:
    """Name the file of a journal's paper account."""
    return journal.with_name(f"{journal.name}.paper")


def served_by(wish: LiveOptions, params: Params, feed: Any) -> tuple[Params, Served]:
    """Find who votes: stored predictions, or models with their meta layer. Returns the parameters with the horizon of their labels too."""
    assert wish.journal is not None
    predictions, models = None, None
    about: dict[str, Any] = {}
    if wish.predictions is not None:
        from research.runs.backtest import priced, resolved

        if not isinstance(feed, ReplayFeed):
            raise ConfigError(f"--predictions must go with replay:FILE, was given with {wish.feed!r}; use --models")
        read: dict[str, Any] = {"label": str(wish.config.run.label), "knows_until": wish.config.run.knows_until}
        predictions = Predictions.import_file(wish.predictions, feed.bars, **read, time_zone=wish.how.get("time_zone"))
        feed.notes += predictions.notes
        params = resolved(params, predictions)
        meta = load_meta(wish, params, predictions.names)
        predictions = priced(feed.bars, predictions, params, wish.layers.judge, wish.layers.features, meta)
        about = {"predictions": wish.predictions.name, "label": predictions.label.to_dict()} | _about_later(predictions)
        about |= _about_maker(predictions) | _about_meta(wish, meta) | _about_maps(predictions.maps) | _about_layers(wish) | _allowed(meta)
    elif wish.models is not None:
        begun = replace(wish, models=first_models(wish.models, wish.journal))
        models, meta, about = load_served(begun, params)
        params = held_for(settled(params, models), Label.from_dict(models.config["label"]), models.later)
    else:
        raise UserError("qt live must have --predictions or --models, was without; nobody would vote")
    voters = models if predictions is None else predictions
    if isinstance(feed, ReplayFeed) and voters is not None:
        from research.evidence.lacked import deficiencies

        feed.lacked = deficiencies(feed.bars, params, feed.lacked, predictions, models, None)
        feed.notes += silent(params, voters)
    return params, (predictions, models, meta, about)


def first_models(models: str, journal: Path) -> str:
    """Say which models a start serves: of a name in the registry the version that the journal ends with, `reload` sees to the rest."""
    if (name := split_name(models)) is None:
        return models
    last = last_source(journal)
    return last if last is not None and last.partition("@")[0] == name else f"{name}@{find(name).version}"


def load_served(wish: LiveOptions, params: Params) -> tuple[Any, MetaSchedule | None, dict[str, Any]]:
    """Load base models, their meta layer, and what the journal says of both. Raises UserError where they may not trade."""
    assert wish.models is not None
    models = load_models(wish, params)
    meta = load_meta(wish, params, models.names)
    folder = Path(wish.models)
    about: dict[str, Any] = {f"{a.slot}.{a.fold}": a.hash for a in models.artefacts}
    about |= {f"{a.slot}.{a.fold}.{part.horizon}": a.hash for part in models.further for a in part.artefacts}
    about |= {SOURCE: str(folder.resolve()) if folder.is_dir() else wish.models, "features": list(models.feature_names)}
    about |= {"label": dict(models.config["label"]), **_about_later(models)} | _about_maker(models)
    return models, meta, about | _about_meta(wish, meta) | _about_maps(models.map_schedule) | _about_layers(wish) | _allowed(models, meta)


def _about_meta(wish: LiveOptions, meta: MetaSchedule | None) -> dict[str, Any]:
    if meta is None:
        return {}
    return {"meta": meta.hash} | ({} if wish.meta is None else {META_SOURCE: str(wish.meta.resolve())})


def _about_maps(maps: MapSchedule | None) -> dict[str, Any]:
    """Return the maps whole, so that a journal gives its own bits again wherever the models are by then."""
    return {} if maps is None else {MAPS: maps.to_dict()}


def _about_later(voters: Any) -> dict[str, Any]:
    return {LATER: list(voters.later)} if voters.later else {}


def _about_maker(votes: Predictions | ModelSet) -> dict[str, Any]:
    """Say until when who votes knew the data, None where nobody said so of imported predictions; nothing where ours were fitted."""
    is_foreign = votes.knows_until is not None or getattr(votes, "imported", False)
    return {COLUMN: votes.knows_until} if is_foreign else {}


def _about_layers(wish: LiveOptions) -> dict[str, Any]:
    return {LAYERS: wish.layers.about} if wish.layers.about is not None and wish.layers.decides else {}


def check_own(wish: LiveOptions, params: Params, journal: Journal) -> None:
    """Try the own judge and trade loop before the first bar of a journal; a later start must have the file that it was begun with.

    Raises UserError where a rule is broken and that was not allowed, or the file is another.
    """
    if journal.snapshot() is not None:
        versions = journal.versions()
        known, mine = versions[max(versions)][1].get(LAYERS), _about_layers(wish).get(LAYERS)
        if (known or {}).get("hash") != (mine or {}).get("hash"):
            then, now = (f"{one['file']} ({one['hash'][:SHOWN]})" if one else "no file of layers" for one in (known, mine))
            raise ConfigError(f"--layers must be what the journal was begun with, {then}, was {now}; give that, or use a new --journal")
        return
    checked = [try_layer(kind, layer, params, wish.layers.features) for kind, layer in wish.layers.chain.items()]
    if not wish.allow_rejected and (broken := [line for found in checked if found["broken"] for line in sentences([found])]):
        raise ConfigError(f"{broken[0]}; mend it, or pass --allow-rejected")


def _allowed(*served: Any) -> dict[str, Any]:
    """Say for the journal who serves without being accepted, where somebody does."""
    from research.training.registry import unfit

    found = unfit(*served)
    return {ALLOWED: found} if found else {}


def assemble(
    wish: LiveOptions,
    params: Params,
    feed: Any,
    served: Served,
    open_: ExitStack,
) -> Runner:
    """Open the files and connect the parts. feed: ours or one of the user's; served: predictions, base models, meta layer, versions.

    open_ gets what closes them; where nothing had begun by then, it takes away every file that is new.
    """
    assert wish.journal is not None
    made, opened = Made(), list[Journal]()
    open_.callback(lambda: None if opened and opened[0].has_begun else made.undo())
    is_replay = replays(feed)
    facts = {"symbols": list(feed.symbols), "interval": feed.interval, "feed": wish.feed}
    facts |= {"profile": wish.config.profile, "version": __version__}
    voters = served[0] or served[1]
    facts |= {
        "is_replay": is_replay,
        "is_priced": params.decide.rule == DecideRule.EDGE,
        "voters": list(voters.names),
        "voting": list(voters.slots),
    }
    journal = Journal(wish.journal, facts, durable=not is_replay, made=made)
    open_.callback(journal.close)
    opened.append(journal)
    if isinstance(feed, ReplayFeed):
        check_continues(journal, feed.bars, feed_text=wish.feed or "")
        if served[0] is not None and wish.predictions is not None:
            check_votes(journal, served[0], wish.predictions)
    check_own(wish, params, journal)
    taken = _governor(wish, journal)
    cash = None if taken is None else taken.get("current_balance")
    broker = PaperBroker(paper_of(wish.journal), feed.symbols, params, cash=cash, made=made)
    open_.callback(broker.close)
    options = Options(SNAPSHOT_BARS, CHECKPOINT_BARS, fills_gaps=False) if is_replay else Options()
    options.budget = round(wish.budget_ms * 1e6)
    controls = Controls(journal, params, kill_file_of(wish.journal))
    runner = Runner(params, feed, journal, broker, *served, options, controls, wish.layers)
    note_waits(runner, journal, broker)
    if journal.snapshot() is None:
        note_unheard(runner, journal)
    runner.meta_of = lambda about: meta_of(about, served[2])
    envelope = None if wish.predictions is None else wish.predictions.with_name(ENVELOPE)
    looks = SelfChecks(journal, envelope, REPLAY_EVERY if is_replay else EVERY)
    runner.duties = (looks,)
    if wish.log is not None:
        log = LogFile(wish.log, is_json=wish.log_json, made=made)
        open_.callback(log.close)
        runner.watchers = (*runner.watchers, lambda entry: log.write(entry, runner.params))
    if (reload := reload_of(wish, params, served, is_replay)) is not None:
        open_.callback(reload.close)
        runner.duties = (reload, *runner.duties)
    listeners: list[Callable[[Arrival], None]] = [lambda arrival: journal.place.check()]  # also while no bar comes
    if wish.alert is not None:
        alerts = Alerts(wish.alert, None if is_replay else 2.0 * feed.interval / 1e9 + options.grace / 1e9)
        open_.callback(alerts.close)
        runner.duties = (*runner.duties, alerts)
        listeners.append(alerts.heard)
    if taken is not None:
        source, state = wish.import_governor, taken
        assert source is not None
        runner.prepare = lambda engine: take_over(engine, state, feed.symbols, source)

    def heard(arrival: Arrival) -> None:
        for listen in listeners:
            listen(arrival)

    runner.heard = heard
    return runner


def check_continues(journal: Journal, bars: Bars, feed_text: str) -> None:
    """Refuse to go on from a file whose candles are not those that the journal decided last. bars: all that is replayed."""
    last = journal.last_bar()
    for _, known, *_ in journal.bars_after(-1 if last is None else last[0] - REMEMBERED):
        row = int(np.searchsorted(bars.open_time, known.open_time[0]))
        if row == bars.n or bars.open_time[row] != known.open_time[0]:
            continue
        mine, theirs = bars.close[row], known.close[0]
        if len(other := np.flatnonzero((mine != theirs) & ~np.isnan(mine) & ~np.isnan(theirs))):
            name, when = bars.symbols[int(other[0])], iso(int(known.open_time[0]))
            was = f"{mine[other[0]]:g} instead of {theirs[other[0]]:g} for {name} at {when}"
            raise ConfigError(f"--feed must go on with the journal's candles, was {feed_text} with a close of {was}; use a new --journal")


def check_votes(journal: Journal, predictions: Predictions, file: Path) -> None:
    """Refuse to go on with predictions that say something else of the bars that the journal decided last with predictions."""
    if (last := journal.last_bar()) is None:
        return
    versions, said = journal.versions(), predictions.votes()
    rows = {int(time): row for row, time in enumerate(predictions.close_time)}
    for _, bars, known, version in journal.bars_after(last[0] - REMEMBERED):
        row = rows.get(int(bars.close_time[0]))
        if row is None or "predictions" not in versions[version][1]:
            continue
        is_other = said.action[:, row] != known.action[:, 0]
        is_other |= np.abs(said.confidence[:, row] - known.confidence[:, 0]) > ROUNDING
        if len(other := np.argwhere(is_other)):
            model, symbol = other[0].tolist()
            when = f"{bars.symbols[symbol]} at {iso(int(bars.close_time[0]))}"
            text = f"--predictions must go on with those of the journal, was {file} with another vote of {said.names[model]} for {when}"
            raise UserError(f"{text}; give the file that it was begun with, or a longer one of the same, or use a new --journal")


def note_waits(runner: Runner, journal: Journal, broker: PaperBroker) -> None:
    """Note with an event that another process held a file so long that a bar had to wait; who is told to stop waits for nobody."""
    waits: list[tuple[str, float]] = []
    for what, db in (("journal", journal.db), ("paper account", broker.db)):
        db.gives_up = lambda: runner.stopping
        db.told = partial(lambda what, seconds: waits.append((what, seconds)), what)

    def note(entry: Entry) -> None:
        told, waits[:] = list(waits), []
        texts = [f"another process held the {what} for {seconds:.0f} s; it was waited for" for what, seconds in told]
        if texts:
            journal.note([Event(int(entry.result.close_time[0]), "locked", text) for text in texts], entry.bar)

    runner.watchers = (*runner.watchers, note)


def unheard(runner: Runner) -> tuple[str, ...]:
    """Say what does nothing: a meta layer without the model that it asks, and what is set and not read.

    The latter not where layers are the user's own, which may read it.
    """
    meta = runner.params.meta
    is_silent = meta.enabled and meta.mode != MetaMode.POLICY and runner.meta is None
    silent = (f"no meta model is served, so the meta layer says nothing; {META_REMEDY}",) if is_silent else ()
    return silent + (() if runner.layers.chain else unread(runner.params))


def note_unheard(runner: Runner, journal: Journal) -> None:
    """Note with the first bar what does nothing."""
    waiting = list(unheard(runner))

    def note(entry: Entry) -> None:
        texts, waiting[:] = list(waiting), []
        if texts:
            journal.note([Event(int(entry.result.close_time[0]), "note", text) for text in texts], entry.bar)

    runner.watchers = (*runner.watchers, note)


def reload_of(wish: LiveOptions, params: Params, served: Served, is_replay: bool) -> Reload | None:
    """Return what serves promoted models; None where --models names no name of the registry, or one version of it."""
    if wish.models is None or (name := split_name(wish.models)) is None:
        return None
    version = int(str(served[3][SOURCE]).partition("@")[2])
    return Reload(name, version, lambda source: load_served(replace(wish, models=source), params), waits=is_replay)


def load_models(wish: LiveOptions, params: Params) -> Any:
    """Load a schedule of models, by folder or registry name; refuses rejected, synthetic, damaged ones and those of other features."""
    from research.training.registry import load_for_live, resolve

    assert wish.models is not None
    found = ModelSet.load(resolve(wish.models), is_checked=False)
    if wish.is_alone:
        import_lean(found.slots)
    models = load_for_live(found, allow_rejected=wish.allow_rejected, allow_synthetic=wish.allow_synthetic, may_advise=wish.may_advise)
    models.check_params(params)
    models.check_label(str(wish.config.run.label))
    models.check_until(wish.config.run.knows_until)
    check_priced(params, models)
    if params.decide.rule == DecideRule.EDGE and wish.layers.judge is not None:
        what = "an own judge must be priced by what it said before, was given with --models, whose maps are of other opinions"
        raise ConfigError(f"{what}; replay --predictions, or use --profile published")
    return models


def load_meta(wish: LiveOptions, params: Params, voters: tuple[str, ...]) -> MetaSchedule | None:
    """Load the learned meta layer: of `--meta`, or the one that lies with the models, as a backtest serves it.

    voters: names of the five slots. Raises UserError where it was trained for another mode or on other voters, or where the artefact that
    serves from now on is rejected or synthetic, or has no skill where it may not advise, and that was not allowed.
    """
    from research.training.registry import check_live, resolve

    folder = wish.meta
    if folder is None and wish.models is not None and wish.config.run.meta == "auto":
        folder = resolve(wish.models) / "meta"
        folder = folder if (folder / "schedule.json").exists() else None
    if folder is None:
        return None
    meta = MetaSchedule.load(folder)
    try:
        meta.check_mode(params)
    except UserError as error:
        raise UserError(f"{error}" + (", or serve none with --set run.meta=none" if wish.meta is None else "")) from error
    with refusing(ModelError):
        check_voters(meta, voters)
    check_live(meta, wish.allow_rejected, wish.allow_synthetic, wish.may_advise)
    return meta


def _governor(wish: LiveOptions, journal: Journal) -> dict[str, Any] | None:
    if wish.import_governor is None:
        return None
    if journal.snapshot() is not None:
        raise ConfigError(
            f"--import-governor must start an empty journal, was one in use: {wish.journal}; leave the flag out or use a new --journal"
        )
    return read_governor(wish.import_governor)
