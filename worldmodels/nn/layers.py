"""Layers of the recurrent vertical: normed MLPs, block-diagonal matmuls, and 5 x 5 convolutions made of few large ones.

Kernels are truncated normal of variance 1 / fan-in (flax's default, DreamerV3's `trunc_normal_in`); parameters and
norms are float32, matmuls the compute dtype.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.nn.dense import Dense


def norm(dtype: str, name: str | None = None) -> nn.RMSNorm:
    """RMSNorm over the last axis, DreamerV3's epsilon."""
    return nn.RMSNorm(epsilon=1e-4, dtype=dtype, name=name)


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
        init = nn.initializers.variance_scaling(self.share, 'fan_in', 'truncated_normal', batch_axis=(0,))
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
            y = y + self.param('bias', nn.initializers.zeros, (self.units,)).astype(self.dtype)
        return y


# A 5-tap filter seen from a grid of pixel pairs. Output pixel r of a pair reads input pixels of the pair and of its
# two neighbours: of both pixels of each (downsampling), or of the one value both were copied from (upsampling).


@functools.cache
def _pair_taps() -> tuple[np.ndarray, np.ndarray]:
    """0/1 tensors: down[d, u, p, r], tap d of output r is pixel p of neighbour u; up[d, u, r], it is neighbour u."""
    down, up = np.zeros((5, 3, 2, 2), np.float32), np.zeros((5, 3, 2), np.float32)
    for r in range(2):
        for d in range(5):
            u, p = divmod(r + d - 2, 2)
            down[d, u + 1, p, r] = up[d, u + 1, r] = 1
    return down, up


def _convolve(x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x_BHWC, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


class ConvDown(nn.Module):
    """5 x 5 convolution and 2 x 2 max-pool, (B, H, W, C) -> (B, H/2, W/2, units); DreamerV3's encoder layer, unnormed.

    Computed as one 3 x 3 convolution from the 2 x 2 pixels of a block to the 2 x 2 outputs that are pooled: 1.44 times
    the arithmetic with four times the channels, so that it runs as a large matmul and the pool is a maximum of
    channels. Same parameters and, up to rounding, the same function.
    """

    units: int
    dtype: str

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        B, H, W, C = x_BHWC.shape
        kernel = self.param('kernel', nn.initializers.lecun_normal(), (5, 5, C, self.units))
        bias = self.param('bias', nn.initializers.zeros, (self.units,))
        down = _pair_taps()[0]
        kernel = jnp.einsum('dupr,evqs,deio->uvpqirso', down, down, kernel).reshape(3, 3, 4 * C, 4 * self.units)
        x = x_BHWC.astype(self.dtype).reshape(B, H // 2, 2, W // 2, 2, C).transpose(0, 1, 3, 2, 4, 5)
        y = _convolve(x.reshape(B, H // 2, W // 2, 4 * C), kernel.astype(self.dtype))
        a, b, c, d = jnp.split(y, 4, -1)
        return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d)) + bias.astype(self.dtype)


class ConvUp(nn.Module):
    """Doubling by repetition and 5 x 5 convolution, (B, H, W, C) -> (B, 2H, 2W, units); DreamerV3's decoder layer,
    unnormed.

    Taps that fall on copies of the same pixel are summed beforehand: one 3 x 3 convolution on the small grid gives all
    2 x 2 outputs of a pixel, with 9/25 of the arithmetic. Same parameters and, up to rounding, the same function.
    """

    units: int
    dtype: str

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        B, H, W, C = x_BHWC.shape
        kernel = self.param('kernel', nn.initializers.lecun_normal(), (5, 5, C, self.units))
        bias = self.param('bias', nn.initializers.zeros, (self.units,))
        up = _pair_taps()[1]
        kernel = jnp.einsum('dur,evs,deio->uvirso', up, up, kernel).reshape(3, 3, C, 4 * self.units)
        y = _convolve(x_BHWC.astype(self.dtype), kernel.astype(self.dtype)).reshape(B, H, W, 2, 2, self.units)
        return y.transpose(0, 1, 3, 2, 4, 5).reshape(B, 2 * H, 2 * W, self.units) + bias.astype(self.dtype)
