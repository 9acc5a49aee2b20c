r"""How alike two frames are: PSNR, SSIM (Wang et al., 2004), exact frames, cells, changed cells.

$$\mathrm{PSNR} = 10 \log_{10} \frac{255^2}{\mathrm{MSE}}, \qquad
\mathrm{SSIM} = \frac{(2 \mu_x \mu_y + c_1)(2 \sigma_{xy} + c_2)}{(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)}$$

All scores compare a frame dreamed at horizon k with the true frame of the SAME tick. `align` is the only place where
ticks become horizons: with C ticks of context, horizon k (1, 2, ...) is tick C + k - 1, and what changed there is
told against tick C + k - 2. Arrays are (..., H, W, C): any leading axes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.types import Array, Modality

WINDOW = 11  # of SSIM, in pixels
SIGMA = 1.5
CEILING = 100.0  # dB; what an exact picture scores, whose PSNR has no finite value
LENIENCE = (
    8  # levels of 255 that the strict cell score forgives: about 3 percent, below what the eye tells apart in a tile
)


def align(x_BT: Array, context: int, horizon: int) -> tuple[Array, Array]:
    """(B, T, ...) -> what stood one tick before, and what stands at, horizons 1..horizon: two arrays (B, horizon, ...)."""
    if context < 1 or x_BT.shape[1] < context + horizon:
        raise ValueError(
            f'A window of {x_BT.shape[1]} ticks cannot give {context} ticks of context and {horizon} of horizon; '
            'context must be at least 1 and the window at least as long as both together.'
        )
    end = context + horizon
    return x_BT[:, context - 1 : end - 1], x_BT[:, context:end]


def judged(is_first_BT: Array, is_last_BT: Array, context: int, horizon: int) -> np.ndarray:
    """Bool (B, horizon): ticks of the same episode as the last tick of context.

    What follows an ending is nobody's to foresee.
    """
    _, first_BH = align(np.asarray(is_first_BT), context, horizon)
    ended_BH, _ = align(np.asarray(is_last_BT), context, horizon)
    return ~np.logical_or.accumulate(first_BH | ended_BH, axis=1)


def check_tile(modality: Modality, tile: int) -> None:
    """Raises ValueError where a picture cannot be cut into cells of tile x tile pixels."""
    if modality.kind == 'image' and (tile < 1 or modality.shape[0] % tile or modality.shape[1] % tile):
        raise ValueError(
            f'An image of {modality.shape[0]} x {modality.shape[1]} pixels has no whole number of cells of '
            f'{tile} x {tile}; set config.evaluate.tile to a size that divides both.'
        )


def cells(frame: jax.Array, tile: int) -> jax.Array:
    """(..., H, W, C) -> (..., H / tile, W / tile, tile * tile * C). A grid world has tile 1: one cell per place."""
    *lead, H, W, C = frame.shape
    split = frame.reshape(*lead, H // tile, tile, W // tile, tile, C)
    return jnp.moveaxis(split, -4, -3).reshape(*lead, H // tile, W // tile, tile * tile * C)


def cells_right(dreamed: jax.Array, true: jax.Array, tolerance: int = 0) -> jax.Array:
    """Bool (..., h, w) from cells (..., h, w, P): every value within `tolerance` levels of the true one."""
    return (jnp.abs(dreamed.astype(jnp.int32) - true.astype(jnp.int32)) <= tolerance).all(-1)


def cells_changed(true: jax.Array, previous: jax.Array) -> jax.Array:
    """Bool (..., h, w): where the true frame differs from the true frame one tick before."""
    return (true != previous).any(-1)


def squared_error(dreamed: jax.Array, true: jax.Array) -> jax.Array:
    """Mean squared error of each frame, in levels squared: (..., H, W, C) -> (...)."""
    return jnp.square(dreamed.astype(jnp.float32) - true.astype(jnp.float32)).mean((-3, -2, -1))


def psnr(error: Array) -> np.ndarray:
    """Peak signal-to-noise ratio in dB for a range of 255: 10 log10(255^2 / mean squared error), at most CEILING."""
    peak = 255.0**2
    return 10 * np.log10(peak / np.maximum(np.asarray(error, np.float64), peak / 10 ** (CEILING / 10)))


def ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Structural similarity, (..., H, W, C) of 0..255 -> (...): mean over windows and channels.

    As published (Wang, Bovik, Sheikh, Simoncelli, 2004, eq. 13): Gaussian windows of 11 x 11 with sigma 1.5 that lie
    wholly inside the image, K1 = 0.01, K2 = 0.03, L = 255. The paper is about grey images; colours are scored one by
    one. Raises ValueError for an image smaller than a window.
    """
    if min(a.shape[-3:-1]) < WINDOW:
        raise ValueError(f'SSIM needs at least {WINDOW} x {WINDOW} pixels, got {a.shape[-3]} x {a.shape[-2]}.')
    x, y = a.astype(jnp.float32), b.astype(jnp.float32)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    cov = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (light * (2 * cov + c2) / (var_x + var_y + c2)).mean((-3, -2, -1))


def _blur(x: jax.Array) -> jax.Array:
    """The separable Gaussian window over H and W, 'valid': (..., H, W, C) -> (..., H - 10, W - 10, C).

    As two products with banded matrices, which CPUs do faster than eleven shifted sums in each direction.
    """
    rows, columns = _band(x.shape[-3]), _band(x.shape[-2])
    return jnp.einsum('ih,...hwc,jw->...ijc', rows, x, columns, precision=jax.lax.Precision.HIGHEST)


def _band(size: int) -> np.ndarray:
    """(size - 10, size): row i weighs i .. i + 10."""
    weight = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    band = np.zeros((size - WINDOW + 1, size), np.float32)
    for i, row in enumerate(band):
        row[i : i + WINDOW] = weight / weight.sum()
    return band
