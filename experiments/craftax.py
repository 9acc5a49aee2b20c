"""Craftax-Classic from pixels, 63 x 63: a wide world seen through a small window, day and night.

python launch/collect.py --world=craftax/Classic-Pixels --policy=sticky --steps=40000 --path=runs/craftax/data
python launch/train.py --config=experiments/craftax.py:masked --workdir=runs/craftax/masked
python launch/evaluate.py --workdir=runs/craftax/masked

python launch/collect.py --world=craftax/Classic-Pixels --policy=sticky --steps=300000 --path=runs/craftax/many
python launch/train.py --config=experiments/craftax.py:recurrent --workdir=runs/craftax/recurrent
python launch/evaluate.py --workdir=runs/craftax/recurrent

On two cores, 200 held-out starts, PSNR over the pixels that change (`experiments/real_worlds.csv`). The masked model, 15
minutes of training (Intel Xeon with AVX-512, other programs running), comes to 21.6 dB one tick ahead and 17.2 dB ten ticks
ahead, copying the last frame to 19.5 and 16.2. The recurrent one, 9,000 steps, comes to 19.1 and 17.3 dB, copying on its own
starts to 18.2 and 16.6 (AMD EPYC; 70 minutes with the tests running beside it, some 35 at the 230 ms a step it takes alone).
Both are above copying at all ten ticks.
"""

from __future__ import annotations

import ml_collections

from experiments import verticals
from experiments.arguments import parse
from worldmodels.training.config import default_config

HEART = {'kind': 'palette', 'codes': 1024, 'patch': 7, 'embedding': 32, 'distance': 0.3}
"""One code for patches that differ by 11 levels of 255 at most (root of the mean square): the light changes by a level or two
at every tick, and with a code for each level 1,024 were full before the first night."""
WIDER = {
    'heart': {'patch': 7, 'classes': 32, 'depth': 8, 'layers': 2, 'units': 128},
    'filter': {'hidden': 256},
    'transition': {'hidden': 256},
    'memory': {'deter': 1024, 'hidden': 256},
}
"""Of the recurrent model at size 1m: 81 tiles of many kinds do not go through a layer of 64, and look alike everywhere."""
COSTS = ('damage', 'lava')


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: masked (on the nearest of the patches seen, 9 x 9 of 7 x 7 pixels, as Dedieu et al., 2025, arXiv 2502.01591,
    do), recurrent (DreamerV3's world model, trained jointly).

    Options: memory and transition (of the masked variant), size (of the recurrent one), tiny (a few steps of the same road).
    """
    variant, options = parse(arg, ('masked', 'recurrent'), **verticals.OPTIONS)
    config = default_config()
    config.world = {'name': 'craftax/Classic-Pixels'}
    config.data.path = 'runs/craftax/data'
    if variant == 'recurrent':
        config.data.update({'path': 'runs/craftax/many', 'cache_mb': 4096})  # all of it, decoded
    config.evaluate = {'starts': 200, 'context': 8, 'horizon': 10, 'tile': 7}
    wider = WIDER if options['size'] == '1m' else {'heart': {'patch': 7}}
    masked = {'heart': HEART, 'steps': 800, 'moves': True}
    verticals.fill(config, variant, options, costs=COSTS, recurrent_steps=9000, wider=wider, **masked)
    return config
