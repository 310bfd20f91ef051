"""Kinds of files in a run's folder: what each is called, and which names and types it must hold."""

from collections.abc import Sequence
from typing import Any

from qtcore.types import BOOK_COLUMNS, DECISION_COLUMNS, HORIZON_COLUMNS, MONEY_COLUMNS
from research.files import TEXT, TIME, Kind
from research.training.labels import LABEL_SHAPE

PRICES = ("open", "high", "low", "close", "volume")
AGAIN = "run the backtest again"
RUN_JSON = Kind("a file of a run's folder as the backtest wrote it", AGAIN)
SUMMARY = Kind("the summary of a run as the backtest wrote it", AGAIN, {"evidence": {"verdict": str}})
CERTIFICATE = Kind(
    "the proof of a run as `qt verify` wrote it", "run `qt verify` again", {"passed": (bool, None), "checks": [dict], "proves?": str}
)
MANIFEST = Kind(
    "the manifest of a run as the backtest wrote it",
    AGAIN,
    {
        **dict.fromkeys(("run_id", "created", "command", "profile", "data_fingerprint", "platform"), str),
        **dict.fromkeys(("params", "source_hash", "seeds", "threads"), dict),
        "schema_version": int,
        "label": LABEL_SHAPE,
        "symbols": [str],
        "interval": int,
        "versions": {...: (str, None)},
        "notes": [str],
        "meta_model?": (None, {"kind": str, "vector": str, "hash": str}),
        "own_layers?": [str],
        "layers?": (None, {"file": str, "hash": str}),
        "voters?": [str],
        "weights?": {...: float},
        "origin?": str,
        "knows_until?": (int, None),
        "ceilings?": bool,
        "figures?": str,
        "trials": {"trials?": int},
        "arrays": {...: str},
    },
)
KEYS = {"open_time": TIME, "close_time": TIME, "symbol": TEXT}
CODES = {"raw_action", "final_action", "final_source", *(name for name in DECISION_COLUMNS if not name.endswith(("confidence", "score")))}
COLUMNS: dict[str, dict[str, Any]] = {
    "bars": KEYS | dict.fromkeys((*PRICES, "funding?"), "double"),
    "decisions": KEYS
    | {name: int if name in CODES else float for name in DECISION_COLUMNS}
    | {"final_action": "int8", "final_confidence": "double", "final_source": "int8", "governor_reason": "uint8", "size": "double"}
    | dict.fromkeys((f"{name}?" for name in (*MONEY_COLUMNS, *BOOK_COLUMNS, *HORIZON_COLUMNS)), "double")
    | {"cell_pnl": "double", "volatility": "double", "trend_strength": "double", "label": "int8"},
    "trades": {
        **dict.fromkeys(("entry_time", "decision_time", "exit_time"), TIME),
        **dict.fromkeys(
            (
                "entry_price",
                "exit_price",
                "qty",
                "notional",
                "fee",
                "slippage",
                "funding",
                "pnl",
                "ret",
                "confidence",
                "volatility",
                "trend_strength",
            ),
            "double",
        ),
        "trade_id": int,
        "symbol": TEXT,
        "side": "int8",
        "bars": int,
        "exit_reason": "uint8",
        "source": "int8",
    },
    "fills": {
        **dict.fromkeys(("qty", "price", "reference_price", "notional", "stop_price", "fee", "slippage", "funding", "pnl"), "double"),
        "time": TIME,
        "symbol": TEXT,
        "bar": int,
        "trade_id": int,
        "is_entry": "bool",
        "reason": "uint8",
    },
    "equity": {
        "open_time": TIME,
        "close_time": TIME,
        **dict.fromkeys(("equity", "balance", "exposure", "drawdown", "ensemble_only", "buy_hold", "buy_hold_matched"), "double"),
        "worth?": "double",
        "without_breaker?": "double",
    },
    "predictions": {"close_time": TIME, "open_time": TIME, "symbol": TEXT, "fold": int, "label": int},  # votes: `Predictions.load`
}


def kind_of(table: str, voters: Sequence[str] = ()) -> Kind:
    """Return what a table of a run is called and must hold; voters: the names whose votes the decisions hold too."""
    votes = {f"{name}_{part}": kind for name in voters for part, kind in (("action", "int8"), ("confidence", "double"))}
    return Kind(f"the {table} of a run as the backtest wrote them", AGAIN, COLUMNS[table] | (votes if table == "decisions" else {}))
