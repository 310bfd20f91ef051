"""Explanation of one decision of a finished run, layer by layer: what each saw, said and why."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qtcore import Engine, Params, Result
from qtcore.choices import MacdUnits, MetaMode
from qtcore.rules import Reason
from qtcore.types import ARBITER_INPUTS, Action, Bars, Consensus, Source, Verdict
from research.errors import UserError
from research.files import plain
from research.runs.folder import read_run
from research.runs.price_text import CellPrice, answered
from research.runs.reason_text import arbiter_text, asked_about, cell_of, entropy_text, opinion_numbers, reason_text
from research.runs.verdict import stated
from research.training.models.layers import NONE, Layers

SCALES = {  # of what the arbiter reads; MACD and its signal: see `arbiter.macd_units`
    "rsi": " (0 to 100)",
    "bb_position": " (0 at the lower band, 1 at the upper)",
    "volume_trend": " (1 is usual)",
    "momentum_1h": " (a fraction of the close)",
}


def explain_decision(folder: Path, symbol: str, time: str, at_hand: Layers = NONE) -> dict[str, Any]:
    """Explain the decision on `symbol` at `time`: `{verdict, sentence, figures, symbol, close_time, layers: [{name, says, saw}]}`.

    time: UTC, the bar's close (decision time) or its open. The run is computed again up to that bar, so what is shown is what the chain
    saw. Raises UserError when the run has no such symbol or bar, and where it has layers of its user's own that are not `at_hand`.
    """
    files = read_run(folder)
    own = files.own(at_hand)
    bars, predictions, params, meta = files.chain(own)
    if symbol not in bars.symbols:
        raise UserError(f"symbol must be one of the run's {', '.join(bars.symbols)}, was {symbol!r}")
    t, s = _row(bars, time), bars.symbols.index(symbol)
    engine = Engine(params, meta_model=meta, **own.engine)
    result = engine.run(bars[: t + 1], predictions.votes()[: t + 1])
    price = CellPrice(result, t, s, params, predictions.maps, bars.interval) if result.decisions.edge is not None else None
    priced = [] if price is None else [price.layer()]
    layers = [_market(result, t, s, params), *_models(result, t, s, price), _ensemble(result, t, s, price)]
    if own.judge is None:
        layers += [*priced, _meta(result, t, s, params, price), _arbiter(result, t, s, params, price)]
    else:
        layers += [_judge(result, t, s), *priced]
    layers += [_governor(result, t, s, engine), _trade(files.frame("trades"), symbol, int(bars.close_time[t]))]
    return {**stated(files.summary), "symbol": symbol, "close_time": str(pd.Timestamp(bars.close_time[t], tz="UTC")), "layers": layers}


def _row(bars: Bars, time: str) -> int:
    try:
        stamp = pd.Timestamp(time)
    except ValueError as error:
        raise UserError(f"time must be a UTC time such as 2024-03-01T12:00, was {time!r}") from error
    ns = (stamp.tz_localize("UTC") if stamp.tz is None else stamp.tz_convert("UTC")).as_unit("ns").value
    for times in (bars.close_time, bars.open_time):
        t = int(np.searchsorted(times, ns))
        if t < bars.n and times[t] == ns:
            return t
    if not bars.open_time[0] <= ns <= bars.close_time[-1]:
        span = " to ".join(str(pd.Timestamp(edge, tz="UTC")) for edge in (bars.open_time[0], bars.close_time[-1]))
        raise UserError(f"time must lie in the run's bars, {span}, was {stamp}")
    near = pd.Timestamp(bars.close_time[int(np.searchsorted(bars.close_time, ns))], tz="UTC")
    raise UserError(f"time must be the close or open of a bar, was {stamp}; the next bar closes at {near}")


def _name(enum: Any, code: int) -> str:
    return str(enum(int(code)).name)


def _said(action: Any, confidence: float, word: str = "confidence") -> str:
    """Name an action and the number beside it, with the number's scale."""
    return f"{_name(Action, action)}, {word} {f'{confidence:.4f} (0 to 1)' if confidence == confidence else 'unknown'}"


