"""Foreign data become a dataset of ours, once.

Items of the source are read in order, and what they become is kept in parts, files that appear whole. So a killed
conversion, started again, reads only what no part holds, and ends with the same bytes.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from worldmodels.data import conversion, episodes, infer, making, sources
from worldmodels.data.mapping import Mapping

PART_BYTES = 32 << 20  # of episodes before compression
RECORD_BYTES = 1 << 30  # an episode is one record, and TFDS's end at 2 GB
ON_BAD = ('refuse', 'drop')

Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is converted into what.

    items     by our split: (their split, number) in order
    frames    in all, as far as can be told; exact says whether that is all of them
    """

    source: sources.Source
    mapping: Mapping
    items: dict[str, list[tuple[str, int]]]
    frames: int
    exact: bool

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides which bytes are written."""
        return {'source': self.source.kind, 'identity': self.source.identity(), 'mapping': self.mapping.to_json()}


def prepare(kind: str, path: str, given: dict[str, Any]) -> tuple[Plan, infer.Sample]:
    """The plan for a source, and what was seen of it. `given` is any part of a mapping, as JSON.

    Raises ValueError where there is no such source, or it cannot be mapped so.
    """
    source = sources.open_source(kind, path, given.get('source', {}))
    seen = infer.sample(source)
    mapping = infer.infer(source, seen, given)
    items = split(source, mapping)
    count = sum(map(len, items.values()))
    counted = sum(seen.lengths) * count // max(seen.items, 1)
    frames = counted if source.frames is None else source.frames
    return Plan(source, mapping, items, frames, source.frames is not None or max(seen.lengths) < infer.FRAMES), seen


def split(source: sources.Source, mapping: Mapping) -> dict[str, list[tuple[str, int]]]:
    """Which items belong to which split of ours: as the source has them, or a share of them chosen by a hash of their names."""
    if mapping.splits:
        return {ours: [(theirs, i) for i in range(source.splits[theirs])] for ours, theirs in mapping.splits}
    every = [(name, i) for name, count in source.splits.items() for i in range(count)]
    held = 0
    if mapping.validation and len(every) > 1:
        held = min(max(1, round(mapping.validation * len(every))), len(every) - 1)
    hashed = lambda item: hashlib.blake2b(source.label(*item).encode(), digest_size=8).digest()
    chosen = set(sorted(every, key=hashed)[:held])
    splits = {'train': [item for item in every if item not in chosen]}
    if held:
        splits['validation'] = [item for item in every if item in chosen]
    return splits


def convert(
    path: str, plan: Plan, provenance: dict[str, Any], on_bad: str = 'refuse', progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Converts what is missing and writes the dataset. Returns its metadata, with 'dropped' counted by reason.

    progress(stage, done, total) is called as it goes: items 'converting', then episodes 'writing'. An episode that is
    bad (see `conversion.Bad`) or cannot be read stops it, or is dropped and counted with on_bad='drop', and with it the
    rest of its item. One of a single frame is always dropped and counted.

    Raises ValueError for the first bad episode, naming it, and where nothing is left to train on.
    """
    if on_bad not in ON_BAD:
        raise ValueError(f'on_bad={on_bad!r}: give {" or ".join(ON_BAD)}.')
    parts = making.begin(path, plan.settings)
    total, done = sum(map(len, plan.items.values())), 0
    dropped: collections.Counter[str] = collections.Counter()
    counts, said, last = {}, '', {'single': 0, 'bad': 0, 'said': ''}
    for name, items in plan.items.items():
        counts[name] = 0
        for part in _parts(
            parts, name, items, plan, on_bad, lambda n, before=done: progress('converting', before + n, total)
        ):
            counts[name] += len(part['lengths'])
            last = part
        done += len(items)
        dropped.update({'single frame': int(last['single']), 'bad': int(last['bad'])})
        said = said or str(last['said'])
    if not counts.get('train'):
        why = f'the first bad one: {said}' if said else f'{dropped["single frame"]} of them had a single frame.'
        raise ValueError(f'No episode is left to train on: {why}')
    written, every = 0, sum(counts.values())

    def read(name: str) -> Iterator[dict[str, Any]]:
        nonlocal written
        for episode in _episodes(parts, name, plan.mapping):
            written += 1
            progress('writing', written, every)
            yield episode

    kept = {
        **provenance,
        'settings': plan.settings,
        'source': os.path.basename(plan.source.path.rstrip(os.sep)),
        'dropped': {'single_frame': dropped['single frame'], 'bad': dropped['bad']},
    }
    episodes.write(path, plan.mapping.spec, {name: read(name) for name, count in counts.items() if count}, kept)
    shutil.rmtree(parts)
    return episodes.read_metadata(path)


