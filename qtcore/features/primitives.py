"""Feature primitives: the arithmetic that features are made of. One loop per operation, over flat cells of one memory.

An operand is an address: the position in `memory` of the first cell of a piece of a plane (rows of S symbols, one after the other), so a
lag of k rows is an address k * S lower, and SIMD never meets the end of a row. Every output is made anew from its inputs: nothing runs on
from cell to cell. What exact arithmetic leaves undefined (0 / 0) is decided by a select. Addresses are unsigned inside the loops: a
signed index may count from the end, and that test costs SIMD (2.7 against 14 ns a cell for a window of 20, 2026-11).
"""

import math

import numpy as np

from qtcore.jit import kernel

(
    SCALED,  # k ((a - b) c)
    RATIO,  # k ((a - b) / (c - d)); `empty` where c = d
    ROOT,  # sqrt(k a) b
    LOG_RATIO,  # ln(a / b)
    TRUE_RANGE,  # of high a, low b, close before c; 0 where a is NaN
    ABOVE,  # 1 if a > b else 0
    CATEGORY,  # 0 if a < 30, 2 if a > 70, else 1
    CLIP,  # a within [-1, 1], 0 where a is NaN
    DEFAULT,  # a, or k where a is NaN
    # Windows: shorter ones are joined to longer ones; `empty` is S where an operation lags its operands by itself.
    ADD4,  # (a + b) + (c + d)
    ADD5,  # (a + b) + (c + (d + e))
    MOST4,  # the largest of a, b, c, d
    MOVES,  # out max(a - b, 0), second min(a - b, 0)
    MERGE2,  # out mean, second squared deviations of two groups: means a, b; deviations c, d; k n2 / (n1 + n2), empty n1 n2 / (n1 + n2)
    MERGE4,  # the same of four groups of k values: means a, b, c, d; e: their deviations, added
    MERGE5,  # the same of five groups of k = 4 values, 4 rows apart: means a, deviations b
    BANDS,  # out a + sqrt(k b), second a - sqrt(k b)
    INDEX14,  # 100 U / (U + D), 50 where both are 0: sums of 14 rises and falls; a, b: sums of four; c, d: the moves themselves
    RATIOS,  # out v / SMA_10(v), second v / SMA_20(v), 1 where the mean is 0; a: v, b: sums of four
) = range(19)

U4, U8, U9, U12, U13, U16 = (np.uintp(k) for k in (4, 8, 9, 12, 13, 16))


@kernel
def elementwise(op, memory, a, b, c, d, out, k, empty, size):
    """Apply an operation up to DEFAULT to `size` cells of `memory` at the addresses a, b, c, d; write them at `out`."""
    a, b, c, d, out, n = np.uintp(a), np.uintp(b), np.uintp(c), np.uintp(d), np.uintp(out), np.uintp(size)
    if op == SCALED:
        for i in range(n):
            memory[out + i] = k * ((memory[a + i] - memory[b + i]) * memory[c + i])
    elif op == RATIO:
        for i in range(n):
            below = memory[c + i] - memory[d + i]
            none = below == 0.0
            ratio = k * ((memory[a + i] - memory[b + i]) / (1.0 if none else below))
            memory[out + i] = empty if none else ratio
    elif op == ROOT:
        for i in range(n):
            memory[out + i] = math.sqrt(memory[a + i] * k) * memory[b + i]
    elif op == LOG_RATIO:
        for i in range(n):
            memory[out + i] = math.log(memory[a + i] / memory[b + i])
    elif op == TRUE_RANGE:
        for i in range(n):
            x = memory[a + i] - memory[b + i]
            up = abs(memory[a + i] - memory[c + i])
            down = abs(memory[b + i] - memory[c + i])
            x = up if up > x else x
            x = down if down > x else x
            memory[out + i] = x if x == x else 0.0
    elif op == ABOVE:
        for i in range(n):
            memory[out + i] = 1.0 if memory[a + i] > memory[b + i] else 0.0
    elif op == CATEGORY:
        for i in range(n):
            x = memory[a + i]
            memory[out + i] = 0.0 if x < 30.0 else (2.0 if x > 70.0 else (1.0 if x == x else x))
    elif op == CLIP:
        for i in range(n):
            x = memory[a + i]
            x = 1.0 if x > 1.0 else (-1.0 if x < -1.0 else x)
            memory[out + i] = x if x == x else 0.0
    else:
        for i in range(n):
            x = memory[a + i]
            memory[out + i] = x if x == x else k


