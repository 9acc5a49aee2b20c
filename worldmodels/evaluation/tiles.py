"""A dictionary of the tiles a world is drawn with, and the snapping of dreamed cells to it.

Why: a heart that draws continuous colours never hits a level exactly, so "is this cell right?" needs a rule. Counting
small colour errors as mistakes would measure the decoder's finish, not the dream. So a dreamed cell is read as the
nearest tile (least squared difference) among those seen in TRAINING frames, and is right when that tile is, to the
last pixel, the true one. The true frame is never snapped: a tile that training never showed counts as wrong.

What it cannot see: blur, tint or noise too weak to change which tile is nearest; a ghost, two tiles mixed, is read as
the stronger of the two; a cell that looks like nothing at all still gets a name. Read the snapped scores beside the
strict ones (every pixel within 8 levels of 255, no snapping), PSNR and SSIM, which look at raw pixels. A world whose
frames are not made of tiles overflows the dictionary; then nothing is snapped and only the strict scores are given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.evaluation.frames import cells
from worldmodels.types import Array

LIMIT = 4096  # tiles; above it a world is no tile world
CANDIDATES = 4
CELLS_AT_ONCE = 4096  # bounds the table of distances: 4096 x LIMIT floats, 64 MiB


def dictionary(frames: Iterable[Array], tile: int, limit: int = LIMIT) -> np.ndarray | None:
    """Unique tiles (M, tile * tile * C) uint8 of frames (..., H, W, C), commonest first; None above `limit` tiles."""
    seen: Counter[bytes] = Counter()
    size = 0
    for batch in frames:
        patches = np.asarray(cells(np.asarray(batch, np.uint8), tile))
        size = patches.shape[-1]
        seen.update(map(bytes, patches.reshape(-1, size)))
        if len(seen) > limit:
            return None
    if not seen:
        raise ValueError('No training frames were given to collect tiles from.')
    return np.stack([np.frombuffer(patch, np.uint8) for patch, _ in seen.most_common()]).reshape(-1, size)


def snap(patches: jax.Array, dictionary_MP: Array) -> jax.Array:
    """Cells (..., P) -> the nearest tiles, same shape, uint8.

    Candidates come from one matrix product in float32; among them the squared distance is taken again in integers, so
    a cell that is a tile stays that tile even where another differs by a single level.
    """
    table = jnp.asarray(dictionary_MP)
    # Centred values keep the rounding of |d|^2 - 2 c.d small.
    centred_MP = table.astype(jnp.float32) - 128
    norm_M = jnp.square(centred_MP).sum(-1)
    candidates = min(CANDIDATES, table.shape[0])

    def one(patch_P):
        product_M = jnp.matmul(centred_MP, patch_P.astype(jnp.float32) - 128, precision=jax.lax.Precision.HIGHEST)
        _, near = jax.lax.top_k(2 * product_M - norm_M, candidates)
        gap = table[near].astype(jnp.int32) - patch_P.astype(jnp.int32)
        return table[near[jnp.argmin(jnp.square(gap).sum(-1))]]

    flat_XP = patches.reshape(-1, patches.shape[-1])
    return jax.lax.map(one, flat_XP, batch_size=CELLS_AT_ONCE).reshape(patches.shape)


def coverage(frame: Array, tile: int, dictionary_MP: np.ndarray) -> float:
    """Share of the cells of frames (..., H, W, C) that the dictionary holds: no snapped score can be above it."""
    known = {bytes(row) for row in dictionary_MP}
    patches = np.asarray(cells(np.asarray(frame, np.uint8), tile))
    patches = patches.reshape(-1, patches.shape[-1])
    return float(np.mean([bytes(p) in known for p in patches]))
