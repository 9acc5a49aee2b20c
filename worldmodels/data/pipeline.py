"""Segments of recorded experience for training.

What a batch holds is a function of (seed, step, row): nothing is drawn on the way. So the iterator's state is a number,
it restores exactly, and the rows are the same however many processes share them.
"""

from __future__ import annotations

import collections
import os
import threading
from typing import Any

import numpy as np

from worldmodels.data import decoding, records
from worldmodels.data.episodes import as_ticks, features, flat, open_dataset, reason, to_ticks
from worldmodels.types import Spec, Ticks

CACHE_BYTES = 1 << 30
OTHER = 1 << 32
"""Added to a seed, which is below it, for draws of their own."""


class Episodes:
    """Random access to one split's episodes, decoded; the last ones read stay in memory, up to `cache_bytes`.

    Raises ValueError where the dataset has no such split or does not hold what `spec` says; and, where an episode is
    read, when it cannot be or is none (`records.fault`).
    """

    def __init__(self, path: str, split: str, spec: Spec | None = None, cache_bytes: int = CACHE_BYTES):
        builder = open_dataset(path)
        path, metadata = os.path.expanduser(path), dict(builder.info.metadata)
        found = Spec.from_json(metadata['spec'])
        _check_spec(path, found, spec or found)
        _check_features(path, builder.info.features, found)
        if split not in builder.info.splits:
            raise ValueError(
                f'{path!r} has no split {split!r}, only {", ".join(builder.info.splits)}: collect one, or name another.'
            )
        self.spec = found
        self._path, self._split = path, split
        self._source = decoding.Records(builder, split, found)
        self._cache: collections.OrderedDict[int, dict] = collections.OrderedDict()
        self._lock, self._budget, self._held = threading.Lock(), cache_bytes, 0
        self.lengths = _lengths(path, split, metadata)
        if len(self.lengths) != len(self._source):  # not written by `episodes.write`: count
            self.lengths = np.array([len(self._read(i)['is_first']) for i in range(len(self._source))], np.int64)
        self._sound = np.zeros(len(self.lengths), bool)  # read once, and nothing was wrong with it
        # A shard that is missing or cut short is noticed now, not an hour into the training.
        for last in np.cumsum(builder.info.splits[split].shard_lengths) - 1:
            self[last]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = int(index)
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        episode = self._read(index)
        wrong = None if self._sound[index] else records.fault(episode, self.spec, int(self.lengths[index]))
        if wrong:
            raise ValueError(
                f'Episode {index} of split {self._split!r} in the dataset at {self._path!r} {wrong}: mend it where it '
                'was recorded, or leave it out.'
            )
        self._sound[index] = True
        size = _nbytes(episode)
        with self._lock:
            if index not in self._cache and size <= self._budget:
                self._cache[index] = episode
                self._held += size
                while self._held > self._budget:
                    self._held -= _nbytes(self._cache.popitem(last=False)[1])
        return episode

    def _read(self, index: int) -> dict[str, Any]:
        try:
            return self._source[index]
        except Exception as error:  # of the file, of its records, of their decoding
            raise ValueError(
                f'Episode {index} of split {self._split!r} in the dataset at {self._path!r} cannot be read '
                f'({reason(error)}): a file of it is missing or damaged; copy it again or make it anew.'
            ) from error


