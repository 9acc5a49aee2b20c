"""Many frames through one layer, a few at a time: what it needs in between stays in the cache, and memory stays small."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

CHUNK_BYTES = 16_000_000
"""Of the widest activation of one chunk."""

_KEPT = 'kept'


def kept(x: jax.Array) -> jax.Array:
    """Mark what the backward pass of `in_chunks` finds again; all else between its frames it computes a second time."""
    return checkpoint_name(x, _KEPT)


def in_chunks(layer: nn.Module, frame_bytes: int, *inputs: jax.Array) -> jax.Array:
    """layer(*inputs) for inputs (B, ...), in chunks of frames one after the other.

    On accelerators all frames go at once: there it is parallel work that is scarce, and not the cache.

    Args:
      layer: a bound module from arrays (B, ...) to an array (B, ...), each row of its own.
      frame_bytes: of the layer's widest activation for one frame.
    """
    B = inputs[0].shape[0]
    chunk = largest_divisor(B, max(CHUNK_BYTES // frame_bytes, 1))
    if chunk == B or jax.default_backend() != 'cpu' or layer.is_initializing():
        return layer(*inputs)

    def one(layer: nn.Module, carry: tuple, part: tuple) -> tuple[tuple, Any]:
        return carry, layer(*part)

    policy = jax.checkpoint_policies.save_only_these_names(_KEPT)
    every = nn.scan(nn.remat(one, policy=policy, prevent_cse=False), variable_broadcast='params', split_rngs={})
    parts = tuple(x.reshape(B // chunk, chunk, *x.shape[1:]) for x in inputs)
    y = every(layer, (), parts)[1]
    return y.reshape(B, *y.shape[2:])


def largest_divisor(n: int, at_most: int) -> int:
    """The largest divisor of n that is no larger than `at_most`, which is at least 1."""
    return next(d for d in range(min(n, at_most), 0, -1) if n % d == 0)