def _market(result: Result, t: int, s: int, params: Params) -> dict[str, Any]:
    unit = " (per cent of the close)" if params.arbiter.macd_units == MacdUnits.PERCENT else " (in quote)"
    scales = {name: SCALES.get(name, unit) for name in ARBITER_INPUTS}
    seen = dict(zip(ARBITER_INPUTS, result.planes.arbiter[:, t, s], strict=True))
    volatility, trend = result.planes.regime[:, t, s]
    says = f"volatility rank {volatility:.2f} (0 calm to 1), trend strength {trend:+.2f} (-1 down to +1 up)"
    return {"name": "market", "says": says, "saw": {name: f"{value:.6g}{scales[name]}" for name, value in seen.items()}}


def _models(result: Result, t: int, s: int, price: CellPrice | None) -> list[dict[str, Any]]:
    rows = []
    for m, name in enumerate(result.votes.names):
        action, confidence = result.votes.action[m, t, s], result.votes.confidence[m, t, s]
        says = "absent" if action == Action.ABSENT else _said(action, confidence)
        saw = {}
        if result.votes.probs is not None and action != Action.ABSENT:
            probs = result.votes.probs[m, t, s, :3]
            saw = dict(zip(("p(SELL)", "p(HOLD)", "p(BUY)"), (f"{p:.4f}" for p in probs), strict=True))
            saw["their deviation"] = f"{np.std(probs):.4f}"  # `confidence_std` of `spec` 3.1
            for bars, said in zip([] if price is None else price.lengths[1:], result.votes.probs[m, t, s, 3:].reshape(-1, 3)):
                told = " ".join(f"{p:.4f}" for p in said)
                saw[f"SELL HOLD BUY at {bars} bars"] = told if not np.isnan(said).any() else "nothing; it is heard with what stands above"
        if price is not None and action != Action.ABSENT:
            saw |= price.voter(m, name)
        rows.append({"name": f"model {name}", "says": says, "saw": saw})
    return rows


def _ensemble(result: Result, t: int, s: int, price: CellPrice | None) -> dict[str, Any]:
    d = result.decisions
    says = _said(d.ensemble_action[t, s], d.ensemble_confidence[t, s])
    n = int(d.n_voters[t, s])
    saw = {
        "voters": n if price is None else price.voters(n, result.votes.names),
        "for the winner": int(d.consensus_count[t, s]),
        "consensus": _name(Consensus, d.consensus[t, s]).lower(),
    }
    return {"name": "ensemble", "says": says, "saw": saw}


def _meta(result: Result, t: int, s: int, params: Params, price: CellPrice | None) -> dict[str, Any]:
    """Say what the layer did, and what its learned model answered: an entropy in policy mode, a probability in the others."""
    d, p = result.decisions, params.meta
    verdict, reason, numbers = d.verdict[t, s], d.meta_reason[t, s], opinion_numbers(cell_of(d, t, s))
    said = reason_text(reason, params, numbers)
    says = "did not run" if verdict == Verdict.NONE else f"{_name(Verdict, verdict)}: {said}"
    saw: dict[str, Any] = {}
    if price is not None and d.meta_action[t, s] != Action.ABSENT:
        says = f"{'acts' if price.row is not None and price.row['is_seated'] else 'advises'}: {said}"
        saw = {"learned model": f"the bet pays with probability {d.meta_confidence[t, s]:.4f}"} | price.meta()
    elif d.meta_action[t, s] != Action.ABSENT:
        action, number = d.meta_action[t, s], float(d.meta_confidence[t, s])
        if p.mode == MetaMode.POLICY:
            scale = f"(0 certain to 1 undecided; above {p.entropy_threshold:g} it escalates)"
            answer = f"{_name(Action, action)}, entropy {entropy_text(number)} {scale}"
        else:
            needed = p.v5_threshold if p.mode == MetaMode.V5 else p.override_threshold
            answer = f"{_said(action, number, 'probability')}; overrides above {needed:g}"
        saw = {"learned model": answer}
    elif price is not None and verdict != Verdict.NONE:
        says = "was not asked" if reason == Reason.NONE else f"gave no answer: {said}"
    return {"name": "meta", "says": says, "saw": saw}


