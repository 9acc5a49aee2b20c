r"""How far a dream drifts from the true world: the same start and the same actions, held-out trajectories, tick by tick.

$$d_b(k) = \sum_{\mathrm{cells}} [\hat o_{b,k} \ne o_{b,k}], \qquad k^* = \min \{k : \bar d(k) \gt \theta\}$$

d is the number of wrong cells of a frame: of a grid its places, of a picture its tiles, which are wrong where a pixel is
more than 8 levels of 255 away. Said of it: mean and deviation over trajectories at every horizon; k*, the horizon at the
threshold; the slope, by least squares, in cells per 100 ticks. Copying the last frame seen is the level at which nothing is
known but the start. Dreams feed on themselves: small errors grow into frames nobody trained on (Ross et al., 2011, arXiv
1011.0686).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.build import read_dials
from worldmodels.data import pipeline
from worldmodels.evaluation import dreams, recall, starts
from worldmodels.evaluation.examine import Trained
from worldmodels.evaluation.frames import LENIENCE, align, cells, cells_right
from worldmodels.types import Array, Spec

HORIZONS = (1, 10, 50, 100, 200)
"""Of which a report's columns tell, up to the horizon asked for."""


def run(
    trained: Trained,
    *,
    data: str = '',
    count: int = 64,
    context: int = 8,
    horizon: int = 200,
    threshold: float = 1.0,
    tile: int = 8,
    dials: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The report of one model, for JSON; `columns` is its row in a table.

    Args:
      data: dataset, whose validation episodes are dreamed; default: the one it was trained on.
      count: trajectories. context, horizon: ticks watched, then dreamed, all within one episode.
      threshold: of the mean distance, in cells.
      tile: pixels of a cell's side.
      dials: of the transition, as values or as text.

    Raises:
      ValueError: episodes that are too short or too few, or dials that the transition does not have.
    """
    model, spec = trained.model, trained.model.spec
    turned = read_dials(trained.config.model, spec, dials or {})
    path = data or trained.config.data.path
    held_out = pipeline.Episodes(path, 'validation', spec)
    windows, _ = starts.draw(held_out, count, context, horizon, seed, whole=True)
    dreamers = {
        'model': dreams.imagined(model, trained.variables, context, horizon, **turned),
        'copy': dreams.copy_last(context, horizon),
    }
    size = dreams.batch_size(spec, count, context + horizon)
    found = {name: [] for name in dreamers}
    for rows, full in dreams.batches(windows, size):
        true = {k: align(x, context, horizon)[1] for k, x in rows.observation.items()}
        for name, dreamer in dreamers.items():
            found[name].append(np.asarray(wrong_cells(spec, dreamer(rows, seed).observation, true, tile))[:full])
    distance = {name: np.concatenate(x) for name, x in found.items()}
    return {
        'columns': summary(distance['model'], distance['copy'], threshold),
        'setup': {'data': str(path), 'context': context, 'horizon': horizon, 'threshold': threshold, 'dials': turned},
        **{f'mean_{name}': x.mean(0).tolist() for name, x in distance.items()},
        **{f'sd_{name}': x.std(0).tolist() for name, x in distance.items()},
        **recall.about(trained),
    }


def wrong_cells(spec: Spec, dreamed: Mapping[str, Array], true: Mapping[str, Array], tile: int) -> jax.Array:
    """How many cells of frames (B, H, ...) are not the true ones, (B, H) float32."""
    pictures = tuple((name, m.kind == 'image') for name, m in spec.observation if m.kind != 'vector')
    if not pictures:
        raise ValueError('Drift is counted in cells of pictures or grids, and this world shows vectors only.')
    return _wrong(
        {k: jnp.asarray(dreamed[k]) for k, _ in pictures},
        {k: jnp.asarray(true[k]) for k, _ in pictures},
        pictures,
        tile,
    )


@functools.partial(jax.jit, static_argnames=('pictures', 'tile'))
def _wrong(dreamed: dict, true: dict, pictures: tuple[tuple[str, bool], ...], tile: int) -> jax.Array:
    total = jnp.zeros(())
    for name, is_image in pictures:
        cut = functools.partial(cells, tile=tile if is_image else 1)
        right = cells_right(cut(dreamed[name]), cut(true[name]), LENIENCE if is_image else 0)
        total = total + jnp.sum(~right, (-2, -1), dtype=jnp.float32)
    return total


def summary(model_BH: np.ndarray, copy_BH: np.ndarray, threshold: float) -> dict[str, Any]:
    """Columns: mean and deviation at some horizons, copying at the last, horizon at the threshold, slope."""
    mean_H, horizon = model_BH.mean(0), model_BH.shape[1]
    shown = sorted({k for k in HORIZONS if k < horizon} | {horizon})
    columns: dict[str, Any] = {}
    for k in shown:
        columns |= {f'wrong_{k}': float(mean_H[k - 1]), f'wrong_{k}_sd': float(model_BH[:, k - 1].std())}
    beyond = np.flatnonzero(mean_H > threshold)
    columns[f'copy_wrong_{horizon}'] = float(copy_BH[:, -1].mean())
    columns['horizon_at_threshold'] = int(beyond[0]) + 1 if beyond.size else f'beyond {horizon}'
    columns['slope'] = 100 * float(np.polyfit(np.arange(1, horizon + 1), mean_H, 1)[0]) if horizon > 1 else 0.0
    return columns
