"""Craftax-Classic from pixels, 63 x 63: a wide world seen through a small window, day and night.

python launch/collect.py --world=craftax/Classic-Pixels --policy=sticky --steps=40000 --path=runs/craftax/data
python launch/train.py --config=experiments/craftax.py:masked --workdir=runs/craftax/masked
python launch/evaluate.py --workdir=runs/craftax/masked

python launch/train.py --config=experiments/craftax.py:recurrent --workdir=runs/craftax/recurrent
python launch/evaluate.py --workdir=runs/craftax/recurrent

Not measured yet.
"""

from __future__ import annotations

import ml_collections

from experiments import verticals
from experiments.arguments import parse
from worldmodels.training.config import default_config

HEART = {'kind': 'palette', 'codes': 1024, 'patch': 7, 'embedding': 32}
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
    config.evaluate = {'starts': 200, 'context': 8, 'horizon': 10, 'tile': 7}
    verticals.fill(config, variant, options, heart=HEART, costs=COSTS, recurrent_steps=1500)
    return config
