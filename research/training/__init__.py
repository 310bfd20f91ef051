"""Training and out-of-sample predictions: labels, splits, models, the learned meta layer, predictions."""