def _parts(
    folder: str, name: str, items: list, plan: Plan, on_bad: str, progress: Callable[[int], None]
) -> Iterator[dict[str, np.ndarray]]:
    """The parts of a split, those that are there and then those still to be made; small arrays only.

    Each says how far it reaches: `item` and `output` are the next to come, `single` and `bad` what was dropped so far.
    """
    number, state = 0, {'item': 0, 'output': 0, 'single': 0, 'bad': 0, 'said': ''}
    small = ('lengths', *state)
    while os.path.exists(file := _part(folder, name, number)):
        with np.load(file, allow_pickle=False) as loaded:
            part = {key: loaded[key] for key in small}
        state = {key: part[key].item() for key in state}
        number += 1
        yield part
    progress(state['item'])
    if number and state['item'] == len(items):
        return
    held: list[dict[str, Any]] = []
    size = 0

    def keep(**reached: int) -> dict[str, np.ndarray]:
        nonlocal number, held, size
        state.update(reached)
        arrays = {'lengths': np.array([len(e['is_first']) for e in held], np.int64)}
        if held:
            rows = [episodes.flat(e) for e in held]
            arrays |= {k: np.concatenate([row[k] for row in rows]) for k in rows[0]}
        part = arrays | {key: np.asarray(value) for key, value in state.items()}
        with making.whole(_part(folder, name, number)) as temporary, open(temporary, 'wb') as opened:
            np.savez(opened, **part)
        number, held, size = number + 1, [], 0
        return {key: part[key] for key in small}

    for item in range(state['item'], len(items)):
        skip = state['output'] if item == state['item'] else 0
        try:
            for output, episode in enumerate(_outputs(plan, items[item])):
                if output < skip:
                    continue
                if size >= PART_BYTES:
                    yield keep(item=item, output=output)
                if episode is None:
                    state['single'] += 1
                    continue
                held.append(episode)
                size += _nbytes(episode)
        except ValueError as error:
            sentence = _named(plan.source.label(*items[item]), error)
            if on_bad == 'refuse':
                raise ValueError(f'{sentence} Mend it, or give --on_bad=drop to leave such episodes out.') from None
            state['bad'] += 1
            state['said'] = state['said'] or sentence
        if size >= PART_BYTES or item == len(items) - 1:
            yield keep(item=item + 1, output=0)
        progress(item + 1)


def _outputs(plan: Plan, item: tuple[str, int]) -> Iterator[dict[str, Any] | None]:
    for rows in plan.source.read(*item):
        for episode in conversion.apply(plan.mapping, rows):
            if episode is not None and _nbytes(episode) > RECORD_BYTES:
                raise conversion.Bad(
                    f'an episode of {len(episode["is_first"]):,} frames takes {_nbytes(episode) / 1e9:.1f} GB, expected '
                    f'{RECORD_BYTES / 1e9:.1f} at most: give mapping.cut, the frames of an episode at most.'
                )
            yield episode


def _named(label: str, error: Exception) -> str:
    return str(error) if isinstance(error, sources.Unreadable) else f'{label}: {error}'


def _part(folder: str, name: str, number: int) -> str:
    return os.path.join(folder, f'{name}-{number:05d}.npz')


def _nbytes(episode: dict[str, Any]) -> int:
    return sum(values.nbytes for values in episodes.flat(episode).values())


def _episodes(folder: str, name: str, mapping: Mapping) -> Iterator[dict[str, Any]]:
    spec, number = mapping.spec, 0
    fields = ('action', *spec.outcomes, *episodes.FLAGS)
    while os.path.exists(file := _part(folder, name, number)):
        number += 1
        with np.load(file, allow_pickle=False) as loaded:
            lengths = loaded['lengths']
            if not len(lengths):
                continue
            flat = {key: loaded[key] for key in fields}
            seen = {key: loaded[f'observation/{key}'] for key in spec.modalities}
        stop = 0
        for length in lengths.tolist():
            start, stop = stop, stop + length
            yield {
                'observation': {k: x[start:stop] for k, x in seen.items()},
                **{k: x[start:stop] for k, x in flat.items()},
            }
