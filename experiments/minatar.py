"""MinAtar Breakout, 10 x 10 cells of four channels: exact cells, and episodes of all lengths.

python launch/collect.py --world=gymnax/Breakout-MinAtar --policy=random:0.3,scripted:0.7 --noise=0.1 --path=runs/minatar/data
python launch/train.py --config=experiments/minatar.py:masked --workdir=runs/minatar/masked
python launch/evaluate.py --workdir=runs/minatar/masked

python launch/train.py --config=experiments/minatar.py:recurrent --workdir=runs/minatar/recurrent
python launch/evaluate.py --workdir=runs/minatar/recurrent

On two cores of an Intel Xeon (AVX-512), other programs running, 200 held-out starts: the masked model, 166 s of training, gets
99.8% of changed cells right one tick ahead and 92.3% ten ticks ahead; the recurrent one, 149 s, 80.5% and 66.1%; copying
the last frame, 0% and 38.7%. Both are above copying at all ten horizons (`experiments/real_worlds.csv`).
"""

from __future__ import annotations

import ml_collections

from experiments import verticals
from experiments.arguments import parse
from worldmodels.training.config import default_config

HEART = {'kind': 'palette', 'codes': 16, 'embedding': 16}


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: masked (on exact cells), recurrent (DreamerV3's world model, trained jointly).

    Options: memory and transition (of the masked variant), size (of the recurrent one), tiny (a few steps of the same road).
    """
    variant, options = parse(arg, ('masked', 'recurrent'), **verticals.OPTIONS)
    config = default_config()
    config.world = {'name': 'gymnax/Breakout-MinAtar'}
    config.data.path = 'runs/minatar/data'
    config.evaluate = {'starts': 200, 'context': 8, 'horizon': 10}
    verticals.fill(config, variant, options, heart=HEART)
    return config
