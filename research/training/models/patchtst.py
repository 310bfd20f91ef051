"""PatchTST base model: a transformer over patches of each feature's window, as a classifier (`spec` 3.3, D-29, D-30).

After Nie et al. 2023 (PatchTST). Each channel (feature) of a window is normalised by its own mean and deviation (RevIN), cut into patches,
and goes alone through the same encoder; the channels meet only in the head, which reads the mean over the patches of every channel.

RevIN gives a forecast its level back at the output. A classifier has no such output, so level and spread of a window (is RSI high, is the
market wild) would be lost: the head reads them beside the encoded patches. RevIN has no learned scale and shift: the same for all channels
they would repeat what the embedding can do, one for each they would undo that channels are encoded alike.
`original` does without level and spread, as the system it stands for.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from research.training.models.base import Preset
from research.training.models.neural import NeuralModel

_DEFAULT = {
    "lookback": 120,
    "patch": 12,
    "stride": 12,
    "d_model": 64,
    "heads": 4,
    "layers": 2,
    "ff": 128,
    "dropout": 0.1,
    "has_level": True,
    "learning_rate": 1e-4,
    "weight_decay": 1e-5,
    "batch": 64,
    "max_windows": None,
}
_ORIGINAL = Preset(_DEFAULT | {"heads": 8, "ff": 256, "has_level": False}, 100, 15, "balanced")
_SMALL = {"d_model": 32, "layers": 1, "ff": 64, "learning_rate": 1e-3}
_TINY = {"lookback": 24, "patch": 6, "stride": 6, "d_model": 16, "ff": 32, "learning_rate": 4e-3, "batch": 16, "max_windows": 1_600}


@dataclass
class PatchTST(NeuralModel):
    """Windows of 120 rows as 10 patches a feature; saved as safetensors."""

    slot: ClassVar[str] = "patchtst"
    stem: ClassVar[str] = "patchtst"
    presets: ClassVar = {
        "default": Preset(_DEFAULT, 100, 15, "balanced"),
        "original": _ORIGINAL,
        "published": _ORIGINAL,
        "fast": Preset(_DEFAULT | _SMALL | {"max_windows": 12_000}, 2, 2, "balanced"),
        "tiny": Preset(_DEFAULT | _SMALL | _TINY, 3, 3, "balanced"),
    }

    def _build(self, sizes: Any) -> nn.Module:
        return PatchTSTNetwork(len(self.feature_names), sizes)


class PatchTSTNetwork(nn.Module):
    """Map windows [B, L, F] to class scores [B, 3]."""

    def __init__(self, n_features: int, sizes: Any) -> None:
        super().__init__()
        self.patch, self.stride, self.has_level = sizes["patch"], sizes["stride"], sizes["has_level"]
        width, n_patches = sizes["d_model"], (sizes["lookback"] - sizes["patch"]) // sizes["stride"] + 1
        self.embed = nn.Linear(self.patch, width)
        self.position = nn.Parameter(torch.empty(n_patches, width).normal_(0.0, 0.02))
        self.drop = nn.Dropout(sizes["dropout"])
        self.layers = nn.ModuleList(EncoderLayer(width, sizes["heads"], sizes["ff"], sizes["dropout"]) for _ in range(sizes["layers"]))
        self.norm = nn.LayerNorm(width)
        per_channel = width + 2 * self.has_level
        self.head = nn.Linear(n_features * per_channel, 3)

    def forward(self, windows: Tensor) -> Tensor:
        """Return class scores before the softmax."""
        values, mean, deviation = rev_in(windows.transpose(1, 2))
        read = self.encode(values).mean(2)
        if self.has_level:
            read = torch.cat([read, mean, deviation], 2)
        return self.head(read.flatten(1))

    def encode(self, values: Tensor) -> Tensor:
        """Encode each channel alone: [B, F, L] -> [B, F, patches, d_model]."""
        patches = values.unfold(-1, self.patch, self.stride)
        tokens = self.drop(self.embed(patches) + self.position).flatten(0, 1)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens).unflatten(0, values.shape[:2])


class EncoderLayer(nn.Module):
    """Pre-norm attention and GELU network over tokens [N, P, D]; plain products, which a GPU repeats to the bit."""

    def __init__(self, width: int, heads: int, ff: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, ff), nn.GELU(), nn.Dropout(dropout), nn.Linear(ff, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        tokens = tokens + self.drop(self.attend(self.norm_attention(tokens)))
        return tokens + self.drop(self.network(self.norm_network(tokens)))

    def attend(self, tokens: Tensor) -> Tensor:
        """Let every token of a sequence look at all of them.

        Shares are kept as [key, query]: a softmax over the second-last axis takes 1.4 ms, over the last, of 10, it takes 3.3 (2026-11).
        """
        query, key, value = self.mix(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        share = torch.softmax(key @ query.transpose(2, 3) * query.shape[-1] ** -0.5, 2)
        return self.out((share.transpose(2, 3) @ value).transpose(1, 2).flatten(2))


def rev_in(channels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise every channel of every window [B, F, L]; return it with mean and deviation [B, F, 1]. A constant channel becomes 0."""
    mean = channels.mean(-1, keepdim=True)
    deviation = (channels.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    return (channels - mean) / deviation, mean, deviation
