"""Do 95 % intervals cover? Worlds whose volatility lasts, opinions of known worth on them, and how often the truth lies inside.

`python -m tests.support.interval_worlds 2000` prints the table of docs/specification.md, chapter 17, and `... trained 200` its last rows.
The truth of a figure is that of all worlds of a kind together.
"""

import sys

import numpy as np

from research.data import simulate
from research.training.scoring.bootstrap import Bootstrap
from research.training.scoring.differences import difference
from research.training.scoring.opinions import Opinion, blocks, recall, shares, tally
from research.training.walk_forward import train

N, SYMBOLS, HORIZON, MEMORY = 3_000, 4, 5, 20  # bars and symbols of a world, bars that a label looks ahead, that an opinion looks back
BURN = 500
FIGURES = {
    "accuracy": "ci95",
    "balanced_accuracy": "balanced_ci95",
    "direction_accuracy": "direction_ci95",
    "activity_accuracy": "activity_ci95",
}
PAIRS = (("volatility", "hold"), ("volatility", "skilled"), ("keeps its side", "skilled"))


def even(rng, z):
    """Volatility never changes."""
    return np.ones(len(z))


def garch(rng, z):
    """Volatility of GARCH(1,1), alpha 0.08 and beta 0.90, by the first symbol's moves."""
    out, variance = np.empty(len(z)), 1.0
    for t in range(len(z)):
        out[t] = variance**0.5
        variance = min(max(0.02 + variance * (0.08 * z[t, 0] ** 2 + 0.90), 0.04), 25.0)
    return out


def storms(rng, z, spell=100):
    """Volatility is low or three times as high, each for 100 bars in the mean."""
    is_storm = (np.cumsum(rng.random(len(z)) < 1.0 / spell) + rng.integers(2)) % 2
    return np.where(is_storm, 1.8, 0.2) ** 0.5


def stochastic(rng, z):
    """Log volatility is an autoregression with 0.98 a bar, of moves of its own."""
    out, level = np.empty(len(z)), 0.0
    for t, shock in enumerate(rng.standard_normal(len(z))):
        level = 0.98 * level + 0.1 * shock
        out[t] = np.exp(level)
    return out


KINDS = {"even": even, "GARCH": garch, "storms": storms, "stochastic": stochastic}


def world(kind, seed):
    """Labels [n, S] of one world, -1 at its end, and the opinions on it by name."""
    rng = np.random.default_rng(seed)
    z = np.sqrt(0.5) * (rng.standard_normal((BURN + N, 1)) + rng.standard_normal((BURN + N, SYMBOLS)))
    moves = (KINDS[kind](rng, z)[:, None] * z)[BURN:]
    path, shape = np.cumsum(moves, axis=0), moves.shape
    ahead = path[HORIZON:] - path[:-HORIZON]
    labels = np.full(shape, -1, np.int8)
    labels[:-HORIZON] = 1 + (ahead > 1.1 * HORIZON**0.5) - (ahead < -1.1 * HORIZON**0.5)
    total = np.concatenate([np.zeros((1, SYMBOLS)), np.cumsum(np.abs(moves), axis=0)])
    first = np.maximum(np.arange(N) + 1 - MEMORY, 0)
    trailing = (total[1:] - total[first]) / (np.arange(N) + 1 - first)[:, None]
    coin, kept = 2 * rng.integers(0, 2, shape), (np.cumsum(rng.random(shape) < 0.02, axis=0) + rng.integers(0, 2, SYMBOLS)) % 2
    said = {
        "hold": np.ones(shape),
        "volatility": np.where(trailing > 0.75, 1 + np.sign(moves), 1),
        "keeps its side": 2 * kept,
        "skilled": np.where((rng.random(shape) < 0.15) & (labels >= 0), labels, np.where(trailing > 0.7, coin, 1)),
    }
    return labels, {name: Opinion(action.astype(np.int8), np.full(shape, 0.5)) for name, action in said.items()}