def segments(
    path: str,
    split: str,
    spec: Spec | None,
    batch_size: int,
    length: int,
    *,
    seed: int,
    consecutive: bool = False,
    process_index: int = 0,
    process_count: int = 1,
    shuffle: bool = True,
    cache_bytes: int = CACHE_BYTES,
    long_length: int = 0,
    long_every: int = 0,
    forget: float = 0.0,
):
    """An endless grain iterator of `Ticks` (numpy, (batch_size / process_count, length, ...)), its state exact.

    In every epoch the episodes are put one after another in a new order, and the row of frames is cut into segments:
    one may run over an episode's end into the next (is_first inside it). Without `consecutive` the segments are drawn
    in random order, from a cut that shifts with the epoch. With it every row follows its own stream: its segments
    continue each other (continues_B true after the first), across epochs too, but for a share `forget` of them, which
    follow where the one before ended and do not continue it. `shuffle=False` keeps the order on disk.
    example_B is the row's number in the whole batch. Episodes once read stay in memory up to `cache_bytes`.

    With `long_every` every so many batches have segments of `long_length` (as Dreamer 4 is trained, Hafner et al., 2025,
    arXiv 2509.24527); consecutive ones continue each other whichever their lengths.

    Raises ValueError for a dataset that is not what `spec` says, a batch the processes cannot share, too few frames.
    """
    import grain

    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f'batch_size={batch_size} cannot be shared by {process_count} processes: give a multiple of it.'
        )
    episodes = Episodes(path, split, spec, cache_bytes)
    cut = lambda length, seed: Segments(
        episodes, batch_size, length, seed, consecutive, process_index, process_count, shuffle, forget
    )
    source = cut(length, seed)
    if long_every:
        # Consecutive streams are one, of either length; segments drawn at random are drawn apart.
        source = Alternating(source, cut(long_length, seed if consecutive else seed + OTHER), long_every)
    # One thread reads ahead: with two cores more of them only take turns.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))


