"""DreamerV3's world model: a heart of classes, a block GRU and an outcome, trained jointly on what was played.

python launch/collect.py --world=gymnax/Breakout-MinAtar --policy=random:0.3,scripted:0.7 --noise=0.1
    --path=runs/dreamer_v3/minatar
python launch/train.py --config=experiments/dreamer_v3.py:minatar --workdir=runs/dreamer_v3/run
python launch/evaluate.py --workdir=runs/dreamer_v3/run

The variants are worlds: minatar (cells), atari (Breakout, pixels) and crafter (pixels). For these two:

python launch/collect.py --world=atari/Breakout --policy=sticky --steps=40000 --validation=40 --path=runs/dreamer_v3/atari
python launch/collect.py --world=crafter/Crafter --policy=sticky --steps=40000 --path=runs/dreamer_v3/crafter

Sizes: tiny (a few steps of the same road), laptop (1m, segments of 16 and a learning rate of 1e-3: two cores, minutes),
accelerator (the published recipe, Hafner et al., 2023, arXiv 2301.04104: 16 x 64 frames, learning rate 4e-5, adaptive
clipping at 0.3, 1 free nat; one GPU, hours; a million frames of play or more). Its world model alone: actor and critic are
not here yet.

python launch/collect.py --world=atari/Breakout --policy=sticky --steps=1000000 --path=runs/dreamer_v3/atari
python launch/train.py --config=experiments/dreamer_v3.py:atari,size=accelerator,parameters=200m --workdir=runs/dreamer_v3/large

Measured as `minatar.py:recurrent`, whose training this is at size laptop: 149 s on two cores of an Intel Xeon (AVX-512), 200
held-out starts, 80.5% of changed cells right one tick ahead and 66.1% ten ticks ahead; copying, 0% and 38.7%.
"""

from __future__ import annotations

import ml_collections

from experiments import verticals
from experiments.arguments import parse
from worldmodels.training.config import default_config

WORLDS = {
    'minatar': ({'name': 'gymnax/Breakout-MinAtar'}, ()),
    'atari': ({'name': 'atari/Breakout'}, ('life_lost',)),
    'crafter': ({'name': 'crafter/Crafter'}, ('damage', 'achievements')),
}
"""The world, and what it pays out beside reward and discount."""

SIZES = ('tiny', 'laptop', 'accelerator')


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: minatar, atari, crafter.

    Options: size (tiny, laptop, accelerator), parameters (1m to 400m: `worldmodels.sizes`).
    """
    variant, options = parse(arg, tuple(WORLDS), size='laptop', parameters='1m')
    if options['size'] not in SIZES:
        raise ValueError(f"size '{options['size']}' is not one of {', '.join(SIZES)}.")
    world, costs = WORLDS[variant]
    config = default_config()
    config.world = dict(world)
    config.data.path = f'runs/dreamer_v3/{variant}'
    config.evaluate = {'starts': 200, 'context': 8, 'horizon': 10}
    verticals.recurrent(config, options['parameters'], 1500 if variant == 'crafter' else 3500, costs)
    if options['size'] == 'tiny':
        config.train.update({'steps': 20, 'log_every': 10})
        config.optimizer.warmup = 5
    elif options['size'] == 'accelerator':
        config.data.update({'segment_length': 64, 'consecutive': True})
        config.optimizer.update({'learning_rate': 4e-5, 'warmup': 1000, 'schedule': 'constant'})
        config.train.update({'steps': 500_000, 'log_every': 100, 'checkpoint_every': 5000})
    return config
