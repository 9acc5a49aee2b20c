"""Per-token features of (z, a, context), for parts that would need enormous matmuls if they read a token grid flat."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels.nn.dense import Dense
from worldmodels.nn.layers import norm
from worldmodels.nn.transformer import EmbedLatent
from worldmodels.types import Latent, flat


class Flat(nn.Module):
    """Everything known side by side: (B, N E + A + M D). For latents of few, loose tokens."""

    dtype: str

    def __call__(self, z: Latent, action_BA: jax.Array, context_BMD: jax.Array) -> jax.Array:
        return jnp.concatenate([flat(x, 1).astype(self.dtype) for x in (z.embedding_BNE, action_BA, context_BMD)], -1)


class PerToken(nn.Module):
    """One feature vector per token, (B, N, width): its own embedding, its place, the action and the context.

    A context with one slot per token is read by each token at its own slot; any other is flattened and read by all.
    `table` is the number of classes where tokens are also looked up by index, else None.
    """

    width: int
    dtype: str
    table: int | None = None

    @nn.compact
    def __call__(self, z: Latent, action_BA: jax.Array, context_BMD: jax.Array) -> jax.Array:
        N = z.embedding_BNE.shape[1]
        dense = functools.partial(Dense, self.width, use_bias=False, dtype=self.dtype)
        place = self.param('place', nn.initializers.normal(0.5), (N, self.width))
        x_BND = EmbedLatent(self.width, self.dtype, self.table)(z) + place.astype(self.dtype)
        x_BND = x_BND + dense(name='action')(action_BA)[:, None]
        if context_BMD.shape[1]:
            aligned = context_BMD.shape[1] == N
            x_BND = x_BND + dense(name='context')(context_BMD if aligned else flat(context_BMD, 1)[:, None])
        return nn.silu(norm(self.dtype, 'norm')(x_BND))


class Mixer(nn.Module):
    """Tokens look at one another by a learned N x N matrix, then each goes through an MLP (Tolstikhin et al., 2021)."""

    dtype: str

    @nn.compact
    def __call__(self, x_BND: jax.Array) -> jax.Array:
        N, D = x_BND.shape[1:]
        y_BDN = Dense(N, dtype=self.dtype, name='across')(norm(self.dtype)(x_BND).transpose(0, 2, 1))
        x_BND = x_BND + nn.silu(y_BDN).transpose(0, 2, 1)
        y_BND = nn.silu(Dense(2 * D, dtype=self.dtype, name='up')(norm(self.dtype)(x_BND)))
        return x_BND + Dense(D, dtype=self.dtype, name='down')(y_BND)
