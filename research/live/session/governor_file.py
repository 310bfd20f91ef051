"""Governor's state of an earlier system or journal, as a file that starts an empty journal: the JSON of `spec` 10.5 (D-67)."""

from pathlib import Path
from typing import Any

from qtcore import Engine
from qtcore.declare import time_ns
from qtcore.types import NEVER, InputError
from research.errors import ConfigError
from research.files import Kind, read_json
from research.runs.governor_state import GovernorState

STATE = Kind(
    "a governor's state of schema 1",
    "export it again or leave --import-governor out",
    {
        "trade_history?": [{"symbol?": str, "timestamp?": (str, None), "pnl?": (float, None)}],
        "last_losses?": {...: str},
        "active_positions?": {...: Any},
        "last_trade_date?": (str, None),
        "daily_trade_count?": int,
    },
)
NUMBERS = ("initial_balance", "current_balance", "peak_balance")


def read_governor(path: Path) -> dict[str, Any]:
    """Read a state file. Raises UserError on one that cannot be trusted: unreadable, of a newer schema, or with open positions."""
    state: dict[str, Any] = read_json(path, STATE)
    if state.get("schema_version", 1) != 1:
        raise ConfigError(f"--import-governor must be a JSON object of schema 1, was another: {path}")
    for name in NUMBERS:
        value = state.get(name, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < float("inf"):
            raise ConfigError(f"--import-governor: {name} must be a positive number, was {value!r} in {path}")
    if state.get("active_positions"):
        names = ", ".join(state["active_positions"])
        raise ConfigError(f"--import-governor must be of a flat account, was with {names} open; their entry prices are not in the file")
    return state


def take_over(engine: Engine, state: dict[str, Any], symbols: tuple[str, ...], path: Path) -> None:
    """Put a state file's balance, peak, daily count and last losses into a fresh account."""
    try:
        governor = GovernorState.load(state, engine.params)
    except (InputError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfigError(f"--import-governor must be a governor's state, was damaged: {path} ({error})") from error
    mine, theirs = engine.account.account[0], governor.account[0]
    for name in ("balance", "peak", "trades_today", "day"):
        mine[name] = theirs[name]
    mine["equity"] = theirs["balance"]
    mine["peak"] = max(mine["peak"], mine["balance"])
    known = dict(zip(governor.symbols, governor.positions["last_loss_time"].tolist()))
    known |= {symbol: max(known.get(symbol, NEVER), time_ns("last_losses", time)) for symbol, time in state.get("last_losses", {}).items()}
    for s, symbol in enumerate(symbols):
        engine.account.positions[s]["last_loss_time"] = known.get(symbol, NEVER)
