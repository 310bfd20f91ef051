"""What are the running figures of a run? A slow twin of the METRICS record."""

from qtcore.rules import Reason


def metrics(equity, worth, fills, cash):
    """Count bars and fills one by one; sums run left to right. equity, worth: lists; fills: ledger rows."""
    m = {"first_equity": cash, "peak": cash, "max_drawdown": 0.0, "n_underwater": 0, "max_underwater": 0}
    for name in ("sum_ret", "sum_ret2", "sum_ret3", "sum_ret4", "sum_exposure", "turnover", "fees", "slippage", "funding"):
        m[name] = 0.0
    last = cash
    for e, x in zip(equity, worth):
        bar_step(m, last, e, x)
        last = e
    m |= {"last_equity": last, "n_bars": len(equity), "n_exposed": sum(x > 0.0 for x in worth), "gross_win": 0.0, "gross_loss": 0.0}
    for fill in fills:
        fill_metrics(m, fill)
    exits = [f for f in fills if f["is_entry"] == 0 and f["reason"] != Reason.REDUCED]
    return {
        **m,
        "n_fills": len(fills),
        "n_trades": sum(f["is_entry"] != 0 and f["reason"] != Reason.ADDED for f in fills),
        "n_closed": len(exits),
        "n_wins": sum(f["pnl"] > 0.0 for f in exits),
        "n_losses": sum(f["pnl"] < 0.0 for f in exits),
        "n_shorts": sum(f["qty"] > 0.0 for f in exits),
        "n_stops": sum(f["reason"] == Reason.STOP for f in exits),
    }


def bar_step(m, last, equity, worth):
    """Add one bar's return, its powers and the drawdown."""
    ret = equity / last - 1.0 if last > 0.0 else 0.0
    m["sum_ret"] += ret
    m["sum_ret2"] += ret * ret
    m["sum_ret3"] += ret * ret * ret
    m["sum_ret4"] += (ret * ret) * (ret * ret)
    m["sum_exposure"] += worth / equity if equity > 0.0 else 0.0
    m["n_underwater"] = m["n_underwater"] + 1 if equity < m["peak"] else 0
    m["max_underwater"] = max(m["max_underwater"], m["n_underwater"])
    m["peak"] = max(m["peak"], equity)
    m["max_drawdown"] = max(m["max_drawdown"], (m["peak"] - equity) / m["peak"])


def fill_metrics(m, fill):
    """Add one fill's costs, and an exit's result."""
    m["turnover"] += fill["notional"]
    m["fees"] += fill["fee"]
    m["slippage"] += fill["slippage"]
    if fill["is_entry"] == 0:
        m["funding"] += fill["funding"]
        if fill["pnl"] > 0.0:
            m["gross_win"] += fill["pnl"]
        if fill["pnl"] < 0.0:
            m["gross_loss"] -= fill["pnl"]