@kernel
def windowed(op, memory, a, b, c, d, e, out, second, k, empty, size):
    """Apply an operation from ADD4 on to `size` cells of `memory` at the addresses a to e; write them at `out` and `second`."""
    a, b, c, d, e, n = np.uintp(a), np.uintp(b), np.uintp(c), np.uintp(d), np.uintp(e), np.uintp(size)
    out, second, row = np.uintp(out), np.uintp(second), np.uintp(empty)
    r4, r8, r9, r12, r13, r16 = row * U4, row * U8, row * U9, row * U12, row * U13, row * U16
    if op == ADD4:
        for i in range(n):
            memory[out + i] = (memory[a + i] + memory[b + i]) + (memory[c + i] + memory[d + i])
    elif op == ADD5:
        for i in range(n):
            memory[out + i] = (memory[a + i] + memory[b + i]) + (memory[c + i] + (memory[d + i] + memory[e + i]))
    elif op == MOST4:
        for i in range(n):
            x = memory[a + i] if memory[a + i] > memory[b + i] else memory[b + i]
            y = memory[c + i] if memory[c + i] > memory[d + i] else memory[d + i]
            memory[out + i] = x if x > y else y
    elif op == MOVES:
        for i in range(n):
            x = memory[a + i] - memory[b + i]
            memory[out + i] = x if x > 0.0 else 0.0
            memory[second + i] = x if x < 0.0 else 0.0
    elif op == MERGE2:
        for i in range(n):
            x = memory[b + i] - memory[a + i]
            memory[second + i] = (memory[c + i] + memory[d + i]) + empty * (x * x)
            memory[out + i] = memory[a + i] + x * k
    elif op == MERGE4:
        for i in range(n):
            mean = memory[a + i]
            x, y, z = memory[b + i] - mean, memory[c + i] - mean, memory[d + i] - mean
            total = (x + y) + z
            part = total * 0.25
            memory[second + i] = memory[e + i] + k * (((x * x + y * y) + z * z) - total * part)
            memory[out + i] = mean + part
    elif op == MERGE5:
        for i in range(n):
            mean = memory[a + i]
            x, y = memory[a - r4 + i] - mean, memory[a - r8 + i] - mean
            z, w = memory[a - r12 + i] - mean, memory[a - r16 + i] - mean
            total = (x + y) + (z + w)
            part = total * 0.2
            inner = (memory[b + i] + memory[b - r4 + i]) + (memory[b - r8 + i] + (memory[b - r12 + i] + memory[b - r16 + i]))
            memory[second + i] = inner + k * (((x * x + y * y) + (z * z + w * w)) - total * part)
            memory[out + i] = mean + part
    elif op == BANDS:
        for i in range(n):
            half = math.sqrt(memory[b + i] * k)
            memory[out + i] = memory[a + i] + half
            memory[second + i] = memory[a + i] - half
    elif op == INDEX14:
        for i in range(n):
            up = (memory[a + i] + memory[a - r4 + i]) + (memory[a - r8 + i] + (memory[c - r12 + i] + memory[c - r13 + i]))
            down = (memory[b + i] + memory[b - r4 + i]) + (memory[b - r8 + i] + (memory[d - r12 + i] + memory[d - r13 + i]))
            total = up - down
            none = total == 0.0
            share = 100.0 * (up / (1.0 if none else total))
            memory[out + i] = 50.0 if none else share
    else:
        for i in range(n):
            eight = memory[b + i] + memory[b - r4 + i]
            ten = eight + (memory[a - r8 + i] + memory[a - r9 + i])
            twenty = eight + (memory[b - r8 + i] + (memory[b - r12 + i] + memory[b - r16 + i]))
            none = ten == 0.0
            ratio = 10.0 * (memory[a + i] / (1.0 if none else ten))
            memory[out + i] = 1.0 if none else ratio
            none = twenty == 0.0
            ratio = 20.0 * (memory[a + i] / (1.0 if none else twenty))
            memory[second + i] = 1.0 if none else ratio
