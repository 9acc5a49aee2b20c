"""What a dataset holds, in numbers: read once, episode by episode, in memory that does not grow with the frames."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from worldmodels.data import episodes, pipeline
from worldmodels.types import Spec

BINS = 64
EXACT = 2**50  # numbers of bins that a float still counts one by one


class Histogram:
    """Counts of numbers whose range is not known before: where one falls outside, bins are joined in pairs.

    Bins are as wide as a power of two, and their edges are multiples of it, so the order of the numbers changes nothing
    but how fine the bins are at the end.
    """

    def __init__(self, bins: int = BINS):
        self.counts = np.zeros(bins, np.int64)
        self.start, self.width = 0, 2.0**-20  # the first bin's number, and what a bin is wide
        self.number = self.zeros = 0
        self.total, self.least, self.most = 0.0, np.inf, -np.inf

    def add(self, values: np.ndarray) -> None:
        """Finite numbers, in any shape."""
        values = np.asarray(values, np.float64).ravel()
        if not len(values):
            return
        least, most = float(values.min()), float(values.max())
        if not self.number:
            self.start = int(np.floor(least / self.width))
        self.number += len(values)
        self.zeros += int((values == 0).sum())
        self.total += float(values.sum())
        self.least, self.most = min(self.least, least), max(self.most, most)
        bins = len(self.counts)
        while True:
            low, high = (int(np.floor(x / self.width)) for x in (self.least, self.most))
            if high - low < bins and max(abs(low), abs(high)) < EXACT:
                break
            self._join()
        if low < self.start or high >= self.start + bins:
            self._shift(low)
        np.add.at(self.counts, (np.floor(values / self.width) - self.start).astype(np.int64), 1)

    def _join(self) -> None:
        joined = np.zeros_like(self.counts)
        np.add.at(joined, (self.start % 2 + np.arange(len(self.counts))) // 2, self.counts)
        self.counts, self.start, self.width = joined, self.start // 2, 2 * self.width

    def _shift(self, start: int) -> None:
        """Room from another bin on: what is counted lies in it, as all numbers seen do."""
        held = np.flatnonzero(self.counts)
        moved = np.zeros_like(self.counts)
        moved[held + self.start - start] = self.counts[held]
        self.counts, self.start = moved, start

    def to_json(self) -> dict[str, Any]:
        """Edges and counts of the bins from the first to the last that is used, and number, mean, least, most, zeros."""
        held = np.flatnonzero(self.counts)
        used = slice(held[0], held[-1] + 1) if len(held) else slice(0, 0)
        counts = self.counts[used]
        edges = (self.start + (held[0] if len(held) else 0) + np.arange(len(counts) + 1)) * self.width
        return {
            'edges': edges.tolist(),
            'counts': counts.tolist(),
            'number': self.number,
            'mean': self.total / self.number if self.number else None,
            'least': self.least if self.number else None,
            'most': self.most if self.number else None,
            'zeros': self.zeros,
        }


@dataclasses.dataclass(frozen=True)
class Film:
    """Some frames of an episode, evenly spaced, and their numbers in it."""

    split: str
    episode: int
    length: int
    total: float
    frames: np.ndarray
    at: tuple[int, ...]
    frames_of: str


def gather(
    path: str,
    most: int = 0,
    films: int = 6,
    columns: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Any], list[Film]]:
    """The statistics of a dataset, ready for JSON, and films of a few of its episodes.

    Args:
      path: a folder that `episodes.write` made, or a TFDS dataset with a spec.
      most: episodes read of each split at most, evenly spaced; 0 for all.
      films: how many, of the first split, where an observation is a picture; columns: frames of each.
      progress: called with the episodes read and all there are to read.

    Raises ValueError where there is no dataset or an episode is damaged.
    """
    metadata = episodes.read_metadata(path)
    folder = os.path.expanduser(path)
    spec = Spec.from_json(metadata['spec'])
    sources = {name: pipeline.Episodes(path, name, spec, cache_bytes=0) for name in episodes.splits(path)}
    chosen = {name: _evenly(len(source), most) for name, source in sources.items()}
    total, done, shown, found = sum(map(len, chosen.values())), 0, [], {}
    picture = next((name for name, modality in spec.observation if modality.kind in ('image', 'grid')), None)
    for split, source in sources.items():
        tally = _Tally(spec)
        filmed = (
            set(np.asarray(chosen[split])[_evenly(len(chosen[split]), films)].tolist())
            if films and not found
            else set()
        )
        for number in chosen[split]:
            episode = source[number]
            tally.add(episode)
            if picture and number in filmed:
                at = _evenly(len(episode['is_first']), columns)
                frames = episode['observation'][picture][at].copy()
                pay = float(episode['reward'][:-1].sum())
                shown.append(Film(split, number, len(episode['is_first']), pay, frames, tuple(at), picture))
            done += 1
            progress(done, total)
        found[split] = {'episodes': len(source), 'frames': int(source.lengths.sum()), **tally.to_json(source.lengths)}
    numbers = {
        'spec': spec.to_json(),
        'bytes': sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)),
        'bytes_decoded': episodes.frame_bytes(spec) * sum(split['frames'] for split in found.values()),
        'provenance': {k: v for k, v in metadata.items() if k not in ('spec', 'lengths')},
        'splits': found,
    }
    return numbers, shown


class _Tally:
    """What is counted of one split."""

    def __init__(self, spec: Spec):
        self.spec = spec
        size = spec.action.size
        self.actions = np.zeros(size, np.int64)
        self.moves = [Histogram() for _ in range(size)] if spec.action.kind == 'continuous' else []
        self.outcomes = {name: Histogram() for name in spec.outcomes}
        self.vectors = {name: Histogram() for name, m in spec.observation if m.kind == 'vector'}
        self.returns, self.read, self.terminal = Histogram(), 0, 0

    def add(self, episode: dict[str, Any]) -> None:
        taken = episode['action'][:-1]
        for i, histogram in enumerate(self.moves):
            histogram.add(taken[:, i])
        if not self.moves:
            self.actions += np.bincount(taken, minlength=len(self.actions))
        for name, histogram in self.outcomes.items():
            histogram.add(episode[name][:-1])
        for name, histogram in self.vectors.items():
            histogram.add(episode['observation'][name])
        self.returns.add(episode['reward'][:-1].sum(keepdims=True))
        self.read += 1
        self.terminal += bool(episode['is_terminal'][-1])

    def to_json(self, lengths: np.ndarray) -> dict[str, Any]:
        each = Histogram()
        each.add(lengths)
        return {
            'episodes_read': self.read,
            'terminal': self.terminal,
            'lengths': each.to_json(),
            'actions': [h.to_json() for h in self.moves] or self.actions.tolist(),
            'outcomes': {name: h.to_json() for name, h in self.outcomes.items()},
            'vectors': {name: h.to_json() for name, h in self.vectors.items()},
            'returns': self.returns.to_json(),
        }


def _evenly(count: int, most: int) -> list[int]:
    """At most `most` of 0..count-1, the first and the last among them; all where `most` is 0."""
    if not most or count <= most:
        return list(range(count))
    return np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()
