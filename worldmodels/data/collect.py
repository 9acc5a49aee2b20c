"""Plays a world under policies and keeps what happened as a TFDS dataset.

The play is cut into chunks, each a function of (settings, split, chunk number) alone and written as one file that
appears whole. So a killed collection, started again, plays only what is missing, and ends with the same bytes. A world
outside JAX (`worlds.host`) begins every chunk with seeded resets: with it that holds as far as it keeps to its seed.

What belongs to the validation split is decided in `splits`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from worldmodels import interaction, rng, worlds
from worldmodels.control.corridor import Corridor
from worldmodels.control.mixture import Mixture
from worldmodels.control.paddle import Paddle
from worldmodels.control.planner import Planner
from worldmodels.control.random import Random
from worldmodels.control.scripted import MOVES, Scripted
from worldmodels.control.sticky import Sticky
from worldmodels.data import episodes, making, splits
from worldmodels.types import Spec
from worldmodels.worlds.host import Host, TooFewOpenings

CHUNK = 2048  # ticks of a chunk at most, where episodes may be long: what a kill can cost


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

    options     of the world, as ((name, value), ...); what is not given is filled in with its default
    policy      ((kind, weight), ...): kinds random, sticky, scripted, checkpoint; weights are shares of frames
    noise       probability that the scripted policy acts at random
    steps       frames of the train split, at least (whole chunks); validation: episodes of the validation split
    split       what is held out: openings, episodes, or auto (`splits.decide`)
    checkpoint  of the policy kind `checkpoint`, None where that is not asked for
    """

    world: str
    options: tuple[tuple[str, Any], ...]
    policy: tuple[tuple[str, float], ...]
    noise: float
    steps: int
    validation: int
    lanes: int
    seed: int
    split: str = 'auto'
    checkpoint: Checkpoint | None = None

    def __post_init__(self):
        chosen = worlds.chosen(self.world, dict(self.options))
        object.__setattr__(self, 'options', tuple(sorted(chosen.items())))
        for name in ('steps', 'lanes'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)}: give a positive number.')
        if self.validation < 0:
            raise ValueError(f'validation={self.validation}: give the number of held-out episodes, 0 for none.')
        if self.split not in splits.SPLITS:
            raise ValueError(f'split={self.split!r} is not one of {" | ".join(splits.SPLITS)}.')
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
        """Of the train split: as few as hold chunks of about twice the longest episode, 256 to CHUNK ticks."""
        longest = dict(self.options).get('max_steps') or CHUNK
        return max(1, round(self.steps / self.lanes / min(CHUNK, max(256, 2 * longest))))

    @property
    def ticks(self) -> int:
        """Frames a lane plays in one chunk."""
        return -(-self.steps // (self.lanes * self.chunks))

    def make(self, batch: int | None = None) -> Any:
        """The world, with as many copies side by side as there are lanes, or `batch`."""
        return worlds.make(self.world, batch or self.lanes, **dict(self.options))


SCRIPTS = {
    'gymnax/Breakout-MinAtar': Paddle,
    **{f'xminigrid/MiniGrid-MemoryS{size}': Corridor for size in (8, 16, 32, 64, 128)},
}
"""Worlds with a script of their own; the others are played by `Scripted`, where they have keys and doors."""

POLICIES: dict[str, Callable[[Spec, Settings, Any], Any]] = {
    'random': lambda spec, settings, model: Random(spec.action),
    'sticky': lambda spec, settings, model: Sticky(spec.action),
    'scripted': lambda spec, settings, model: SCRIPTS.get(settings.world, Scripted)(spec.action, settings.noise),
    'checkpoint': lambda spec, settings, model: _planner(spec, settings, model),
}


def _planner(spec: Spec, settings: Settings, model: Any) -> Planner:
    if model.action.latent:
        raise ValueError(
            f'The checkpoint plans in actions that it found in frames, which {settings.world} does not take: give one whose '
            "model.action.kind is 'given'."
        )
    if model.spec != spec:
        there, here = model.spec.to_json(), spec.to_json()
        differing = '; '.join(f'{k} is {there[k]} there, {here[k]} here' for k in here if there[k] != here[k])
        raise ValueError(
            f'The checkpoint knows another world than {settings.world} ({differing}): '
            'set --world and --option as for the data it was trained on.'
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


def usual_policy(spec: Spec) -> str:
    """Half random, half scripted; or half sticky where the script knows no way."""
    return 'random:0.5,scripted:0.5' if set(MOVES) <= set(spec.action.names) else 'random:0.5,sticky:0.5'


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
    say: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any]:
    """Plays what is missing and writes the dataset. Returns its metadata.

    progress(stage, frames so far, frames in all) is called as it goes, stages 'playing' and 'writing'. How many frames
    the validation split's episodes take is only known once they are played: the total may grow. say(sentence) is told
    how the splits were parted.

    trained is the world model, and its variables, that settings.checkpoint tells of.

    Raises ValueError where the openings cannot be split, the model knows another world, or a world outside JAX raises.
    """
    model, variables = trained or (None, None)
    world = settings.make()
    with contextlib.ExitStack() as until_the_end:
        if isinstance(world, Host):
            until_the_end.callback(world.close)
        kinds, weights = zip(*settings.policy)
        policies = tuple(POLICIES[kind](world.spec, settings, model) for kind in kinds)
        policy = Mixture.weighted(policies, weights, settings.lanes)
        parts = making.begin(path, dataclasses.asdict(settings))
        parted = _parted(world, settings, parts)
        say(parted['why'])
        player = _Player(world, policy, variables, settings, parts, parted['by'], progress)
        dropped, validation_chunks = player.play()

    kept = {'train': _episodes(parts, 'train', settings.chunks, world.spec, None)}
    if settings.validation:
        kept['validation'] = _episodes(parts, 'validation', validation_chunks, world.spec, settings.validation)
    done = 0

    def counted(split: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        nonlocal done
        for episode in split:
            done += len(episode['is_first'])
            progress('writing', done, total)
            yield episode

    total = settings.ticks * settings.lanes * (settings.chunks + validation_chunks)
    metadata = {
        **provenance,
        'settings': json.loads(json.dumps(dataclasses.asdict(settings))),
        'split': parted,
        'openings_drawn_of_the_other_split_and_dropped': dropped,
    }
    episodes.write(path, world.spec, {name: counted(split) for name, split in kept.items()}, metadata)
    shutil.rmtree(parts)
    return episodes.read_metadata(path)


def _parted(world: Any, settings: Settings, parts: str) -> dict[str, Any]:
    """`splits.decide`, asked once: what a world outside JAX answers may differ the next time."""
    file = os.path.join(parts, 'split.json')
    if not settings.validation:
        return {'by': 'episodes', 'openings': None, 'why': f'{settings.world}: nothing is held out.'}
    if not os.path.exists(file):
        parted = splits.decide(world, settings.world, settings.split, settings.seed)
        with making.whole(file) as temporary, open(temporary, 'w') as opened:
            json.dump(parted, opened)
    with open(file) as opened:
        return json.load(opened)


@dataclasses.dataclass
class _Player:
    """Plays chunk after chunk, and keeps each in a file of its own."""

    world: Any
    policy: Any
    variables: Any
    settings: Settings
    parts: str
    by: str
    progress: Callable[[str, int, int], None]
    finished: int = 0

    def play(self) -> tuple[dict[str, int], int]:
        """Everything that is missing. Returns how many openings were dropped, by split, and the validation chunks."""
        settings, dropped, chunks, held_out = self.settings, {'train': 0, 'validation': 0}, 0, 0
        self.total = settings.ticks * settings.lanes * (settings.chunks + (1 if settings.validation else 0))
        for chunk in range(settings.chunks):
            dropped['train'] += int(self.chunk('train', chunk)['dropped'])
        while held_out < settings.validation:
            played = self.chunk('validation', chunks)
            dropped['validation'] += int(played['dropped'])
            held_out += len(_spans(played['first']))
            chunks += 1
        return dropped, chunks

    def chunk(self, split: str, chunk: int) -> dict[str, np.ndarray]:
        """The openings of one chunk, and how many were dropped; played unless it is there."""
        file = os.path.join(self.parts, f'{split}-{chunk:05d}.npz')
        if not os.path.exists(file):
            arrays = self._played(split, chunk)
            with making.whole(file) as temporary, open(temporary, 'wb') as opened:
                np.savez(opened, **arrays)
        self.finished += 1
        self._tell(0)
        with np.load(file) as loaded:
            return {name: loaded[name] for name in ('first', 'dropped')}

    def _tell(self, ticks: int) -> None:
        done = self.settings.lanes * (self.finished * self.settings.ticks + ticks)
        self.progress('playing', done, max(self.total, done))

    def _played(self, split: str, chunk: int) -> dict[str, np.ndarray]:
        """The arrays of one part: a record's leaves as (B, ticks, ...) by flat name, and the openings dropped."""
        key = jax.random.fold_in(rng.stream(self.settings.seed, f'collect/{split}'), chunk)
        pool_key, play_key = jax.random.split(key)
        if isinstance(self.world, Host):
            records, dropped = self._outside(play_key, split, chunk)
        else:
            pool, dropped = interaction.prepare(self.world, pool_key, splits.POOL), 0
            if self.by == 'openings':
                pool, dropped = splits.keep(pool, split, self.settings.world, self.settings.seed)
            ticks = self.settings.ticks
            _, records = interaction.interact(self.world, self.policy, self.variables, play_key, ticks, pool)
        records.pop('extras')
        observation = {f'observation/{name}': x for name, x in records.pop('observation').items()}
        flat = {**observation, **records}
        arrays = {k: np.ascontiguousarray(np.swapaxes(np.asarray(x), 0, 1)) for k, x in flat.items()}
        arrays['first'] = arrays.pop('is_first')
        return {**arrays, 'dropped': np.asarray(dropped)}

    def _outside(self, key: jax.Array, split: str, chunk: int) -> tuple[dict[str, Any], int]:
        world, settings = self.world, self.settings
        # Where no opening comes twice, other random numbers are other openings.
        chooses = self.by == 'openings' and world.openings != math.inf
        world.keep = splits.keeper(split, settings.seed) if chooses else None
        world.refused, ticks = 0, itertools.count(1)
        try:
            _, records = interaction.play(
                world, self.policy, self.variables, key, settings.ticks, advance=lambda n: self._tell(next(ticks))
            )
        except interaction.WorldRaised as raised:
            if isinstance(raised.error, TooFewOpenings):
                raise ValueError(splits.too_few(settings.world, str(raised.error))) from raised
            where = 'at a reset' if raised.tick < 0 else f'at step {raised.tick:,}'
            said = ' '.join(str(raised).split()).rstrip('.')
            raise ValueError(
                f'{settings.world} raised {said}, {where} of chunk {chunk} of {split}: its '
                f'{(next(ticks) - 1) * world.batch:,} frames are dropped, the chunks finished before ({self.finished}) '
                f'are kept in {self.parts}; mend the world and give the same command again.'
            ) from raised
        return records, world.refused


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
