"""DreamerV3's 5 x 5 convolutions, made of few large ones; kernels are truncated normal of variance 1 / fan-in."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.nn import initializers
from worldmodels.nn.chunks import kept, split

PATCHES_BYTES = 16_000_000
"""Of the patches that the gradient of a kernel holds at once, on CPU."""

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


def convolve(x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    """3 x 3 convolution (B, H, W, C) with kernel (3, 3, C, F), zeros around -> (B, H, W, F).

    On CPU its gradients are written by hand. XLA there takes the kernel's as a convolution with windows as large as the
    picture, 2 to 3 times slower than products of patches; and inside a loop, the input's by an unoptimised path, up to 20
    times slower than the same convolution written out.
    """
    if jax.default_backend() != 'cpu':
        return plain_convolve(x_BHWC, kernel)
    # Two gradients of two functions, so that the one nobody asks for is not computed.
    y_BHWF = _to_input(x_BHWC, jax.lax.stop_gradient(kernel))
    return _to_kernel(y_BHWF, jax.lax.stop_gradient(x_BHWC), kernel)


def plain_convolve(x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolve` as XLA does it, its gradients included."""
    return jax.lax.conv_general_dilated(x_BHWC, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


_to_input = jax.custom_vjp(plain_convolve)
_to_input.defvjp(
    lambda x, kernel: (plain_convolve(x, kernel), kernel),
    lambda kernel, slope: (plain_convolve(slope, kernel[::-1, ::-1].swapaxes(2, 3)), None),
)


@jax.custom_vjp
def _to_kernel(y_BHWF: jax.Array, x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    """y, whose slope also gives the kernel's gradient, a few frames of patches at a time."""
    return y_BHWF


def _forward(y_BHWF: jax.Array, x_BHWC: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return y_BHWF, (x_BHWC, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], slope_BHWF: jax.Array) -> tuple[jax.Array, None, jax.Array]:
    x_BHWC, kernel = saved
    H, W, C = x_BHWC.shape[1:]

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, slope = part
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = jnp.concatenate([x[:, i : i + H, j : j + W] for i in range(3) for j in range(3)], -1)
        patches, slope = patches.reshape(-1, 9 * C), slope.reshape(-1, slope.shape[-1])
        return total + jnp.matmul(patches.T, slope, preferred_element_type=total.dtype), None

    parts = split((x_BHWC, slope_BHWF), 9 * H * W * C * x_BHWC.dtype.itemsize, PATCHES_BYTES)
    total = jnp.zeros((9 * C, kernel.shape[-1]), jnp.promote_types(kernel.dtype, jnp.float32))
    total, _ = jax.lax.scan(add, total, parts)
    return slope_BHWF, None, total.reshape(kernel.shape).astype(kernel.dtype)


_to_kernel.defvjp(_forward, _backward)


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """The maximum. Its gradient needs to know which it was, and neither of the two."""
    return jnp.where(kept(a >= b), a, b)


class _Convolution(nn.Module):
    """The parameters of a 5 x 5 convolution to `units` channels."""

    units: int
    dtype: str

    @nn.nowrap
    def _parameters(self, channels: int) -> tuple[jax.Array, jax.Array]:
        kernel = self.param('kernel', initializers.Scaled(), (5, 5, channels, self.units))
        return kernel, self.param('bias', initializers.zeros, (self.units,))


class ConvDown(_Convolution):
    """5 x 5 convolution and 2 x 2 max-pool, (B, H, W, C) -> (B, H/2, W/2, units); DreamerV3's encoder layer, unnormed.

    Computed as one 3 x 3 convolution from the 2 x 2 pixels of a block to the 2 x 2 outputs that are pooled: 1.44 times
    the arithmetic with four times the channels, so that it runs as a large matmul and the pool is a maximum of
    channels. Same parameters and, up to rounding, the same function.
    """

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        B, H, W, C = x_BHWC.shape
        kernel, bias = self._parameters(C)
        down = _pair_taps()[0]
        kernel = jnp.einsum('dupr,evqs,deio->uvpqirso', down, down, kernel).reshape(3, 3, 4 * C, 4 * self.units)
        x = x_BHWC.astype(self.dtype).reshape(B, H // 2, 2, W // 2, 2, C).transpose(0, 1, 3, 2, 4, 5)
        y = convolve(x.reshape(B, H // 2, W // 2, 4 * C), kernel.astype(self.dtype))
        a, b, c, d = jnp.split(y, 4, -1)
        y = _larger(_larger(a, b), _larger(c, d))
        return kept(y) + bias.astype(self.dtype)


class ConvUp(_Convolution):
    """Doubling by repetition and 5 x 5 convolution, (B, H, W, C) -> (B, 2H, 2W, units); DreamerV3's decoder layer,
    unnormed.

    Taps that fall on copies of the same pixel are summed beforehand: one 3 x 3 convolution on the small grid gives all
    2 x 2 outputs of a pixel, with 9/25 of the arithmetic. Same parameters and, up to rounding, the same function.
    """

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        B, H, W, C = x_BHWC.shape
        kernel, bias = self._parameters(C)
        up = _pair_taps()[1]
        kernel = jnp.einsum('dur,evs,deio->uvirso', up, up, kernel).reshape(3, 3, C, 4 * self.units)
        y = convolve(x_BHWC.astype(self.dtype), kernel.astype(self.dtype)).reshape(B, H, W, 2, 2, self.units)
        y = y.transpose(0, 1, 3, 2, 4, 5).reshape(B, 2 * H, 2 * W, self.units)
        return kept(y) + bias.astype(self.dtype)
