"""Neural network base: scaling, training with early stopping, prediction that never depends on its company, files.

Training: AdamW, balanced class weights, up to a number of epochs, stopped by the loss on the validation slice. The loss and not the
accuracy: with unequal classes the most accurate network may answer HOLD throughout, accuracy moves in steps, and a model is accepted by its
log loss (`spec` D-74). The network of the best epoch is kept. It trains on a GPU, in mixed precision, where there is one; it always
predicts on the CPU with one thread, so that the training machine and the serving machine ask the same arithmetic.

Prediction: 16 windows go through the network at a time, the rest of the last batch is padded with zeros. A fixed batch alone is not enough:
measured 2026-11, in a batch of 4 or 8 the place of a window changed its last bits in 29 % of cases, of 16 or 32 in none, as matrix products
are computed in tiles of 16 rows. That is this library on that machine; so a network must show that the place changes nothing before it is
used, and else predicts one window at a time.

Measured 2026-11 on one busy core, seconds of processor time, the last of 4 folds of 19 symbols x 5,856 bars (77,000 training windows):
preset `fast` N-HiTS 5, PatchTST 34, both with the test fold; an epoch of `default` N-HiTS 16, PatchTST 420: for a GPU, or for patience.
"""

import contextlib
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qtcore.types import F8, I8
from research.training.models.base import F4, ModelAbsentError, Scaler, StoredModel, class_weights
from research.training.models.structure import check_safetensors
from research.training.models.windows import Windows

BATCH = 16  # windows predicted at a time
CLIP = 5.0  # deviations beyond which a scaled feature says no more
SAME = 1e-6  # two random windows must move the class scores by more (`spec` 3.3)
WATCHED = 4  # a capped fit is watched on at most a quarter as many windows
CHECK_BATCH = 256  # windows of the validation slice at a time