class Segments:
    """Batches by step: the random-access source under `segments`."""

    def __init__(self, episodes, batch_size, length, seed, consecutive, process_index, process_count, shuffle, forget):
        self.episodes, self.batch_size, self.length = episodes, batch_size, length
        self.seed, self.consecutive, self.shuffle, self.forget = seed, consecutive, shuffle, forget
        share = batch_size // process_count
        self.rows = np.arange(process_index * share, (process_index + 1) * share)
        self.frames = int(episodes.lengths.sum())
        if self.frames < length:
            raise ValueError(
                f'segments of {length} frames do not fit into the {self.frames} frames there are: '
                'shorten them or collect more.'
            )
        # One segment less than fits leaves room to shift the cut.
        self.per_epoch = max(1, self.frames // length - 1)
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray, int]] = {}

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, step: int) -> Ticks:
        if self.consecutive:
            return self.after(step * self.length)
        return self._ticks([self._row(step, int(row)) for row in self.rows], np.zeros(len(self.rows), bool))

    def after(self, frames: int) -> Ticks:
        """The segments of consecutive streams that stand behind so many frames. Streams start evenly over the epoch."""
        starts = [int(row) * self.frames // self.batch_size + frames for row in self.rows]
        draw = np.random.Generator(np.random.Philox(key=[self.seed + 2 * OTHER, frames]))
        keeps_B = draw.random(self.batch_size)[self.rows] >= self.forget
        return self._ticks([self._read(*divmod(start, self.frames)) for start in starts], keeps_B & (frames > 0))

    def _ticks(self, rows: list[dict[str, Any]], continues_B: np.ndarray) -> Ticks:
        return as_ticks(rows, continues_B, self.rows.astype(np.int32))

    def _row(self, step: int, row: int) -> dict[str, Any]:
        epoch, number = divmod(step * self.batch_size + row, self.per_epoch)
        _, _, order, phase = self._epoch(epoch)
        return self._read(epoch, phase + int(order[number]) * self.length)

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """The episodes' order, the frame at which each ends, the segments' order, and where the first one starts."""
        known = self._epochs.get(epoch)
        if known is None:
            count = len(self.episodes)
            draw = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            episodes = draw.permutation(count) if self.shuffle else np.arange(count)
            order = draw.permutation(self.per_epoch) if self.shuffle else np.arange(self.per_epoch)
            phase = int(draw.integers(self.frames - self.per_epoch * self.length + 1)) if self.shuffle else 0
            known = episodes, np.cumsum(self.episodes.lengths[episodes]), order, phase
            # Rows of consecutive streams are spread over two epochs at a time.
            self._epochs = {e: k for e, k in self._epochs.items() if abs(e - epoch) <= 1} | {epoch: known}
        return known

    def _read(self, epoch: int, frame: int) -> dict[str, Any]:
        """`length` frames from one on; what the epoch lacks, the next one gives."""
        parts, missing = [], self.length
        while missing:
            order, ends, _, _ = self._epoch(epoch)
            place = int(np.searchsorted(ends, frame, side='right'))
            if place == len(order):
                epoch, frame = epoch + 1, 0
                continue
            episode = int(order[place])
            start = frame - int(ends[place]) + int(self.episodes.lengths[episode])
            stop = min(start + missing, int(self.episodes.lengths[episode]))
            parts.append(to_ticks(self.episodes[episode], self.episodes.spec, start, stop))
            missing -= stop - start
            frame += stop - start
        return _join(parts)


class Alternating:
    """Batches of short segments, and at every `every`-th step one of long segments."""

    def __init__(self, short: Segments, long: Segments, every: int):
        self.short, self.long, self.every = short, long, every

    def __len__(self) -> int:
        return len(self.short)

    def __getitem__(self, step: int) -> Ticks:
        longs = step // self.every  # of the steps before
        shorts = step - longs
        source, number = (self.long, longs) if is_long(step, self.every) else (self.short, shorts)
        if source.consecutive:
            return source.after(shorts * self.short.length + longs * self.long.length)
        return source[number]


def is_long(step: int, every: int) -> bool:
    """Whether the batch of a step, counted from 0, is a long one where every `every`-th is; 0: none."""
    return every > 0 and step % every == every - 1


def _lengths(path: str, split: str, metadata: dict) -> np.ndarray:
    """The lengths that the metadata give, none where they give none."""
    try:
        lengths = np.asarray((metadata.get('lengths') or {}).get(split) or (), np.int64)
        if lengths.ndim == 1 and (lengths > 0).all():
            return lengths
    except (AttributeError, OverflowError, TypeError, ValueError):
        pass
    raise ValueError(
        f"The dataset at {path!r} has metadata whose 'lengths' do not give the frames of each episode of each split: "
        'leave them out, and they are counted.'
    )


def _join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    if len(parts) == 1:
        return parts[0]
    return {
        key: _join([part[key] for part in parts])
        if isinstance(value, dict)
        else np.concatenate([part[key] for part in parts])
        for key, value in parts[0].items()
    }


def _nbytes(episode: dict[str, Any]) -> int:
    return sum(_nbytes(value) if isinstance(value, dict) else np.asarray(value).nbytes for value in episode.values())


def _check_spec(path: str, found: Spec, wanted: Spec) -> None:
    differing = [
        f'{name}: {getattr(found, name)} there, {getattr(wanted, name)} expected'
        for name in ('observation', 'action', 'outcomes')
        if getattr(found, name) != getattr(wanted, name)
    ]
    if differing:
        raise ValueError(
            f'The dataset at {path!r} is of another world ({"; ".join(differing)}): name another dataset or world.'
        )


def _check_features(path: str, found: Any, spec: Spec) -> None:
    """Every key the spec needs, with its dtype and the shape of a row."""
    wanted = flat(features(spec))
    there = flat(found)
    for name, feature in wanted.items():
        if name not in there:
            raise ValueError(
                f'The dataset at {path!r} has no {name!r}, only {", ".join(there)}: rename the field or fix its spec.'
            )
        got = (np.dtype(there[name].np_dtype), tuple(there[name].shape))
        expected = (np.dtype(feature.np_dtype), tuple(feature.shape))
        if got != expected:
            raise ValueError(
                f'{name!r} in the dataset at {path!r} is {got[0]} {got[1]}, its spec says {expected[0]} {expected[1]}.'
            )
