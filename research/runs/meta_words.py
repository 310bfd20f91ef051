"""Meta words: what the meta layer made of a decision, as people read it."""

VERDICTS = {"deferred": "kept by the meta layer", "overridden": "overridden by the meta layer", "escalated": "escalated"}
# Where opinions have a price, a verdict says what the decision is worth.
PRICED = {"deferred": "with an edge", "overridden": "shrunk or left out by the meta layer", "escalated": "without an edge"}
