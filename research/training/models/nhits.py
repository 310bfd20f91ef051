"""N-HiTS base model: stacks that look at the window at several rates, as a classifier (`spec` 3.3, D-30).

After Challu et al. 2022 (N-HiTS). A window is embedded, row by row, into a few channels. A block sees what the blocks before it left
unexplained, max-pooled by its stack's kernel, and its small network gives coefficients: points in time, fewer the larger the kernel,
between which backcast and forecast are interpolated linearly. The backcast is subtracted from what the next block sees, the forecast is
added to the sum of forecasts, and the classes are read off that sum.

There is no series to forecast, so the forecast is a latent one. It spans 8 steps: with the original system's single step every stack would
interpolate one constant, and nothing but the pooling would tell the stacks' forecasts apart. `original` keeps that one step, and the
embedding into one channel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from research.training.models.base import Preset
from research.training.models.neural import NeuralModel

_DEFAULT = {
    "lookback": 120,
    "channels": 8,
    "horizon": 8,
    "pools": [1, 2, 4],
    "hidden": [128, 64, 32],
    "blocks": 1,
    "dropout": 0.1,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "batch": 128,
    "max_windows": None,
}
_ORIGINAL = Preset(_DEFAULT | {"channels": 1, "horizon": 1, "hidden": [512, 256, 128], "blocks": 3}, 100, 15, "balanced")


@dataclass
class NHiTS(NeuralModel):
    """Windows of 120 rows through three stacks; saved as safetensors."""

    slot: ClassVar[str] = "nhits"
    stem: ClassVar[str] = "nhits"
    presets: ClassVar = {
        "default": Preset(_DEFAULT, 100, 15, "balanced"),
        "original": _ORIGINAL,
        "published": _ORIGINAL,
        "fast": Preset(_DEFAULT | {"hidden": [64, 32, 16], "max_windows": 12_000}, 2, 2, "balanced"),
        "tiny": Preset(
            _DEFAULT | {"lookback": 24, "channels": 4, "horizon": 4, "hidden": [32, 16, 16], "max_windows": 6_000}, 4, 4, "balanced"
        ),
    }

    def _build(self, sizes: Any) -> nn.Module:
        return NHiTSNetwork(
            len(self.feature_names),
            lookback=sizes["lookback"],
            channels=sizes["channels"],
            horizon=sizes["horizon"],
            stacks=list(zip(sizes["pools"], sizes["hidden"])),
            blocks=sizes["blocks"],
            dropout=sizes["dropout"],
        )


class NHiTSNetwork(nn.Module):
    """Map windows [B, L, F] to class scores [B, 3]."""

    def __init__(
        self, n_features: int, *, lookback: int, channels: int, horizon: int, stacks: Sequence[tuple[int, int]], blocks: int, dropout: float
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(n_features, channels)
        self.blocks = nn.ModuleList(
            NHiTSBlock((channels, lookback, horizon), pool, hidden, dropout) for pool, hidden in stacks for _ in range(blocks)
        )
        self.head = nn.Sequential(nn.Linear(channels * horizon, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 3))

    def forward(self, windows: Tensor) -> Tensor:
        """Return class scores before the softmax."""
        _, forecast = self.decompose(windows)
        return self.head(forecast.flatten(1))

    def decompose(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what no block explained [B, C, L] and the sum of forecasts [B, C, H]."""
        residual = self.embed(windows).transpose(1, 2)
        forecast: Tensor | float = 0.0
        for block in self.blocks:
            backcast, part = block(residual)
            residual, forecast = residual - backcast, forecast + part
        assert isinstance(forecast, Tensor)
        return residual, forecast


class NHiTSBlock(nn.Module):
    """One block: residual [B, C, L] -> backcast [B, C, L] and forecast [B, C, H]; `shape` is (C, L, H)."""

    def __init__(self, shape: tuple[int, int, int], pool: int, hidden: int, dropout: float) -> None:
        super().__init__()
        channels, lookback, horizon = shape
        if lookback % pool:
            raise ValueError(f"lookback must be a multiple of the pool kernel {pool}, was {lookback}")
        self.pool, self.channels, self.n_back = pool, channels, lookback // pool
        n_fore = max(1, horizon // pool)
        self.network = nn.Sequential(
            nn.Linear(channels * lookback // pool, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels * (self.n_back + n_fore)),
        )
        self.register_buffer("to_backcast", interpolation(self.n_back, lookback), persistent=False)
        self.register_buffer("to_forecast", interpolation(n_fore, horizon), persistent=False)

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Return (backcast, forecast)."""
        theta = self.network(max_pool(residual, self.pool).flatten(1)).unflatten(1, (self.channels, -1))
        return theta[..., : self.n_back] @ self.to_backcast, theta[..., self.n_back :] @ self.to_forecast


def max_pool(x: Tensor, kernel: int) -> Tensor:
    """Take the largest of every `kernel` neighbours [.., L] -> [.., L / kernel]; unlike the library's, the same bits again on a GPU."""
    return x if kernel == 1 else x.unflatten(-1, (-1, kernel)).amax(-1)


def interpolation(n_knots: int, length: int) -> Tensor:
    """Return the matrix [n_knots, length] that draws lines between equally spaced knots, ends included; one knot is a constant."""
    at, knots = np.arange(length), np.linspace(0.0, length - 1.0, n_knots)
    return torch.from_numpy(np.stack([np.interp(at, knots, unit) for unit in np.eye(n_knots)])).float()
