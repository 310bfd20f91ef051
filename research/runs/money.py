"""Money of an opinion as tables, journals and texts hold it: edges and forecasts in basis points."""

from numpy.typing import NDArray

from qtcore.types import BOOK_COLUMNS, HORIZON_COLUMNS, MONEY_COLUMNS, Decisions

BASIS_POINTS = 1e4  # of a fraction


def book_planes(decisions: Decisions) -> dict[str, NDArray]:
    """Columns of an opinion that one book trades, or one of several horizons has, beside those of `money_planes`; none elsewhere."""
    names = [name for name in (*BOOK_COLUMNS, *HORIZON_COLUMNS) if getattr(decisions, name) is not None]
    planes = {name: getattr(decisions, name) for name in names}
    return {name: BASIS_POINTS * plane if name == "forecast" else plane for name, plane in planes.items()}


def money_planes(decisions: Decisions) -> dict[str, NDArray]:
    """Columns of an opinion with a price as tables hold them: edges in basis points; none where it has no price."""
    planes = {name: getattr(decisions, name) for name in MONEY_COLUMNS if decisions.edge is not None}
    return {name: BASIS_POINTS * plane if name.endswith("edge") else plane for name, plane in planes.items()}
