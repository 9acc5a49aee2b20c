"""Plays a world and writes a dataset of episodes.

    python launch/collect.py --world=navix/DoorKey-8x8 --option view=partial \\
        --policy=random:0.5,scripted:0.5 --steps=40000 --path=data/doorkey
    python launch/collect.py --world=atari/Breakout --option sticky=0.25 --path=data/breakout

A world of your own is named by its import path (it lies in the current folder, or is installed): a class in the form of
`worldmodels/worlds/__init__.py` for one world, or a gymnasium.Env; the arguments of its constructor are its options:

    python launch/collect.py --world=my_world:Field --option size=5 --path=data/mine

Killed at any time, the same command goes on; finished, it says so.

A trained model plays too, planning in its own dream (`worldmodels/control/planner.py`):

    python launch/collect.py --world=navix/DoorKey-8x8 \\
        --policy=checkpoint:0.5,random:0.5 --checkpoint=runs/doorkey/masked --steps=4000 --path=data/planned
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import sys
import time

from absl import flags, logging

from launch import command, progress
from worldmodels.training import allocator

_WORLD = flags.DEFINE_string('world', 'navix/DoorKey-8x8', 'family/name of the world, or package.module:Name.')
_OPTION = flags.DEFINE_multi_string(
    'option',
    [],
    'name=value, of the world, as in max_steps=200; repeatable. A name it does not have is told what it has.',
)
_POLICY = flags.DEFINE_string(
    'policy',
    None,
    'kind:weight,...; kinds random, sticky, scripted, checkpoint; weights are shares of frames. Default: random:0.5 and '
    'scripted:0.5, or sticky:0.5 in worlds that the script cannot play.',
)
_NOISE = flags.DEFINE_float('noise', 0.4, 'Probability that the scripted policy acts at random.')
_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'Workdir of the run whose model the policy checkpoint plans with.'
)
_PLAN_HORIZON = flags.DEFINE_integer('plan_horizon', 12, 'Ticks that it looks ahead.')
_PLAN_CANDIDATES = flags.DEFINE_integer(
    'plan_candidates', 64, 'Futures that it dreams before every action, in each of its lanes and all at once.'
)
_STEPS = flags.DEFINE_integer('steps', 40_000, 'Frames of the train split, rounded up to whole chunks.')
_VALIDATION = flags.DEFINE_integer(
    'validation', None, 'Episodes of the validation split. Default: 400, outside JAX 40.', lower_bound=0
)
_SPLIT = flags.DEFINE_string(
    'split',
    'auto',
    'What validation holds out: openings (which never begin a training episode), episodes (played with other random '
    'numbers), or auto: openings where there are enough different ones.',
)
_LANES = flags.DEFINE_integer('lanes', None, 'Worlds played side by side. Default: 64, outside JAX 8.')
_SEED = flags.DEFINE_integer('seed', 0, 'Everything drawn depends on it.')
_PATH = flags.DEFINE_string('path', None, 'Folder of the dataset.', required=True)

PACKAGES = ('jax', 'numpy', 'tensorflow-datasets', 'array_record', 'navix', 'gymnax', 'gymnasium', 'ale-py', 'crafter')
"""Whose versions are kept with the data."""


def load(workdir: str) -> tuple:
    """The model in a workdir: what it is, for the settings; it and its variables; what is kept about it with the data."""
    from worldmodels.data import collect
    from worldmodels.evaluation.examine import Trained

    trained = Trained.load(workdir)
    fingerprint = json.loads(pathlib.Path(workdir, 'fingerprint.json').read_text())
    chosen = collect.Checkpoint(
        fingerprint=hashlib.blake2b(json.dumps(fingerprint, sort_keys=True).encode(), digest_size=8).hexdigest(),
        step=trained.step,
        weights=collect.digest(trained.variables),
        horizon=_PLAN_HORIZON.value,
        candidates=_PLAN_CANDIDATES.value,
        dials=tuple(sorted(trained.config.evaluate.get('dials', {}).items())),
    )
    about = {'checkpoint': {'name': trained.name, 'step': trained.step, 'fingerprint': fingerprint}}
    return chosen, (trained.model, trained.variables), about


def main(argv):
    del argv
    from rich.console import Console

    allocator.keep_freed_memory()
    from worldmodels import worlds
    from worldmodels.data import collect, episodes, making
    from worldmodels.worlds.host import Host
    from worldmodels.worlds.options import parse

    logging.set_verbosity(logging.WARNING)
    console = Console(file=sys.stdout, soft_wrap=True)
    path = os.path.abspath(os.path.expanduser(_PATH.value)).rstrip('/')
    options = worlds.chosen(_WORLD.value, parse(_OPTION.value))
    world = worlds.make(_WORLD.value, 1, **options)
    spec, outside = world.spec, isinstance(world, Host)
    if outside:
        world.close()
    checkpoint, trained, about = load(_CHECKPOINT.value) if _CHECKPOINT.value else (None, None, {})
    settings = collect.Settings(
        world=_WORLD.value,
        options=tuple(options.items()),
        policy=collect.parse_policy(_POLICY.value or collect.usual_policy(spec)),
        noise=_NOISE.value,
        steps=_STEPS.value,
        validation=(40 if outside else 400) if _VALIDATION.value is None else _VALIDATION.value,
        lanes=(8 if outside else 64) if _LANES.value is None else _LANES.value,
        seed=_SEED.value,
        split=_SPLIT.value,
        checkpoint=checkpoint,
    )
    if collect.is_complete(path, settings):
        console.print(f'{path} is complete: nothing to do.')
        return
    frames = settings.ticks * settings.lanes * settings.chunks
    size = frames * episodes.frame_bytes(spec) / 1e6
    console.print(
        f'{settings.world}: {frames:,} frames to train on and {settings.validation} held-out episodes; '
        f'{size:,.0f} MB of training frames before compression, as much in {path}.parts while it runs.'
    )
    # Its import puts another in the place of Python's for a while, which the bar's thread must not meet.
    import tensorflow_datasets  # noqa: F401

    start = time.time()
    with progress.bar(console, 'frames') as bar:
        tasks = {stage: bar.add_task(stage, total=None) for stage in ('playing', 'writing')}
        written = collect.collect(
            path,
            settings,
            {**making.provenance(PACKAGES), **about},
            lambda stage, done, total: bar.update(tasks[stage], completed=done, total=total),
            trained,
            say=bar.console.print,
        )
        bar.update(tasks['writing'], total=sum(map(sum, written['lengths'].values())))
    for split, lengths in written['lengths'].items():
        console.print(f'{split}: {len(lengths):,} episodes, {sum(lengths):,} frames')
    console.print(f'{path} written in {time.time() - start:.0f} s.')


if __name__ == '__main__':
    command.run(main, 'collecting')
