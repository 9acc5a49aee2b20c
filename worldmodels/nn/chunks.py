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
    if jax.default_backend() != 'cpu' or layer.is_initializing():
        return layer(*inputs)
    parts = split(inputs, frame_bytes, CHUNK_BYTES)
    if len(parts[0]) == 1:
        return layer(*inputs)

    def one(layer: nn.Module, carry: tuple, part: tuple) -> tuple[tuple, Any]:
        return carry, layer(*part)

    policy = jax.checkpoint_policies.save_only_these_names(_KEPT)
    every = nn.scan(nn.remat(one, policy=policy, prevent_cse=False), variable_broadcast='params', split_rngs={})
    y = every(layer, (), parts)[1]
    return y.reshape(-1, *y.shape[2:])


def split(arrays: tuple[jax.Array, ...], frame_bytes: int, budget: int) -> tuple[jax.Array, ...]:
    """Arrays (B, ...) -> (chunks, frames, ...): as many frames in each chunk as divide B and fit the budget, at least one."""
    B = arrays[0].shape[0]
    at_most = min(B, max(budget // frame_bytes, 1))
    frames = next(n for n in range(at_most, 0, -1) if B % n == 0)
    return tuple(x.reshape(B // frames, frames, *x.shape[1:]) for x in arrays)
