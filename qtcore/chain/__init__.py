"""Kernels of the whole chain: `decide` forms an opinion, `trade` sizes, limits and fills it, `advance` does a bar's both in one call."""

from qtcore.lazy import import_lazily

import_lazily(__name__, {})
