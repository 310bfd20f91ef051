"""Proof: what can be shown about a finished run, a feature, a split or a layer of one's own.

- `certify(folder)` proves a run from its files: parity, causality, invariants, accounting (`certificate`);
- `leaks` holds one named detector for each known way of looking ahead;
- `check_layer(mine)` gives a researcher's own layer the proof that ours have (`layers`), `check_model(mine)` a base model (`models`).

Nothing but `layers` imports a layer: the engine is driven from outside, and the arithmetic is done again in NumPy.
"""

from research.verify.certificate import certify
from research.verify.claims import Claim
from research.verify.layers import LayerReport, check_layer
from research.verify.models import check_model

__all__ = ["Claim", "LayerReport", "certify", "check_layer", "check_model"]
