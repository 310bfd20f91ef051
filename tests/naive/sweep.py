"""What should a sweep say? A slow twin: every row is a naive run of its own, money is booked by regime cell by cell."""

from qtcore.rules import Reason
from tests.naive import chain, metrics, trade


def sweep_rows(bars, votes, market, regime, rows, funding=None, meta=None):
    """Run the naive chain once for each dict of parameters. votes, market, regime, meta: nested lists by bar and symbol.

    Returns for each row the METRICS as a dict, and what the naive trade loop said.
    """
    out = []
    for params in rows:
        cells = [
            [
                chain.decide(*(plane[t][s] for plane in (votes, market, regime)), params, None if meta is None else meta[t][s])
                for s in range(len(votes[t]))
            ]
            for t in range(len(votes))
        ]
        actions = [[cell["raw_action"] for cell in row] for row in cells]
        confidences = [[cell["raw_confidence"] for cell in row] for row in cells]
        book, traded = trade.trade(bars, actions, confidences, params, None, funding)
        out.append((metrics.metrics(traded["equity"], traded["worth"], book.ledger, params["broker.initial_cash"]), traded))
    return out


def add_regimes(cells, reasons, pnl, equity, cash):
    """Book money and approvals by regime: nine kinds of market, three volatilities, three trends, returns on the equity before."""
    out = [{"pnl": 0.0, "sum_ret": 0.0, "sum_ret2": 0.0, "n_approved": 0} for _ in range(15)]
    before = cash
    for t, row in enumerate(pnl):
        decided = cells[max(t - 1, 0)]
        nine = [0.0] * 9
        for s, earned in enumerate(row):
            nine[decided[s]] += earned
        groups = [[c] for c in range(9)] + [[3 * v, 3 * v + 1, 3 * v + 2] for v in range(3)] + [[d, d + 3, d + 6] for d in range(3)]
        for slot, group in zip(out, groups, strict=True):
            total = 0.0
            for c in group:
                total += nine[c]
            slot["pnl"] += total
            ret = total / before if before > 0.0 else 0.0
            slot["sum_ret"] += ret
            slot["sum_ret2"] += ret * ret
            slot["n_approved"] += sum(reasons[t][s] == Reason.APPROVED and cells[t][s] in group for s in range(len(row)))
        before = equity[t]
    return out


def note_ends(ends, first, equity, day_equity):
    """Equity of a block at the bars that are asked for."""
    for d, end in enumerate(ends):
        if first <= end < first + len(equity):
            day_equity[d] = equity[end - first]
