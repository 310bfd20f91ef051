"""Summary of a run: `summarise` makes the dictionary that `summary.json` holds and the report is drawn from.

Plain values only; NaN becomes None, so that the file is strict JSON. Every figure is net of costs and over the tested bars (`tested_rows`).
"""

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from qtcore.choices import CooldownScope, DecideRule, DrawdownBasis, DrawdownReset
from qtcore.rules import Reason
from qtcore.types import MODELS, NS_PER_HOUR, Source
from research.evidence import sharpe as sr
from research.evidence.accuracy import SCORED, scores
from research.evidence.alpha import hedged
from research.evidence.finding import decide, fill_in_doubt, independent_trades, no_trades, reason, sells_tails, tested
from research.evidence.intrabar import bound, unbounded
from research.evidence.lacked import funding_payments, lacked
from research.evidence.ledger import Ledger, TrialSummary, trial_of
from research.evidence.ledger_reading import judged
from research.evidence.plausibility import in_doubt, plausibility
from research.evidence.provenance import provenance
from research.evidence.rates import layer_rates
from research.evidence.reachability import rules, scenes_of, voter_table
from research.evidence.thresholds import sentences, thresholds
from research.evidence.traders import declined, traders
from research.files import plain
from research.runs.benchmark import bar_returns, drawdown
from research.runs.record import RunRecord
from research.runs.round_trips import opens
from research.runs.ruin import ruin_of
from research.runs.tables import final_source, held, held_bars, mean_exposure, tested_rows
from research.training.models.base import OURS
from research.training.regimes import CELLS, SLICES, regime_cells, slice_sums
from research.training.scoring.bootstrap import Bootstrap
from research.training.scoring.opinions import ECE_BINS
from research.training.weights import weights_by_name

SCHEMA_VERSION = 1


def summarise(run: RunRecord) -> dict[str, Any]:
    """Measure a run; the verdict comes of this and the proof (`research.runs.verdict`). Raises UserError when the ledger cannot be read."""
    result, rows = run.result, tested_rows(run)
    regime = regime_cells(result.planes.regime[0], result.planes.regime[1])
    net = bar_returns(result.equity[rows])
    scored = scores(run, regime, rows, net)
    bootstrap = scored.bootstrap
    rates = layer_rates(result.decisions, final_source(run), result.governor_reason, regime)
    pnl = money(run, regime)
    drawn = Bootstrap(len(net), bootstrap.block)
    evidence = _evidence(run, rows, net, drawn)
    evidence["plausibility"] = plausibility(run, rows, net, (bootstrap, drawn))
    text = fill_in_doubt(run.params.broker.fill) or in_doubt(evidence["plausibility"])
    if evidence["finding"] == "edge" and text is not None:
        evidence |= {"finding": "not enough data", "reason": text}
    text = declined(run, rows, pnl["n_trades"])
    evidence["declined"] = text is not None
    evidence["condition"] = run.predictions.condition
    evidence["placebo"] = getattr(run, "placebos", None)  # a record that is only compared has none
    if text is not None:
        evidence["reason"] = text
    evidence["no_trades"] = no_trades(rates["total"]["counts"], pnl["n_trades"], evidence["declined"])
    asked = rules(run)
    out = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.folder.name if run.folder is not None else None,
        "data": _data(run, rows) | {"lacked": lacked(run)},
        "assumptions": _assumptions(run, scored.models),
        **scored.split("total"),
        "scored": SCORED if result.decisions.edge is not None else {},
        "reliability": scored.reliability,
        "meta_against": scored.against,
        "rates": rates["total"],
        "rules": asked,
        "dead": dead_parts(run, asked),
        "provenance": provenance(run, rows),
        "regimes": {
            name: scored.split(name) | {"rates": rates[name], "pnl": pnl["regimes"][name], "n_trades": pnl["regime_trades"][name]}
            for name in SLICES[1:]
        },
        "symbols": scored.by_symbol,
        "pnl": {k: v for k, v in pnl.items() if k not in ("regimes", "regime_trades")},
        "attribution": attribution(run),
        "traders": traders(run, rows, pnl["n_trades"]),
        "waterfall": getattr(run, "assumed", None),  # a record that is only compared has none
        "evidence": evidence
        | {"bootstrap": {"mean_block_bars": bootstrap.block, "resamples": bootstrap.n_resamples, "seed": bootstrap.seed}},
    }
    known: dict[str, Any] = plain(out)
    return known


