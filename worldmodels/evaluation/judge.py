"""Runs dreamers over held-out windows and keeps, per start and horizon, sums that every score is a ratio of.

metric            a ratio of sums over starts at one horizon
exact             frames with every cell right
cells             cells right
changed           cells right among those that changed in the true world at that tick
strict_*          the same without snapping: every pixel within 8 levels of 255
psnr              of the mean squared error; a mean of per-frame values is infinite as soon as one frame is exact
changed_pixels    pixels within 8 levels of 255 of the true ones, among those that changed since the tick before
changed_psnr      PSNR over the pixels that changed
ssim              mean over frames
tokens            tokens equal to those the heart gives to the true frame
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.evaluation import frames, tiles
from worldmodels.evaluation.dreams import Dreamed, Dreamer, batches
from worldmodels.evaluation.intervals import Estimate, difference, mapped, ratio
from worldmodels.types import Array, Modality, Spec, Ticks

Sums = dict[str, tuple[np.ndarray, np.ndarray]]
DECIBELS = ('psnr', 'changed_psnr')  # kept as squared errors


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked: windows of context + horizon ticks, and how pictures are read.

    `dictionaries` by image modality.
    """

    spec: Spec
    context: int
    horizon: int
    tile: int = 8
    dictionaries: dict[str, np.ndarray | None] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for _, modality in self.spec.observation:
            frames.check_tile(modality, self.tile)

    def tile_of(self, modality: Modality) -> int:
        return self.tile if modality.kind == 'image' else 1


@dataclasses.dataclass
class Film:
    """One start for the eye: frames (context + horizon, ...) true and (S, horizon, ...) dreamed, wrong cells (S, horizon, h,
    w).
    """

    start: int
    true: dict[str, np.ndarray]
    dreamed: dict[str, np.ndarray]
    wrong: dict[str, np.ndarray]
    judged_H: np.ndarray
    cells_right: float


@dataclasses.dataclass
class Verdict:
    """What one dreamer did: sums by modality and metric (B, H) averaged over seeds, outcome means (S, B, H), films."""

    sums: dict[str, Sums]
    outcomes: dict[str, np.ndarray]
    films: list[Film]

    def estimate(self, modality: str, metric: str, group_B: Array | None = None) -> Estimate:
        if metric in DECIBELS:
            return mapped(ratio(*self.sums[modality][metric], group_B, share=False), frames.psnr)
        return ratio(*self.sums[modality][metric], group_B, share=metric != 'ssim')

    def above(self, other: Verdict, modality: str, metric: str, group_B: Array | None = None) -> Estimate:
        """This dreamer's score less the other's, on the same starts."""
        decibels = frames.psnr if metric in DECIBELS else None
        return difference(self.sums[modality][metric], other.sums[modality][metric], group_B, score=decibels)


def judge(
    dreamer: Dreamer,
    windows: Ticks,
    question: Question,
    *,
    seeds: Iterable[int] = (0,),
    batch: int = 64,
    read: Callable[[dict[str, Array]], Array] | None = None,
    show: int = 0,
    advance: Callable[[int], None] = lambda starts: None,
) -> Verdict:
    """Dreams every window once per seed and scores it.

    Args:
      dreamer: (window batch, seed) -> Dreamed.
      windows: held-out experience (B, >= context + horizon) of numpy arrays.
      question: context, horizon, tiles.
      seeds: of the dreams; scores are averaged over them before anything is counted.
      batch: starts dreamed at once.
      read: frames -> tokens, for token accuracy.
      show: films kept: half the first starts, the other half the worst ones.
      advance: told how many dreams were done, for a progress bar.
    """
    seeds, parts, said, films = list(seeds), [], [], []
    for number, (ticks, count) in enumerate(batches(windows, batch)):
        valid_BH = frames.judged(ticks.is_first, ticks.is_last, question.context, question.horizon)
        per_seed, dreamed_by_seed, wrong_by_seed = [], [], []
        for seed in seeds:
            dreamed = jax.tree.map(np.asarray, dreamer(ticks, seed))
            sums, wrong = _score(dreamed, ticks, question, valid_BH, read)
            per_seed.append(sums)
            dreamed_by_seed.append(dreamed)
            wrong_by_seed.append(wrong)
            advance(count)
        mean = jax.tree.map(lambda *x, count=count: np.mean(x, axis=0)[:count], *per_seed)
        parts.append(mean)
        said.append({k: np.stack([d.outcomes[k] for d in dreamed_by_seed])[:, :count] for k in dreamed.outcomes})
        if show:
            batch_films = _films(ticks, dreamed_by_seed, wrong_by_seed, valid_BH, mean, number * batch, count, question)
            films = _choose(films + batch_films, show)
    sums = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return Verdict(sums, jax.tree.map(lambda *x: np.concatenate(x, axis=1), *said), films)


