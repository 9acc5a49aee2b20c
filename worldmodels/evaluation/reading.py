"""How fast segments of a dataset come, against reading the same dataset by TFDS alone in the same process.

Both give batches of the same shape, in which every frame is as likely: TFDS by picking an episode at random, one twice as
long twice as often, decoding it and cutting a piece out, as a reader of ten lines would; ours by `pipeline.segments`
through grain, with nothing kept in memory and with its usual cache. They take turns, so that whatever else the machine does
meets all of them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from worldmodels.data import episodes, pipeline

Result = dict[str, float]
TURNS = 5


def measure(path: str, batch_size: int, length: int, split: str = 'train', seconds: float = 2.0) -> Result:
    """Frames a second of each reader (median of TURNS turns of so many seconds), and the shares of TFDS's that ours reach.

    A share of the processor's time (`_cpu`) counts the seconds that all threads computed, whoever else was there.

    Raises ValueError for a dataset that is none, or shorter than a segment.
    """
    open_ours = functools.partial(pipeline.segments, path, split, None, batch_size, length, seed=0)
    ours, kept = open_ours(cache_bytes=0), open_ours()
    readers = {'tfds': _tfds(path, split, batch_size, length), 'uncached': ours, 'cached': kept}
    _fill(kept, path, split, batch_size * length)
    rates = {name: [] for name in readers}
    for _ in range(TURNS):
        for name, reader in readers.items():
            rates[name].append(_turn(lambda r=reader: next(r), seconds))
    out: Result = {'batch_size': batch_size, 'segment_length': length}
    for name, pairs in rates.items():
        out[f'{name}_frames_per_s'] = float(np.median([wall for wall, _ in pairs]))
        out[f'{name}_segments_per_s'] = out[f'{name}_frames_per_s'] / length
    for name in ('uncached', 'cached'):
        for i, kind in enumerate(('share', 'cpu_share')):
            turns = [pair[i] / base[i] for pair, base in zip(rates[name], rates['tfds'], strict=True)]
            out[f'{name}_{kind}'] = float(np.median(turns))
    return out


def _tfds(path: str, split: str, batch_size: int, length: int) -> Iterator[dict[str, Any]]:
    """Random pieces of random episodes; of one that is shorter, all there is, joined with the next until they suffice."""
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(path).as_data_source(split=split)
    ends, random = np.cumsum(pipeline.Episodes(path, split, cache_bytes=0).lengths), np.random.default_rng(0)

    def piece() -> dict[str, Any]:
        parts, missing = [], length
        while missing:
            episode = source[int(np.searchsorted(ends, random.integers(ends[-1]), side='right'))]
            rows = len(episode['is_first'])
            start = int(random.integers(max(rows - missing, 0) + 1))
            parts.append(jax.tree.map(lambda x, a=start, b=start + missing: x[a:b], episode))
            missing -= min(rows, missing)
        return parts[0] if len(parts) == 1 else jax.tree.map(lambda *x: np.concatenate(x), *parts)

    while True:
        yield jax.tree.map(lambda *x: np.stack(x), *[piece() for _ in range(batch_size)])


def _fill(reader: Iterator, path: str, split: str, frames: int) -> None:
    """Read until an epoch has gone by, so that the cache holds what it can."""
    total = sum(episodes.read_metadata(path).get('lengths', {}).get(split, ()))
    for _ in range(min(-(-total // frames), 10_000)):
        next(reader)


def _turn(read: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """(frames a second, frames a second of the processor's time) over at least so many seconds, and 3 batches."""
    read()
    frames = batches = 0
    wall, cpu = time.perf_counter(), time.process_time()
    while batches < 3 or time.perf_counter() - wall < seconds:
        batch = read()
        frames += (batch['is_first'] if isinstance(batch, dict) else batch.is_first).size
        batches += 1
    return frames / (time.perf_counter() - wall), frames / max(time.process_time() - cpu, 1e-9)
