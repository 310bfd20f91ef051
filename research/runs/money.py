"""Money of an opinion as tables, journals and texts hold it: edges in basis points."""

from numpy.typing import NDArray

from qtcore.types import MONEY_COLUMNS, Decisions

BASIS_POINTS = 1e4  # of a fraction


def money_planes(decisions: Decisions) -> dict[str, NDArray]:
    """Columns of an opinion with a price as tables hold them: edges in basis points; none where it has no price."""
    planes = {name: getattr(decisions, name) for name in MONEY_COLUMNS if decisions.edge is not None}
    return {name: BASIS_POINTS * plane if name.endswith("edge") else plane for name, plane in planes.items()}
