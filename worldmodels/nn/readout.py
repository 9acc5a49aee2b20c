"""Per-token features of (z, a, context), for parts that would need enormous matmuls if they read a token grid flat."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense
from worldmodels.nn.layers import norm
from worldmodels.nn.transformer import EmbedLatent
from worldmodels.types import Latent, flat


class Flat(nn.Module):
    """Everything known side by side: (B, N E + A + M D). For latents of few, loose tokens."""

    dtype: str

    def __call__(self, z: Latent, action_BA: jax.Array, context_BMD: jax.Array) -> jax.Array:
        return jnp.concatenate([flat(x, 1).astype(self.dtype) for x in (z.embedding_BNE, action_BA, context_BMD)], -1)


def divide(context_BMD: jax.Array, tokens: int, aligned: bool) -> tuple[jax.Array, jax.Array]:
    """The slots of a context that belong to the tokens, (B, N, D) or none at all, and the further ones.

    `aligned` is the memory's (`memory.base.Memory`): a part that reads contexts has it filled in as a field.
    """
    own = tokens if aligned else 0
    return context_BMD[:, :own], context_BMD[:, own:]


class PerToken(nn.Module):
    """One feature vector per token, (B, N, width): its own embedding, its place, the action and the context.

    Slots of the context that belong to the tokens are read by each token at its own; further ones are flattened and read by
    all. `table` is the number of classes where tokens are also looked up by index, else None. `aligned`: see `divide`.
    """

    width: int
    dtype: str
    table: int | None
    aligned: bool

    @nn.compact
    def __call__(self, z: Latent, action_BA: jax.Array, context_BMD: jax.Array) -> jax.Array:
        N = z.embedding_BNE.shape[1]
        dense = functools.partial(Dense, self.width, use_bias=False, dtype=self.dtype)
        place = self.param('place', initializers.Normal(0.5), (N, self.width))
        x_BND = EmbedLatent(self.width, self.dtype, self.table)(z) + place.astype(self.dtype)
        x_BND = x_BND + dense(name='action')(action_BA)[:, None]
        own_BND, further_BMD = divide(context_BMD, N, self.aligned)
        if own_BND.shape[1]:
            x_BND = x_BND + dense(name='context')(own_BND)
        if further_BMD.shape[1]:
            x_BND = x_BND + dense(name='further')(flat(further_BMD, 1))[:, None]
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
