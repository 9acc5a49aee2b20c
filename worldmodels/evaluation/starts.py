"""Held-out starts: where in which episodes the dreams begin.

Of a window only the context and one tick more must lie inside the episode, so endings, and the rewards that come with
them, may fall on any horizon. After an ending the window is filled with its last tick, which nobody judges
(`frames.judged`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from worldmodels.data.episodes import as_ticks, to_ticks
from worldmodels.types import Spec, Ticks


class Episodes(Protocol):
    """What `worldmodels.data.pipeline.Episodes` offers: frames in each episode, and the episodes themselves."""

    lengths: Sequence[int]
    spec: Spec

    def __getitem__(self, index: int) -> dict[str, Any]: ...


def draw(
    episodes: Episodes, count: int, context: int, horizon: int, seed: int, whole: bool = False
) -> tuple[Ticks, np.ndarray]:
    """`count` windows of context + horizon ticks, and the episode (count,) each was taken from; no window twice.

    Every episode gives one window, at a random place, before any gives its second. `whole`: all of a window lies within its
    episode.

    Raises:
      ValueError: there are not as many places to start from.
    """
    places = np.maximum(np.asarray(episodes.lengths) - context - whole * (horizon - 1), 0)
    if places.sum() < count and whole:
        raise ValueError(
            f'The held-out episodes offer {places.sum()} windows of {context + horizon} ticks, not {count}: ask for fewer or '
            'shorter ones, or collect longer episodes.'
        )
    if places.sum() < count:
        raise ValueError(
            f'The held-out episodes offer {places.sum()} places to dream from after {context} ticks of context, '
            f'not {count}: ask for fewer starts or less context, or collect more.'
        )
    random = np.random.Generator(np.random.Philox(key=[seed, context]))
    drawn = [
        (rank, random.random(), episode, int(place))
        for episode, number in enumerate(places)
        for rank, place in enumerate(random.permutation(number)[:count])
    ]
    chosen = sorted(drawn)[:count]
    rows = []
    for _, _, episode, place in chosen:
        stop = min(place + context + horizon, int(episodes.lengths[episode]))
        rows.append(_filled(to_ticks(episodes[episode], episodes.spec, place, stop), context + horizon))
    ticks = as_ticks(rows, np.zeros(count, bool), np.arange(count, dtype=np.int32))
    return ticks, np.array([episode for _, _, episode, _ in chosen], np.int32)


def _filled(row: Any, length: int) -> Any:
    """A row of arrays (t, ...) made `length` long by repeating its last tick."""
    if isinstance(row, dict):
        return {name: _filled(x, length) for name, x in row.items()}
    return np.concatenate([row, np.repeat(row[-1:], length - len(row), axis=0)])
