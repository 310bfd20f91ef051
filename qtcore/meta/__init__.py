"""Meta layer: whether the ensemble's opinion is kept, replaced or escalated.

`policy` keeps or asks the arbiter, `override` and `predictor` let a learned model replace the ensemble; each is a rule over scalars and a
`judge_*` kernel over cells. `vectors` builds the rows a learned model sees, `hits` counts how often each voter was right of late, `linear`
and `mlp` evaluate rows in a fixed order of sums, and `model` holds the artefact: `MetaModel`, the protocol `MetaSource` of everything that
answers like one, and `meta_probs` which asks it about a block.
"""

from qtcore.meta.hits import Hits
from qtcore.meta.model import (
    MetaModel,
    MetaSource,
    check_names,
    check_voters,
    feature_rows,
    hit_bars,
    meta_problem,
    meta_problems,
    meta_probs,
)
from qtcore.meta.vectors import VECTORS, wants_hits

__all__ = [
    "VECTORS",
    "Hits",
    "MetaModel",
    "MetaSource",
    "check_names",
    "check_voters",
    "feature_rows",
    "hit_bars",
    "meta_problem",
    "meta_problems",
    "meta_probs",
    "wants_hits",
]
