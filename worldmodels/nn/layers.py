"""Layers of the recurrent vertical: normed MLPs and block-diagonal matmuls.

Kernels are truncated normal of variance 1 / fan-in (flax's default, DreamerV3's `trunc_normal_in`); parameters and
norms are float32, matmuls the compute dtype.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense


def norm(dtype: str, name: str | None = None) -> nn.RMSNorm:
    """RMSNorm over the last axis, DreamerV3's epsilon."""
    return nn.RMSNorm(epsilon=1e-4, dtype=dtype, scale_init=initializers.Constant(1.0), name=name)


class NormDense(nn.Module):
    """silu(RMSNorm(x W + b)), (..., any) -> (..., units)."""

    units: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.silu(norm(self.dtype)(Dense(self.units, dtype=self.dtype)(x)))


class MLP(nn.Module):
    """`layers` times NormDense of `units`."""

    layers: int
    units: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.layers):
            x = NormDense(self.units, self.dtype)(x)
        return x


class BlockLinear(nn.Module):
    """Block-diagonal matmul (..., inputs) -> (..., units): each of `blocks` groups of inputs feeds its own group of
    outputs.

    `share` is the share of a larger fan-in this matmul stands for, where several add up to one layer.
    """

    units: int
    blocks: int
    dtype: str
    use_bias: bool = True
    share: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        g = self.blocks
        init = initializers.Scaled(self.share, batch_axes=1)
        kernel = self.param('kernel', init, (g, x.shape[-1] // g, self.units // g))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if jax.default_backend() == 'cpu':
            # XLA's batched matmul is 2 to 6 times slower there than a matmul per block, batch 1 excepted.
            parts = jax.lax.split(x, [x.shape[-1] // g] * g, axis=x.ndim - 1)
            kernels = jax.lax.split(kernel, [1] * g, axis=0)
            y = jnp.concatenate([part @ k[0] for part, k in zip(parts, kernels)], -1)
        else:
            y = jnp.einsum('...gi,gio->...go', x.reshape(*x.shape[:-1], g, -1), kernel)
            y = y.reshape(*y.shape[:-2], self.units)
        if self.use_bias:
            y = y + self.param('bias', initializers.zeros, (self.units,)).astype(self.dtype)
        return y
