"""Logistic regression inference: class probabilities, one row at a time, summed in a fixed order.

A library's matrix product gives other last bits for one row than for a batch; these kernels give the same. `logistic_platt` has one
sigmoid a class, normalised (`spec` D-89); `logistic_softmax` is the plain one, and the one with a temperature, which divides the
scores and so lies in its coefficients. 2026-11: 0.2 us a row of 26.
"""

import math

from qtcore.jit import kernel
from qtcore.meta.mlp import softmax


@kernel
def sigmoid(x):
    """Return `1 / (1 + exp(x))` without overflow."""
    e = math.exp(-abs(x))
    return e / (1.0 + e) if x > 0.0 else 1.0 / (1.0 + e)


@kernel
def logistic_platt(row, mean, scale, coef, intercept, slope, offset, out):
    """Write the three probabilities of `row` [F] into `out` [3].

    Features are scaled to `(x - mean) / scale`; `coef` [3, F] and `intercept` [3] give one score a class, `slope` and `offset` [3] the
    calibrated `1 / (1 + exp(slope * score + offset))`, which is divided by the sum over the classes; a third each if all are 0.
    """
    total = 0.0
    for k in range(3):
        score = intercept[k]
        for j in range(len(row)):
            score += (row[j] - mean[j]) / scale[j] * coef[k, j]
        out[k] = sigmoid(slope[k] * score + offset[k])
        total += out[k]
    for k in range(3):
        out[k] = out[k] / total if total > 0.0 else 1.0 / 3.0


@kernel
def logistic_softmax(row, mean, scale, coef, intercept, out):
    """Write the three probabilities of `row` [F] into `out` [3]: softmax of the scores; arguments as in `logistic_platt`."""
    for k in range(3):
        out[k] = intercept[k]
        for j in range(len(row)):
            out[k] += (row[j] - mean[j]) / scale[j] * coef[k, j]
    softmax(out)
