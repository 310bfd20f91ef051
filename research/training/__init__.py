"""Everything that learns, and what it said out of sample: labels, splits, models, the learned meta layer, predictions."""
