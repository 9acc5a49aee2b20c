r"""Transformer blocks the masked network, the tokenizer and the window memory share.

$$y = x + \mathrm{Attention}(\bar x) + W_2\,\mathrm{relu}(W_1 \bar x)^2, \qquad \bar x = \mathrm{RMSNorm}(x)$$

Pre-norm, side by side (Chowdhery et al., 2022, arXiv 2204.02311), RMSNorm, QK-norm (Dehghani et al., 2023, arXiv
2302.05442), squared ReLU (So et al., 2021, arXiv 2109.08668), no biases. Sums and norms are float32, matmuls the
compute dtype.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense
from worldmodels.remat import block
from worldmodels.types import Latent, Layout

MASKED = -1e30


def dense(width: int, dtype: str, name: str | None = None, scale: float = 1.0) -> nn.Dense:
    """A matmul without bias, truncated normal of variance scale / fan-in."""
    init = initializers.Scaled(scale)
    return Dense(width, use_bias=False, dtype=dtype, kernel_init=init, name=name)


def attend(
    q_HQC: jax.Array,
    k_HSC: jax.Array,
    v_HSC: jax.Array,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Softmax attention of (..., heads, slots, C); bias and mask broadcast to (..., heads, Q, S). Every query sees a key.

    A key that is masked has weight exactly zero, but 0 * NaN is NaN: values are therefore cleaned where they are NaN. Nothing
    is hidden by it, since the key of a NaN input is NaN too and poisons the logits of every query that may see it.
    """
    logits = jnp.einsum('...qc,...sc->...qs', q_HQC, k_HSC, preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = jnp.where(mask, logits, MASKED)
        v_HSC = jnp.where(jnp.isnan(v_HSC), jnp.zeros((), v_HSC.dtype), v_HSC)
    weights = jnp.exp(logits - jax.lax.stop_gradient(jnp.max(logits, -1, keepdims=True)))
    total = jnp.sum(weights, -1, keepdims=True)
    y_HQC = jnp.einsum('...qs,...sc->...qc', weights.astype(v_HSC.dtype), v_HSC)
    return y_HQC / total.astype(y_HQC.dtype)  # Q x C divisions where dividing the weights takes Q x S


def rms_norm(dtype: str) -> nn.RMSNorm:
    """RMSNorm without a learned scale: the matmul that follows every one of ours absorbs it, and XLA on CPU would spend a
    pass over memory on broadcasting it."""
    return nn.RMSNorm(use_scale=False, dtype=dtype)


class QKV(nn.Module):
    """Queries, keys and values of `heads` heads, queries and keys normalised, queries scaled by a learned temperature.

    (..., S, D) -> three of (..., heads, S, C): heads before slots, as the products of attention want them.
    """

    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x_SD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        C = x_SD.shape[-1] // self.heads
        qkv = dense(3 * x_SD.shape[-1], self.dtype)(x_SD).reshape(*x_SD.shape[:-1], 3, self.heads, C)
        q, k, v = jnp.moveaxis(qkv, (-3, -2), (0, -3))
        gain_H = self.param('gain', initializers.Constant(2.0), (self.heads,))
        norm = rms_norm(self.dtype)
        q = norm(q) * (gain_H / jnp.sqrt(C))[:, None, None].astype(q.dtype)
        return q, norm(k), v


def join_heads(y_HSC: jax.Array) -> jax.Array:
    """(..., heads, S, C) -> (..., S, heads * C)."""
    y = y_HSC.swapaxes(-3, -2)
    return y.reshape(*y.shape[:-2], y.shape[-2] * y.shape[-1])


class SelfAttention(nn.Module):
    """Bidirectional attention among the S slots of one frame."""

    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x_BSD: jax.Array) -> jax.Array:
        y = attend(*QKV(self.heads, self.dtype)(x_BSD))
        return dense(x_BSD.shape[-1], self.dtype, 'out')(join_heads(y))


class Feed(nn.Module):
    """The position-wise half of a block."""

    hidden: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = jnp.square(jax.nn.relu(dense(self.hidden, self.dtype)(x)))
        return dense(x.shape[-1], self.dtype, 'out')(y)


class Neighbours(nn.Module):
    """Depthwise 3 x 3 mixing on the token grid: a translation-equivariant sense of "next to", as in CPE (arXiv 2102.10882).

    Written as nine shifted products, which XLA fuses; a grouped convolution is many times slower on CPU.
    """

    grid: tuple[int, int]

    @nn.compact
    def __call__(self, x_BND: jax.Array) -> jax.Array:
        (gh, gw), D = self.grid, x_BND.shape[-1]
        kernel = self.param('kernel', initializers.Normal(0.2), (3, 3, D)).astype(x_BND.dtype)
        x = jnp.pad(x_BND.reshape(-1, gh, gw, D), ((0, 0), (1, 1), (1, 1), (0, 0)))
        y = sum(x[:, i : i + gh, j : j + gw] * kernel[i, j] for i in range(3) for j in range(3))
        return y.reshape(x_BND.shape)


class Block(nn.Module):
    """Attention among the slots of a frame and, beside it, a feed-forward (Chowdhery et al., 2022, arXiv 2204.02311).

    `grid` adds 3 x 3 mixing of the first gh * gw slots before both.
    """

    heads: int
    hidden: int
    dtype: str
    grid: tuple[int, int] | None = None

    @nn.compact
    def __call__(self, x_BSD: jax.Array) -> jax.Array:
        norm = rms_norm(self.dtype)
        if self.grid:
            N = self.grid[0] * self.grid[1]
            mixed = Neighbours(self.grid)(norm(x_BSD[:, :N]))
            x_BSD = x_BSD.at[:, :N].add(mixed) if x_BSD.shape[1] > N else x_BSD + mixed
        y_BSD = norm(x_BSD)
        x_BSD = x_BSD + SelfAttention(self.heads, self.dtype)(y_BSD) + Feed(self.hidden, self.dtype)(y_BSD)
        return block(x_BSD)


class EmbedLatent(nn.Module):
    """Tokens of a latent (..., N) to width D: a projection of their embedding and, where `classes` is given, a table by index.

    Row K of the table stands for "no token yet", the latent before an opening.
    """

    width: int
    dtype: str
    classes: int | None

    @nn.compact
    def __call__(self, z: Latent) -> jax.Array:
        x = dense(self.width, self.dtype)(z.embedding_BNE)
        if self.classes is not None:
            table = self.param('table', initializers.Normal(0.5), (self.classes + 1, self.width))
            x = x + jnp.take(table, z.index_BN, axis=0).astype(x.dtype)
        return x


def grid_of(layout: Layout) -> tuple[int, int] | None:
    """The token grid where a frame is exactly one grid, else None."""
    return layout.grids[0] if len(layout.grids) == 1 and not layout.loose else None
