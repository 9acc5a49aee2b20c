"""Plays a world under policies and keeps what happened as a TFDS dataset.

The play is cut into chunks, each a function of (settings, split, chunk number) alone and written as one file that
appears whole. So a killed collection, started again, plays only what is missing, and ends with the same bytes.

Which openings belong to the validation split is decided by a hash of what is really there (the whole grid, not the
view): an opening of the one split never begins an episode of the other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from worldmodels import interaction, rng, worlds
from worldmodels.control.mixture import Mixture
from worldmodels.control.planner import Planner
from worldmodels.control.random import Random
from worldmodels.control.scripted import Scripted
from worldmodels.control.sticky import Sticky
from worldmodels.data import episodes, making
from worldmodels.types import Spec

POOL = 1024  # openings drawn for every chunk
HELD_OUT = 0.2  # share of openings kept for validation


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Which model the policy kind `checkpoint` plans with, and how. It says what the model is, not where it lies.

    fingerprint  of the experiment that trained it; step: how far
    weights      digest of its variables (`digest`)
    horizon, candidates, dials    of the `Planner`
    """

    fingerprint: str
    step: int
    weights: str
    horizon: int
    candidates: int
    dials: tuple[tuple[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that decides which bytes are written.

    policy      ((kind, weight), ...): kinds random, sticky, scripted, checkpoint; weights are shares of frames
    noise       probability that the scripted policy acts at random
    steps       frames of the train split, at least (whole chunks); validation: episodes of the validation split
    checkpoint  of the policy kind `checkpoint`, None where that is not asked for
    """

    world: str
    view: str
    observation: str
    policy: tuple[tuple[str, float], ...]
    noise: float
    steps: int
    validation: int
    max_episode_steps: int
    lanes: int
    seed: int
    checkpoint: Checkpoint | None = None

    def __post_init__(self):
        for name in ('steps', 'lanes', 'max_episode_steps'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)}: give a positive number.')
        if self.validation < 0:
            raise ValueError(f'validation={self.validation}: give the number of held-out episodes, 0 for none.')
        if not 0 <= self.noise <= 1:
            raise ValueError(f'noise={self.noise}: give a probability.')
        for kind, weight in self.policy:
            if kind not in POLICIES:
                raise ValueError(
                    f'There is no policy {kind!r}: give {", ".join(POLICIES)}, as in random:0.5,scripted:0.5.'
                )
            if weight <= 0:
                raise ValueError(f'policy {kind} has weight {weight}: give a positive one or leave it out.')
        if ('checkpoint' in dict(self.policy)) != (self.checkpoint is not None):
            raise ValueError(
                'The policy kind checkpoint and --checkpoint=WORKDIR go together: give both, as in '
                '--policy=checkpoint:0.5,random:0.5 --checkpoint=WORKDIR, or neither.'
            )

    @property
    def chunks(self) -> int:
        """Of the train split: as few as hold chunks of about twice the longest episode, and at least 256 ticks."""
        return max(1, round(self.steps / self.lanes / max(256, 2 * self.max_episode_steps)))

    @property
    def ticks(self) -> int:
        """Frames a lane plays in one chunk."""
        return -(-self.steps // (self.lanes * self.chunks))

    def world_options(self) -> dict[str, Any]:
        return {'view': self.view, 'observation': self.observation, 'max_steps': self.max_episode_steps}


POLICIES: dict[str, Callable[[Spec, Settings, Any], Any]] = {
    'random': lambda spec, settings, model: Random(spec.action),
    'sticky': lambda spec, settings, model: Sticky(spec.action),
    'scripted': lambda spec, settings, model: Scripted(spec.action, settings.noise),
    'checkpoint': lambda spec, settings, model: _planner(spec, settings, model),
}


def _planner(spec: Spec, settings: Settings, model: Any) -> Planner:
    if model.spec != spec:
        there, here = model.spec.to_json(), spec.to_json()
        differing = '; '.join(f'{k} is {there[k]} there, {here[k]} here' for k in here if there[k] != here[k])
        raise ValueError(
            f'The checkpoint knows another world than {settings.world} ({differing}): '
            'set --world, --view and --observation as for the data it was trained on.'
        )
    chosen = settings.checkpoint
    return Planner(model, chosen.horizon, chosen.candidates, dials=chosen.dials)


def digest(variables: Any) -> str:
    """16 hexadecimal digits that tell a model's variables, arrays in a tree, from others."""
    hashed = hashlib.blake2b(digest_size=8)
    for path, x in jax.tree_util.tree_flatten_with_path(variables)[0]:
        hashed.update(f'{jax.tree_util.keystr(path)} {x.dtype} {x.shape}'.encode())
        hashed.update(np.asarray(x).tobytes())
    return hashed.hexdigest()


def parse_policy(text: str) -> tuple[tuple[str, float], ...]:
    """'random:0.5,scripted:0.5' -> (('random', 0.5), ('scripted', 0.5)); a kind alone weighs 1."""
    pairs = []
    for item in text.split(','):
        kind, _, weight = item.strip().partition(':')
        try:
            pairs.append((kind, float(weight or 1)))
        except ValueError:
            raise ValueError(f'policy {item!r}: give kind:weight, as in random:0.5,scripted:0.5.') from None
    if len({kind for kind, _ in pairs}) < len(pairs):
        raise ValueError(f'policy {text!r} names a kind twice.')
    return tuple(pairs)


def is_complete(path: str, settings: Settings) -> bool:
    """Whether the dataset is there. Raises ValueError where another one, finished or begun, stands at the path."""
    return making.is_complete(path, dataclasses.asdict(settings), 'collected')


def collect(
    path: str,
    settings: Settings,
    provenance: dict[str, Any],
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
    trained: tuple[Any, Any] | None = None,
) -> dict[str, Any]:
    """Plays what is missing and writes the dataset. Returns its metadata.

    progress(stage, frames so far, frames in all) is called as it goes, stages 'playing' and 'writing'. How many frames
    the validation split's episodes take is only known once they are played: the total may grow.

    trained is the world model, and its variables, that settings.checkpoint tells of.

    Raises ValueError where the openings cannot be split, or the model knows another world.
    """
    model, variables = trained or (None, None)
    world = worlds.make(settings.world, settings.lanes, **settings.world_options())
    kinds, weights = zip(*settings.policy)
    policies = tuple(POLICIES[kind](world.spec, settings, model) for kind in kinds)
    policy = Mixture.weighted(policies, weights, settings.lanes)

    parts = making.begin(path, dataclasses.asdict(settings))

    def play(split: str, chunk: int) -> dict[str, np.ndarray]:
        file = os.path.join(parts, f'{split}-{chunk:05d}.npz')
        if not os.path.exists(file):
            arrays = _play(world, policy, variables, settings, split, chunk)
            with making.whole(file) as temporary, open(temporary, 'wb') as opened:
                np.savez(opened, **arrays)
        with np.load(file) as loaded:
            return {name: loaded[name] for name in ('first', 'dropped')}

    each = settings.ticks * settings.lanes
    dropped, validation_chunks, openings = {'train': 0, 'validation': 0}, 0, 0
    total = each * (settings.chunks + (1 if settings.validation else 0))
    for chunk in range(settings.chunks):
        dropped['train'] += int(play('train', chunk)['dropped'])
        progress('playing', each * (chunk + 1), total)
    while openings < settings.validation:
        played = play('validation', validation_chunks)
        dropped['validation'] += int(played['dropped'])
        openings += len(_spans(played['first']))
        validation_chunks += 1
        done = each * (settings.chunks + validation_chunks)
        progress('playing', done, max(total, done))

    splits = {'train': _episodes(parts, 'train', settings.chunks, world.spec, None)}
    if settings.validation:
        splits['validation'] = _episodes(parts, 'validation', validation_chunks, world.spec, settings.validation)
    done = 0

    def counted(split: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        nonlocal done
        for episode in split:
            done += len(episode['is_first'])
            progress('writing', done, total)
            yield episode

    total = each * (settings.chunks + validation_chunks)
    metadata = {
        **provenance,
        'settings': json.loads(json.dumps(dataclasses.asdict(settings))),
        'openings_drawn_of_the_other_split_and_dropped': dropped,
    }
    episodes.write(path, world.spec, {name: counted(split) for name, split in splits.items()}, metadata)
    shutil.rmtree(parts)
    return episodes.read_metadata(path)


def _play(world: Any, policy: Any, variables: Any, settings: Settings, split: str, chunk: int) -> dict[str, np.ndarray]:
    """The arrays of one part: a record's leaves as (B, ticks, ...) by flat name, and the openings dropped."""
    key = jax.random.fold_in(rng.stream(settings.seed, f'collect/{split}'), chunk)
    pool_key, play_key = jax.random.split(key)
    pool = interaction.prepare(world, pool_key, POOL)
    pool, dropped = _keep(pool, split, settings)
    _, records = interaction.interact(world, policy, variables, play_key, settings.ticks, pool)
    records.pop('extras')
    observation = {f'observation/{name}': x for name, x in records.pop('observation').items()}
    arrays = {k: np.ascontiguousarray(np.swapaxes(np.asarray(x), 0, 1)) for k, x in {**observation, **records}.items()}
    arrays['first'] = arrays.pop('is_first')
    return {**arrays, 'dropped': np.asarray(dropped)}


def _keep(pool: Any, split: str, settings: Settings) -> tuple[Any, int]:
    """The pool with the other split's openings replaced by this one's, and how many they were."""
    if not settings.validation:
        return pool, 0
    there = jax.tree.leaves(pool['truth'].get('codes', pool['observation']))
    there = [np.asarray(leaf) for leaf in there]
    size = len(there[0])
    held = np.array([_is_held_out(settings.seed, b''.join(leaf[i].tobytes() for leaf in there)) for i in range(size)])
    mine = np.flatnonzero(held == (split == 'validation'))
    if not len(mine):
        raise ValueError(
            f'{settings.world} has too few different openings to hold some out for validation '
            f'(of {size} none was left for {split}): set --validation=0, or choose a world with random layouts.'
        )
    # As many as before, so that nothing is compiled anew.
    return jax.tree.map(lambda x: x[np.resize(mine, size)], pool), size - len(mine)


def _is_held_out(seed: int, opening: bytes) -> bool:
    digest = hashlib.blake2b(opening, digest_size=8, salt=seed.to_bytes(8, 'little')).digest()
    return int.from_bytes(digest, 'little') < HELD_OUT * 2**64


def _spans(first_BT: np.ndarray) -> list[tuple[int, int, int]]:
    """(lane, start, stop) of every episode of a part, in the order in which they began: no lane is before its turn.

    What the end of a chunk cuts short is kept, as an episode whose time ran out, if it has two frames.
    """
    spans = []
    for lane, first_T in enumerate(first_BT):
        edges = [*np.flatnonzero(first_T).tolist(), len(first_T)]
        spans += [(lane, start, stop) for start, stop in itertools.pairwise(edges) if stop - start > 1]
    return sorted(spans, key=lambda span: (span[1], span[0]))


def _episodes(parts: str, split: str, chunks: int, spec: Spec, limit: int | None) -> Iterator[dict[str, Any]]:
    count = 0
    for chunk in range(chunks):
        with np.load(os.path.join(parts, f'{split}-{chunk:05d}.npz')) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        for lane, start, stop in _spans(arrays['first']):
            if count == limit:
                return
            rows = {name: x[lane, start:stop] for name, x in arrays.items() if x.ndim}
            rows['is_first'] = rows.pop('first')
            rows['is_last'] = rows['is_last'] | (np.arange(stop - start) == stop - start - 1)
            for name in ('action', *spec.outcomes):
                rows[name] = rows[name].copy()
                rows[name][-1] = 0
            rows['observation'] = {name: rows.pop(f'observation/{name}') for name in spec.modalities}
            count += 1
            yield rows