def _judge(result: Result, t: int, s: int) -> dict[str, Any]:
    """Say what the user's own opinion was, which stood in the place of ensemble, meta layer and arbiter."""
    d = result.decisions
    return {"name": "own judge", "says": _said(d.raw_action[t, s], d.raw_confidence[t, s]), "saw": {}}


def _arbiter(result: Result, t: int, s: int, params: Params, price: CellPrice | None) -> dict[str, Any]:
    d = result.decisions
    if d.arbiter_action[t, s] == Action.ABSENT:
        return {"name": "arbiter", "says": "not invoked", "saw": {}}
    action, confidence = int(d.arbiter_action[t, s]), float(d.arbiter_confidence[t, s])
    says = _said(action, confidence) if price is None else answered(action, confidence)
    acts = "" if price is not None else f"; acts from {params.arbiter.score_threshold:g} away from 0 on"
    score = f"{d.arbiter_score[t, s]:+.4f} (below 0 SELL, above 0 BUY{acts})"
    spoke = arbiter_text(result.planes.arbiter[:, t, s].tolist(), int(d.arbiter_action[t, s]), float(d.arbiter_score[t, s]))
    refused = reason_text(d.arbiter_reason[t, s], params, opinion_numbers(cell_of(d, t, s)))
    gate = "accepted" if d.source[t, s] == Source.ARBITER else f"rejected: {refused}"
    saw = {"score": score, "reason": spoke, "gate": gate} | ({} if price is None else price.arbiter())
    return {"name": "arbiter", "says": says, "saw": saw}


def _governor(result: Result, t: int, s: int, engine: Engine) -> dict[str, Any]:
    """Say what the governor answered, with the numbers of the account; `engine` has just decided bar t."""
    d, state, params = result.decisions, engine.account, engine.params
    reason = int(result.governor_reason[t, s])
    asked_about_it = asked_about(result, s, params, state.account[0], state.positions[s], state.closed)
    numbers = opinion_numbers(cell_of(d, t, s))
    if asked_about_it is not None:
        numbers |= asked_about_it.numbers(reason, params, numbers)
    asked = f"{_said(d.raw_action[t, s], d.raw_confidence[t, s])}, from {_name(Source, d.source[t, s]).lower()}"
    saw = {"asked": asked, "equity": f"{result.equity[t]:.2f} quote", "exposure": f"{result.exposure[t]:.2f} quote"}
    if reason == Reason.APPROVED:
        saw["size"] = f"{result.size[t, s]:+.2f} quote (below 0 sells)"
    return {"name": "governor", "says": f"{_name(Action, result.final_action[t, s])}: {reason_text(reason, params, numbers)}", "saw": saw}


def _trade(trades: pd.DataFrame, symbol: str, decision_time: int) -> dict[str, Any]:
    """Look up what became of it: the trade that this decision opened, from the finished run."""
    opened = trades[(trades["symbol"] == symbol) & (trades["decision_time"] == pd.Timestamp(decision_time, tz="UTC"))]
    if opened.empty:
        return {"name": "trade", "says": "none opened by this decision", "saw": {}}
    trade = opened.iloc[0]
    saw = {name: plain(trade[name]) for name in ("entry_price", "exit_time", "exit_price", "fee", "slippage", "funding")}
    saw["exit_time"] = str(trade["exit_time"])
    saw["exit"] = _name(Reason, trade["exit_reason"])
    return {"name": "trade", "says": f"{'long' if trade['side'] > 0 else 'short'}, PnL {trade['pnl']:+.2f}", "saw": saw}
