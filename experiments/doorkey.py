"""DoorKey-8x8 from pixels: two world models with nothing in common but the contracts, on a world of keys and doors.

python launch/collect.py --world=navix/DoorKey-Random-8x8 --path=runs/doorkey/data
python launch/train.py --config=experiments/doorkey.py:tokenizer --workdir=runs/doorkey/tokenizer
python launch/train.py --config=experiments/doorkey.py:masked --workdir=runs/doorkey/masked
python launch/evaluate.py --workdir=runs/doorkey/masked

On 200 held-out starts, two cores of an Intel Xeon (AVX-512), as `make demo` runs it (the tokenizer 26 s, this model 119 s):
99.5% of changed cells right one tick ahead; whole frames right 99.5% one tick and 90.5% fifteen ticks ahead, against 31.5% and
3.6% for copying the last.

python launch/train.py --config=experiments/doorkey.py:recurrent --workdir=runs/doorkey/recurrent
python launch/evaluate.py --workdir=runs/doorkey/recurrent

On the same machine, 19 minutes at 320 ms a step: 34.5% of changed cells, no frame right as a whole. Real frames redrawn by
its own heart: 37.5%, and none. What it can draw limits it, not yet what it foresees: it codes a frame as one vector, and saw
883 layouts.

python launch/collect.py --world=navix/DoorKey-Random-8x8 --option observation=symbolic --path=runs/symbolic
python launch/train.py --config=experiments/doorkey.py:recurrent,observation=symbolic --workdir=runs/doorkey/symbols
    --config.data.path=runs/symbolic --config.train.steps=16000
python launch/evaluate.py --workdir=runs/doorkey/symbols

Symbols, 7.5 minutes: 35.4% of changed cells, 1.5% of whole frames; redrawn 37.5% and 1.0%.
"""

from __future__ import annotations

import ml_collections

from experiments import verticals
from experiments.arguments import parse
from worldmodels.training.config import default_config

HEART = {
    'kind': 'tokens',
    'levels': (4, 4, 4, 4),
    'patch': 8,
    'width': 64,
    'heads': 4,
    'hidden': 128,
    'encoder_depth': 0,
    'decoder_depth': 1,
    'hide': 0.1,
}


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: tokenizer, masked (on the tokenizer's tokens), recurrent (DreamerV3's world model, trained jointly).

    Options: memory and transition (of the masked variant: those of `verticals.masked`, or one of your own,
    package.module:Name), size (of the recurrent one), observation (rgb or symbolic, as the data are), tiny (a few steps of
    the same road).
    """
    variant, options = parse(arg, verticals.VARIANTS, **verticals.OPTIONS, observation='rgb')
    config = default_config()
    config.world = {'name': 'navix/DoorKey-Random-8x8', 'view': 'full', 'observation': options['observation']}
    config.data.path = 'runs/doorkey/data'
    config.evaluate = {'starts': 200, 'context': 8, 'horizon': 15}
    verticals.fill(config, variant, options, heart=HEART, tokenizer='runs/doorkey/tokenizer')
    return config
