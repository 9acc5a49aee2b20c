"""DoorKey-8x8 from pixels: the two world models on one world of keys, doors and random layouts.

    python launch/collect.py --world=navix/DoorKey-8x8 --path=runs/doorkey/data
    python launch/train.py --config=experiments/doorkey.py:tokenizer --workdir=runs/doorkey/tokenizer
    python launch/train.py --config=experiments/doorkey.py:masked --workdir=runs/doorkey/masked
"""

from __future__ import annotations

import ml_collections

from experiments.arguments import parse
from worldmodels.training.config import default_config


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: tokenizer, masked, recurrent. Options: memory, tiny."""
    variant, options = parse(arg, ('tokenizer', 'masked', 'recurrent'), memory='window', tiny=False)
    config = default_config()
    config.world = {'name': 'navix/DoorKey-8x8', 'view': 'full', 'observation': 'rgb'}
    config.data.path = 'runs/doorkey/data'
    config.model = {
        'heart': {
            'kind': 'tokens',
            'levels': (4, 4, 4, 4),
            'patch': 8,
            'width': 96,
            'heads': 4,
            'hidden': 192,
            'encoder_depth': 0,
            'decoder_depth': 1,
        },
        'filter': {'reads': 'frame'},
        'transition': {
            'kind': 'masked',
            'width': 64,
            'depth': 2,
            'heads': 4,
            'hidden': 256,
            'neighbours': True,
            'steps': 4,
        },
        'memory': {
            'kind': 'window',
            'length': 8,
            'width': 64,
            'depth': 2,
            'heads': 4,
            'hidden': 256,
            'neighbours': True,
        },
        'outcome': {'reads': 'departure'},
        'context_to': ('transition', 'outcome'),
    }
    config.optimizer.update({'learning_rate': 2e-3, 'warmup': 50, 'schedule': 'cosine'})
    if variant == 'tokenizer':
        config.train.parts = ('heart',)
        config.train.weights = {'reconstruction': 1.0}
        config.train.steps = 600
        config.data.batch_size, config.data.segment_length = 8, 8
    return config
