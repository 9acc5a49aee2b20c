"""The benchmark's workloads: shapes that others have published or that peers were measured on, with noise for data.

python launch/benchmark.py tokenizer masked_dynamics masked_dreaming dreamer_1m
"""

from __future__ import annotations

import ml_collections

from experiments.arguments import parse
from worldmodels.training.config import default_config

MEASURES = {
    'tokenizer': ('train',),
    'masked_dynamics': ('train',),
    'masked_dreaming': ('dream',),
    'dreamer_1m': ('train', 'dream'),
}
"""The workloads, and what each is about."""


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: the names in MEASURES. Option: tiny, the same code at test size.

    `evaluate.starts`, `context` and `horizon` are the batch, the frames watched and the frames dreamed.
    """
    variant, options = parse(arg, tuple(MEASURES), tiny=False)
    config = default_config()
    if variant == 'dreamer_1m':
        _dreamer(config)
    else:
        _video(config, variant)
    if options['tiny']:
        _shrink(config)
    return config


def _video(config: ml_collections.ConfigDict, variant: str) -> None:
    """4 x 16 frames of 64 x 64 x 3 in patches of 8: a tokenizer of 1,024 codes; masked dynamics on it, frozen."""
    config.world = {'name': 'random', 'image': (64, 64, 3), 'actions': 6}
    config.data.update({'batch_size': 4, 'segment_length': 16})
    config.model = {
        'heart': {
            'kind': 'tokens',
            'levels': (4, 4, 4, 4, 4),
            'patch': 8,
            'width': 128,
            'heads': 4,
            'hidden': 512,
            'encoder_depth': 4,
            'decoder_depth': 4,
        },
        'filter': {'reads': 'frame'},
        'transition': {'kind': 'masked', 'width': 128, 'depth': 4, 'heads': 4, 'hidden': 512, 'steps': 25},
        'memory': {'kind': 'window', 'length': 16, 'width': 128, 'depth': 4, 'heads': 4, 'hidden': 512},
        'outcome': {'reads': 'departure'},
        'context_to': ('transition', 'outcome'),
    }
    if variant == 'tokenizer':
        config.train.parts = ('heart',)
        config.train.weights = {'reconstruction': 1.0}
    else:
        config.train.parts = ('filter', 'transition', 'memory', 'outcome')
        config.train.weights = {'transition': 1.0, 'reward': 1.0, 'discount': 1.0}
    config.evaluate.update({'starts': 1, 'context': 12, 'horizon': 8})


def _dreamer(config: ml_collections.ConfigDict) -> None:
    """DreamerV3's world model at size 1m: 16 x 65 frames 64 x 64 x 3, 17 actions."""
    config.world = {'name': 'random', 'image': (64, 64, 3), 'actions': 17}
    config.data.update({'batch_size': 16, 'segment_length': 65})


def _shrink(config: ml_collections.ConfigDict) -> None:
    config.data.update({'batch_size': 2, 'segment_length': 4})
    config.evaluate.update({'context': 2, 'horizon': 2})
    config.world.image = (16, 16, 3)
    for part in ('heart', 'transition', 'memory'):
        for field, small in {'width': 16, 'depth': 1, 'heads': 2, 'hidden': 16, 'length': 3, 'steps': 2}.items():
            if field in config.model[part]:
                config.model[part][field] = small