def measured(labels, said, pairs):
    """Intervals by (who, figure), and the sums of each opinion, from which the truth comes."""
    counted = {name: tally(opinion, labels, np.zeros(labels.shape, np.int8), 1) for name, opinion in said.items()}
    rows = slice(0, len(labels))
    bootstrap = Bootstrap(len(labels), HORIZON, n_resamples=2)  # of the effective numbers, which are not asked
    found = {}
    for name, sums in counted.items():
        block = blocks(sums, bootstrap, rows, np.ones((1, 1)), ("total",))["total"]
        found |= {(name, figure): block[limits] for figure, limits in FIGURES.items()}
    for a, b in pairs:
        gap = difference(counted[a], counted[b], bootstrap, rows)
        found |= {((a, b), figure): gap[figure]["ci95"] for figure in list(FIGURES)[:3]}
    return found, {name: sums.rows.sum(axis=(0, 1), dtype=float) for name, sums in counted.items()}


def truths(sums):
    """Figures of pooled sums by (who, figure)."""
    out = {}
    for name, pooled in sums.items():
        accuracy, direction, activity = shares(pooled).tolist()
        out |= {(name, figure): x for figure, x in zip(FIGURES, (accuracy, float(recall(pooled)), direction, activity))}
    return out


def covered(kind, seeds):
    """How often the truth lies in the interval, by (who, figure); a constant direction or recall is left out."""
    found, pooled = [], {}
    for seed in seeds:
        intervals, sums = measured(*world(kind, seed), PAIRS)
        found.append(intervals)
        pooled = {name: pooled.get(name, 0.0) + own for name, own in sums.items()}
    known = truths(pooled)
    known |= {((a, b), figure): known[a, figure] - known[b, figure] for a, b in PAIRS for figure in list(FIGURES)[:3]}
    out = {}
    for key, truth in known.items():
        if np.isfinite(truth) and "hold" not in (key[0] if key[1] != "accuracy" else ()) and key != ("hold", "balanced_accuracy"):
            out[key] = float(np.mean([low <= truth <= high for low, high in (f[key] for f in found)]))
    return out


def trained(seeds, n_folds=6):
    """How often the interval of the direction of trees trained on noise holds one half, and that of their difference zero."""
    inside = []
    for seed in seeds:
        made = train(simulate("random_walk", seed, N, SYMBOLS), ("xgb", "lgbm"), "L1", preset="tiny", n_folds=n_folds, use_store=False)
        tested = made.fold >= 0
        said = {m: Opinion(made.action[k], made.confidence[k], made.probs[k]).rows(tested) for k, m in enumerate(made.names[:2])}
        found, _ = measured(made.labels[tested], said, [("xgb", "lgbm")])
        where = {"xgb": 0.5, "lgbm": 0.5, ("xgb", "lgbm"): 0.0}
        inside.append([low <= truth <= high for truth, (low, high) in ((x, found[who, "direction_accuracy"]) for who, x in where.items())])
    return dict(zip(("xgb", "lgbm", "difference"), np.mean(inside, axis=0).tolist()))


def accepted(world, seeds):
    """Share of the fits of XGBoost and LightGBM, `tiny`, 6 folds, that are accepted (`spec` D-74) on simulated worlds."""
    fits = [
        train(simulate(world, seed, N, SYMBOLS), ("xgb", "lgbm"), "L1", preset="tiny", use_store=False).models.artefacts for seed in seeds
    ]
    return float(np.mean([a.meta["status"] == "accepted" for models in fits for a in models]))


def main(n_worlds):
    """Print a row a kind: coverage over all opinions by figure, and the least of any one."""
    print("| worlds | accuracy | balanced | direction | activity | differences | least |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind in KINDS:
        rates = covered(kind, range(n_worlds // len(KINDS)))
        means = [np.mean([x for (who, figure), x in rates.items() if figure == name and isinstance(who, str)]) for name in FIGURES]
        means += [np.mean([x for (who, _), x in rates.items() if not isinstance(who, str)]), min(rates.values())]
        print(f"| {kind} | " + " | ".join(f"{100 * x:.1f}" for x in means) + " |")


if __name__ == "__main__":
    print(trained(range(10_000, 10_000 + int(sys.argv[2])))) if sys.argv[1] == "trained" else main(int(sys.argv[1]))