def dead_parts(run: RunRecord, asked: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Say who voted together, what every threshold did, and in words what could never act."""
    steered, is_counted = thresholds(run, asked), run.params.decide.rule != DecideRule.EDGE  # a price counts no heads
    voters = voter_table(scenes_of(run), run.result.votes.names) if is_counted else []
    return {"voters": voters, "thresholds": steered, "sentences": sentences(asked, steered, voters)}


def money(run: RunRecord, regime: Any) -> dict[str, Any]:
    """Say what was earned and paid, in total, per symbol, exit and regime (`spec` D-94: the slices add up to the total)."""
    result, trades, rows = run.result, run.trades, tested_rows(run)
    initial = run.params.broker.initial_cash
    cells = np.bincount(regime.reshape(-1), result.cell_pnl.reshape(-1), minlength=len(CELLS))
    total = float(result.equity[-1] - initial)
    closed = trades[trades["exit_reason"] > 0]
    entered = regime[result.governor_reason == Reason.APPROVED]
    won, lost = closed["pnl"][closed["pnl"] > 0].sum(), -closed["pnl"][closed["pnl"] < 0].sum()
    exposure = mean_exposure(run, rows)
    out = {
        **performance(run, result, rows),
        "initial_cash": initial,
        "net_pnl": total,
        "fees": float(result.fills["fee"].sum()),
        "slippage": float(result.fills["slippage"].sum()),
        "funding": float(result.fills["funding"].sum()),
        "n_fills": len(result.fills),
        "n_shorts": int((trades["side"] < 0).sum()),
        "n_stops": int((trades["exit_reason"] == Reason.STOP).sum()),
        "win_rate": float((closed["pnl"] > 0).mean()) if len(closed) else math.nan,
        "mean_trade_return": float(closed["ret"].mean()) if len(closed) else math.nan,
        "mean_trade_bars": float(closed["bars"].mean()) if len(closed) else math.nan,
        "profit_factor": won / lost if lost > 0.0 else math.nan,
        "turnover": float(np.abs(result.fills["qty"] * result.fills["price"]).sum()) / initial,
        "mean_exposure": exposure["gross"],
        "net_exposure": exposure["net"],
        "buy_hold_return": float(held(run, rows, 1.0)[-1] / initial - 1.0),
        "buy_hold_matched_return": float(held(run, rows, exposure["net"])[-1] / initial - 1.0),
        "ensemble_only": performance(run, run.ensemble_only, rows),
        "halt": _halt(run, rows),
        "liquidation": _liquidation(run),
        "by_symbol": _by_symbol(run),
        "by_exit": _by(closed, "exit_reason", Reason),
        "regime_sum_error": float(abs(result.cell_pnl.sum() - total) / initial),
        "regimes": dict(zip(SLICES, slice_sums(cells).tolist())),
        "regime_trades": dict(zip(SLICES, slice_sums(np.bincount(entered, minlength=len(CELLS))).astype(int).tolist())),
    }
    return out


def performance(run: RunRecord, result: Any, rows: slice) -> dict[str, Any]:
    """Return, drawdown and number of trades of one result over the tested bars."""
    equity = result.equity[rows]
    return {
        "final_equity": float(equity[-1]),
        "net_return": float(equity[-1] / run.params.broker.initial_cash - 1.0),
        "max_drawdown": float(drawdown(equity).max()),
        "n_trades": int(opens(result.fills).sum()),
    }


def _halt(run: RunRecord, rows: slice) -> dict[str, Any] | None:
    """When and for how long the drawdown breaker blocked entries, and the same run without it (`spec` D-68p)."""
    governor, blocked = run.params.governor, (run.result.governor_reason == Reason.MAX_DRAWDOWN_EXCEEDED).any(axis=1)
    basis = run.result.balance if governor.drawdown_basis == DrawdownBasis.BALANCE else run.result.equity
    fallen = drawdown(np.append(run.params.broker.initial_cash, basis))[1:] > governor.max_drawdown
    if not blocked.any() and not fallen[rows].any():
        return None
    lasting = governor.drawdown_reset != DrawdownReset.DAILY
    first = int((fallen if lasting and fallen.any() else blocked).argmax())
    n_bars = rows.stop - first if lasting else int(blocked[rows].sum())
    free = getattr(run, "without_breaker", None)
    return {
        "time": _iso(run.bars.close_time[first]),
        "bars": n_bars,
        "share_of_bars": n_bars / (rows.stop - rows.start),
        "without_breaker": performance(run, free, rows) if free is not None else None,
    }


def _liquidation(run: RunRecord) -> dict[str, Any] | None:
    """When nothing was left of the account, and what it owed then; None where it lived."""
    ruin = ruin_of(run.bars.close_time, run.result.equity, run.result.fills, run.params.broker.initial_cash)
    if ruin is None:
        return None
    return {"time": _iso(ruin.time), "written_off": ruin.written_off, "n_positions": ruin.n_positions, "text": ruin.text}


def _by_symbol(run: RunRecord) -> list[dict[str, Any]]:
    close, trades, pnl = run.bars.close, run.trades, run.result.cell_pnl.sum(axis=0)
    groups = dict(list(trades.groupby("symbol", observed=True)))
    out = []
    for s, name in enumerate(run.bars.symbols):
        own = groups.get(name, trades[:0])
        closed = own[own["exit_reason"] > 0]
        out.append(
            {
                "symbol": name,
                "bars": int((~np.isnan(close[:, s])).sum()),
                "cells_with_votes": int((run.result.decisions.n_voters[:, s] > 0).sum()),
                "trades": len(own),
                "win_rate": float((closed["pnl"] > 0).mean()) if len(closed) else math.nan,
                "mean_return": float(closed["ret"].mean()) if len(closed) else math.nan,
                "fees": float(own["fee"].sum()),
                "pnl": float(pnl[s]),
            }
        )
    return out


def _by(closed: pd.DataFrame, column: str, names: Any) -> dict[str, dict[str, float]]:
    return {
        names(code).name.lower(): {"trades": len(group), "pnl": float(group["pnl"].sum()), "mean_return": float(group["ret"].mean())}
        for code, group in closed.groupby(column)
    }


def attribution(run: RunRecord) -> dict[str, Any]:
    """Say which layer's decisions earned what, and what the meta layer and the arbiter changed against the ensemble alone."""
    closed = run.trades[run.trades["exit_reason"] > 0]
    return {
        "by_source": _by(closed, "source", Source),
        "chain_minus_ensemble_only": float(run.result.equity[-1] - run.ensemble_only.equity[-1]),
        "changed_actions": int((run.result.decisions.raw_action != run.ensemble_only.decisions.raw_action).sum()),
        "layers": None if (layers := getattr(run, "layers", None)) is None else layers.totals(),
        "never_worse": None if layers is None else layers.never_worse,
    }


def _evidence(run: RunRecord, rows: slice, net: Any, bootstrap: Bootstrap) -> dict[str, Any]:
    from research.data import bars_per_year

    per_year = float(bars_per_year(run.bars))
    m, (hedge, outcome) = sr.moments(net), hedged(run)
    tried = _tried(run, m, per_year)
    refused = sr.refusal(m, per_year)
    track = sr.minimum_track_record(m) if refused is None else math.nan
    n_closed, n_effective = independent_trades(run, rows, bootstrap)
    deflated = None if refused else sr.deflated_sharpe(m, tried.trials, tried.variance)
    out: dict[str, Any] = {
        "trades": {"n": n_closed, "n_effective": n_effective},
        **tested(outcome, hedge, hedge.blocks_of(held_bars(run)), tried),
        "sharpe": {
            "refused": refused,
            "per_bar": m.sharpe,
            "per_year": None if refused else m.sharpe * math.sqrt(per_year),
            "bars_per_year": per_year,
            "annualisation_factor": math.sqrt(per_year),
            "n_bars": m.n,
            "skew": m.skew,
            "kurtosis": m.kurtosis,
            "autocorrelation": m.autocorrelation,
            "probabilistic": None if refused else sr.probabilistic_sharpe(m),
            "expected_best": sr.expected_best(tried.trials, tried.variance),
            "deflated": deflated,
            "deflated_effective": None if refused else sr.deflated_sharpe(m, tried.effective, tried.variance),
            "minimum_track_record_bars": track,
            "minimum_track_record_years": track / per_year,
        },
        "trials": asdict(tried),
        "intrabar": bound(run).figures if unbounded(run) is None else None,
        "ece_bins": ECE_BINS,
    }
    closed = run.trades["ret"][run.trades["exit_reason"] > 0].to_numpy()
    out["test"]["sells_tails"] = sells_tails(out["test"]["skew"], closed)
    finding = decide(out["test"])
    out["finding"] = "no edge" if finding == "edge" and refused else finding
    out["reason"] = reason(out)
    return out


def _tried(run: RunRecord, m: sr.Moments, per_year: float) -> TrialSummary:
    """Trials of the run's lineage; a reproduced run keeps what was recorded (`spec` D-97), as far as an older one recorded it."""
    figures = {"per_bar": m.sharpe, "n_bars": m.n, "skew": m.skew, "kurtosis": m.kurtosis, "bars_per_year": per_year}
    figures["autocorrelation"] = m.autocorrelation
    trial = trial_of(run, figures)
    recorded = run.manifest.get("trials")
    if recorded is None:
        return Ledger().look(trial)
    known = TrialSummary(**recorded)
    return judged(replace(known, independent=known.trials - 1), trial) if recorded.get("critical") is None else known


def _data(run: RunRecord, rows: slice) -> dict[str, Any]:
    bars = run.bars
    return {
        "symbols": list(bars.symbols),
        "n_symbols": len(bars.symbols),
        "n_bars": bars.n,
        "n_candles": int((~np.isnan(bars.close)).sum()),
        "start": _iso(bars.open_time[0]),
        "end": _iso(bars.close_time[-1]),
        "interval_hours": bars.interval / NS_PER_HOUR,
        "test_start": _iso(bars.open_time[rows.start]),
        "test_end": _iso(bars.close_time[rows.stop - 1]),
        "test_bars": rows.stop - rows.start,
        "scored_cells": int(np.count_nonzero((run.labels >= 0) & (run.result.decisions.n_voters > 0))),
    }


def _assumptions(run: RunRecord, models: list[str]) -> dict[str, Any]:
    p, label = run.params, run.predictions.label
    voting = [m for m in models if m in run.result.votes.names]
    stop_only = (
        p.governor.cooldown_scope == CooldownScope.SYMBOL_LAST_LOSS and p.governor.cooldown_minutes * 60_000_000_000 <= run.bars.interval
    )
    return {
        "profile": run.profile,
        "label": label.to_dict(),
        "label_span_hours": label.horizon * run.bars.interval / NS_PER_HOUR,
        "models_voting": voting,
        "models_expected": len(voting) if set(voting) - {*MODELS, *OURS} else max(len({*OURS} & {*MODELS, *voting}), len(voting)),
        "weights": weights_by_name(p, run.predictions),
        "imported_predictions": bool(run.predictions.imported),
        "knows_until": None if run.predictions.knows_until is None else _iso(run.predictions.knows_until),
        "fee_rate": p.broker.fee_rate,
        "slippage_rate": p.broker.slippage_rate,
        "fill": p.broker.fill.name.lower(),
        "funding": run.bars.funding is not None,
        "funding_payments": funding_payments(run),
        "allow_short": p.broker.allow_short,
        "stop_loss": p.governor.stop_loss,
        "max_holding_bars": p.broker.max_holding_bars,
        "cooldown_blocks_after_stops_only": bool(stop_only),
        "initial_cash": p.broker.initial_cash,
        "params": p.flat(),
        "unread": list(run.unread),
    }


def _iso(ns: Any) -> str:
    return str(pd.Timestamp(int(ns), tz="UTC").isoformat())