@dataclass
class NeuralModel(StoredModel):
    """A torch network over windows [N, L, F]; a subclass builds it.

    history: loss per epoch on the fitted ("train") and the watched windows ("valid"), and the epoch kept ("best"), counted from 0.
    on_progress(done, total, text) is called ten times an epoch; total stands for all epochs. batch: windows predicted at a time.
    """

    network: Any = field(default=None, repr=False)
    history: dict[str, Any] = field(default_factory=dict, repr=False)
    on_progress: Callable[[int, int, str], Any] | None = field(default=None, repr=False)
    batch: int = field(default=BATCH, repr=False)
    suffix: ClassVar[str] = ".safetensors"

    @abstractmethod
    def _build(self, sizes: Any) -> nn.Module:
        """Build the network of these sizes with random weights."""

    @property
    def lookback(self) -> int:
        """Rows of a window, its own included."""
        return int(self.presets[self.preset].params["lookback"])

    def params(self) -> dict[str, Any]:
        """Return preset, sizes, optimiser, epochs (as rounds) and learning curves."""
        return super().params() | {"history": self.history}

    def fit(
        self,
        rows: Windows,
        labels: NDArray[np.int8],
        valid_rows: Windows,
        valid_labels: NDArray[np.int8],
        seed: int,
        weights: F8 | None = None,
    ) -> None:
        """Fit scaler and network. The scaler sees the last row of every fitted window. Raises ModelAbsentError when a class is missing."""
        self._check(rows)
        if len(rows) == 0:
            raise ModelAbsentError(f"training windows of {self.lookback} complete rows must exist, was 0; load a longer period")
        counts = self._counts(labels, valid_rows)
        self.scaler = Scaler.fit(np.array(rows.matrix.reshape(-1, rows.shape[2])[rows.cells]))
        preset = self.presets[self.preset]
        of_class, cap = class_weights(counts, preset.weights), preset.params["max_windows"]
        fit = Part(self._scaled(rows), labels, of_class, spread(len(rows), cap, seed), weights)
        valid = Part(self._scaled(valid_rows), valid_labels, of_class, spread(len(valid_rows), cap and cap // WATCHED, seed))
        with reproducibly(seed):
            network = self._build(preset.params)
            self._train(network, fit, valid, np.random.default_rng(seed))
        self._use(network)

    def _train(self, network: nn.Module, fit: "Part", valid: "Part", rng: np.random.Generator) -> None:
        """Train and leave the weights of the epoch with the lowest validation loss in `network`."""
        preset = self.presets[self.preset]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network.to(device)
        loss_of = _Loss(torch.from_numpy(fit.weights).float().to(device))
        optimiser = torch.optim.AdamW(network.parameters(), lr=preset.params["learning_rate"], weight_decay=preset.params["weight_decay"])
        train, watch, best, kept = [], [], 0, {}
        for epoch in range(preset.rounds):
            network.train()
            train.append(0.0)
            done = 0.0
            for x, y, counts, share in fit.batches(preset.params["batch"], device, rng):
                optimiser.zero_grad()
                with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                    loss = loss_of(network(x), y, counts)
                loss.backward()
                optimiser.step()
                train[-1] += loss.item() * share
                done += share
                if self.on_progress is not None and int(10.0 * done) > int(10.0 * (done - share)):
                    self.on_progress(10 * epoch + int(10.0 * done), 10 * preset.rounds, f"epoch {epoch + 1}")
            network.eval()
            with torch.no_grad():
                watch.append(
                    sum(loss_of(network(x), y, counts).item() * share for x, y, counts, share in valid.batches(CHECK_BATCH, device))
                )
            if not np.isfinite(train[-1] + watch[-1]):
                raise ModelAbsentError(f"loss of {self.slot} must stay finite, was {train[-1]} and {watch[-1]} in epoch {epoch + 1}")
            if epoch == 0 or watch[-1] < watch[best]:
                best, kept = epoch, {name: value.detach().clone() for name, value in network.state_dict().items()}
            if epoch - best >= preset.patience:
                break
        network.load_state_dict(kept)
        curves = {name: [round(loss, 6) for loss in losses] for name, losses in (("train", train), ("valid", watch))}
        self.rounds, self.history = best + 1, curves | {"best": best}

    def predict_proba(self, matrix: Windows) -> F8:
        """Return probabilities [N, 3] float64 of windows without NaN; a window's bits depend on nothing but its own rows."""
        self._check(matrix)
        self._fitted()
        scaled = self._scaled(matrix)
        out = np.empty((len(matrix), 3))
        with reproducibly():
            for start in range(0, len(matrix), self.batch):
                out[start : start + self.batch] = self._probs(scaled[start : start + self.batch])
        return out

    def _probs(self, windows: F4) -> F8:
        """Probabilities of at most `batch` scaled windows, padded to `batch`; the softmax in float64."""
        padded = np.zeros((self.batch, *windows.shape[1:]), np.float32)
        padded[: len(windows)] = windows
        with torch.inference_mode():
            probs = torch.softmax(self.network(torch.from_numpy(padded)).double(), 1)
        return np.asarray(probs[: len(windows)].numpy())

    def _scaled(self, windows: Windows) -> Windows:
        """Scale the rows that windows see by the fitted moments, and clip them: the same for training and for serving."""
        if len(windows) == 0:
            return windows
        n_symbols = windows.matrix.shape[1]
        start = int(windows.cells.min()) // n_symbols - windows.lookback + 1
        seen = windows.matrix[start : int(windows.cells.max()) // n_symbols + 1]
        rows = self._fitted().transform(seen.reshape(-1, windows.shape[2]))
        return Windows(np.clip(rows, -CLIP, CLIP, out=rows).reshape(seen.shape), windows.cells - start * n_symbols, windows.lookback)

    def _use(self, network: nn.Module) -> None:
        """Take a network into use when it answers at all; settle how many windows it is shown at a time (`spec` 3.3, D-28)."""
        if not sum(p.numel() for p in network.parameters()):
            raise ModelAbsentError(f"{self.slot} must have parameters, was without")
        self.network = network.cpu().float().eval()
        self.batch, places = BATCH, np.arange(BATCH)
        windows = np.random.default_rng(0).normal(size=(BATCH, self.lookback, len(self.feature_names))).astype(np.float32)
        with reproducibly():
            turned = [self._probs(windows[(places + k) % BATCH])[(places - k) % BATCH] for k in range(0, BATCH, 3)]
        if not np.ptp(turned[0][:2], axis=0).max() > SAME:
            raise ModelAbsentError(f"{self.slot} must answer two random windows differently, was the same within {SAME:g}; train again")
        if any((other != turned[0]).any() for other in turned):
            self.batch = 1

    def _write(self) -> bytes:
        return bytes(safetensors.torch.save({name: value.contiguous() for name, value in self.network.state_dict().items()}))

    def _read(self, data: bytes) -> None:
        network = self._build(self.presets[self.preset].params)
        check_safetensors(data, {name: tuple(value.shape) for name, value in network.state_dict().items()})
        network.load_state_dict(safetensors.torch.load(data))
        self._use(network)

    def _check(self, matrix: Any) -> None:
        shape = (self.lookback, len(self.feature_names))
        if not isinstance(matrix, Windows) or matrix.shape[1:] != shape or matrix.matrix.dtype != np.float32:
            raise ValueError(
                f"{self.slot} must get float32 windows [N, {shape[0]}, {shape[1]}] of {', '.join(self.feature_names)}, "
                f"was {type(matrix).__name__} {list(matrix.shape)}"
            )


@dataclass(frozen=True)
class Part:
    """What a fit reads of one role: windows, classes [N], weights of the classes [3], which windows are used, and what each counts [N].

    counts: None where all windows count alike.
    """

    windows: Windows
    labels: NDArray[np.int8]
    weights: F8
    used: I8
    counts: F8 | None = None

    def batches(
        self, size: int, device: str, rng: np.random.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None, float]]:
        """Yield windows, classes, what each counts and the batch's share of all weight; shuffled by `rng`, in order without."""
        order = self.used if rng is None else rng.permutation(self.used)
        total = self._weight(order)
        for start in range(0, len(order), size):
            which = order[start : start + size]
            x, y = torch.from_numpy(self.windows[which]), torch.from_numpy(self.labels[which].astype(np.int64))
            counts = None if self.counts is None else torch.from_numpy(self.counts[which]).float().to(device)
            yield x.to(device), y.to(device), counts, float(self._weight(which) / total)

    def _weight(self, which: I8) -> F8:
        weights: F8 = self.weights[self.labels[which]]
        return np.asarray((weights if self.counts is None else weights * self.counts[which]).sum())


class _Loss:
    """Mean log loss of a batch, weighed by class weights [3] and by what each window counts."""

    def __init__(self, weights: Tensor) -> None:
        self.weights, self.mean, self.each = weights, nn.CrossEntropyLoss(weights), nn.CrossEntropyLoss(weights, reduction="none")

    def __call__(self, scores: Tensor, labels: Tensor, counts: Tensor | None) -> Tensor:
        if counts is None:
            return self.mean(scores, labels)
        return (self.each(scores, labels) * counts).sum() / (self.weights[labels] * counts).sum()


def spread(n: int, cap: int | None, seed: int) -> I8:
    """Choose `cap` of n windows evenly over time: one of each of `cap` equal stretches, drawn by the seed.

    Drawn, because every k-th one might be of one symbol. Neighbouring windows share all but one row, so leaving some out loses little.
    None takes all.
    """
    if cap is None or n <= cap:
        return np.arange(n)
    edges = np.arange(cap + 1) * n // cap
    return np.asarray(np.random.default_rng(seed).integers(edges[:-1], edges[1:]))


@contextlib.contextmanager
def reproducibly(seed: int | None = None) -> Iterator[None]:
    """Let torch use one thread and repeatable arithmetic only, from a seed if given; put everything back afterwards."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it a GPU's matrix products are not repeatable
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms does the same and imports the compiler, 2 s
    try:
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