def _score(
    dreamed: Dreamed, ticks: Ticks, question: Question, valid_BH: np.ndarray, read
) -> tuple[dict[str, Sums], dict]:
    """Sums by modality, and which cells were wrong (B, H, h, w)."""
    out, wrong = {}, {}
    for name, modality in question.spec.observation:
        previous, true = frames.align(ticks.observation[name], question.context, question.horizon)
        if modality.kind == 'vector':
            error_BH = np.abs(dreamed.observation[name] - true).mean(-1)
            out[name] = {'error': _masked(error_BH, np.ones_like(error_BH), valid_BH)}
            continue
        table = question.dictionaries.get(name) if modality.kind == 'image' else None
        tile = question.tile_of(modality)
        scores = _picture_scores(
            dreamed.observation[name], previous, true, table, tile=tile, image=modality.kind == 'image'
        )
        scores, right = jax.tree.map(np.asarray, scores)
        wrong[name] = ~right & valid_BH[..., None, None]
        out[name] = {metric: _masked(num_BH, den_BH, valid_BH) for metric, (num_BH, den_BH) in scores.items()}
    if read is not None and dreamed.index_BHN is not None:
        true = {k: frames.align(x, question.context, question.horizon)[1] for k, x in ticks.observation.items()}
        same_BH = (np.asarray(read(true)) == dreamed.index_BHN).mean(-1)
        out['tokens'] = {'tokens': _masked(same_BH, np.ones_like(same_BH), valid_BH)}
    return out, wrong


def _masked(num_BH, den_BH, valid_BH) -> tuple[np.ndarray, np.ndarray]:
    return np.where(valid_BH, num_BH, 0).astype(np.float64), np.where(valid_BH, den_BH, 0).astype(np.float64)


@partial(jax.jit, static_argnames=('tile', 'image'))
def _picture_scores(dreamed, previous, true, table, *, tile: int, image: bool):
    """{metric: (num (B, H), den (B, H))} and the cells that are right (B, H, h, w)."""
    cell_d, cell_p, cell_t = (frames.cells(x, tile) for x in (dreamed, previous, true))
    changed = frames.cells_changed(cell_t, cell_p)
    one = jnp.ones(changed.shape[:2])

    def shares(right, prefix):
        return {
            f'{prefix}exact': (right.all((-1, -2)), one),
            f'{prefix}cells': (right.sum((-1, -2)), one * right.shape[-1] * right.shape[-2]),
            f'{prefix}changed': ((right & changed).sum((-1, -2)), changed.sum((-1, -2))),
        }

    strict = frames.cells_right(cell_d, cell_t, frames.LENIENCE if image else 0)
    right = frames.cells_right(tiles.snap(cell_d, table), cell_t) if table is not None else strict
    scores = shares(right, '')
    if image:
        scores |= shares(strict, 'strict_') | {'psnr': (frames.squared_error(dreamed, true), one)}
        moved = frames.cells_changed(true, previous)  # pixel by pixel
        count = moved.sum((-1, -2))
        near = frames.cells_right(dreamed, true, frames.LENIENCE)
        square = jnp.square(dreamed.astype(jnp.float32) - true.astype(jnp.float32)).mean(-1)
        scores['changed_pixels'] = ((near & moved).sum((-1, -2)), count)
        scores['changed_psnr'] = (jnp.where(moved, square, 0).sum((-1, -2)), count)
        if min(true.shape[-3:-1]) >= frames.WINDOW:
            scores['ssim'] = (frames.ssim(dreamed, true), one)
    return scores, right


def _films(ticks, dreamed, wrong, valid_BH, mean, offset, count, question: Question) -> list[Film]:
    names = [name for name, m in question.spec.observation if m.kind != 'vector']
    if not names:
        return []
    end = question.context + question.horizon
    share_B = mean[names[0]]['cells'][0].sum(1) / np.maximum(mean[names[0]]['cells'][1].sum(1), 1)
    return [
        Film(
            start=offset + b,
            true={k: np.asarray(ticks.observation[k])[b, :end].copy() for k in names},
            dreamed={k: np.stack([d.observation[k][b] for d in dreamed]) for k in names},
            wrong={k: np.stack([w[k][b] for w in wrong]) for k in names},
            judged_H=valid_BH[b],
            cells_right=float(share_B[b]),
        )
        for b in range(count)
        if valid_BH[b].any()
    ]


def _choose(films: list[Film], show: int) -> list[Film]:
    """The first starts as they came, then the worst of the rest: neither hand-picked nor flattering."""
    films = sorted(films, key=lambda f: f.start)
    first = films[: (show + 1) // 2]
    worst = sorted(films[len(first) :], key=lambda f: f.cells_right)[: show - len(first)]
    return first + worst


def tile_dictionaries(
    training: Callable[[], Iterable[dict[str, Array]]], spec: Spec, tile: int
) -> dict[str, np.ndarray | None]:
    """A dictionary of tiles per image modality; None where pictures are not made of tiles.

    `training()` gives training frames (..., H, W, C) by modality, batch by batch, from the start whenever it is called.
    """
    names = [name for name, modality in spec.observation if modality.kind == 'image']
    return {name: tiles.dictionary((frames[name] for frames in training()), tile) for name in names}
