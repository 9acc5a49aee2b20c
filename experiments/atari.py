"""Atari."""

from __future__ import annotations

import ml_collections

from experiments import verticals
from experiments.arguments import parse
from worldmodels.training.config import default_config

HEART = {
    'kind': 'tokens',
    'levels': (4, 4, 4, 4, 4),
    'patch': 8,
    'width': 96,
    'heads': 4,
    'hidden': 192,
    'encoder_depth': 0,
    'decoder_depth': 1,
    'hide': 0.1,
}


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    variant, options = parse(arg, verticals.VARIANTS, **verticals.OPTIONS)
    config = default_config()
    config.world = {'name': 'atari/Breakout'}
    config.data.path = 'runs/atari/data'
    config.evaluate = {'starts': 200, 'context': 8, 'horizon': 10}
    if variant == 'recurrent':
        verticals.recurrent(config, options['size'])
    else:
        verticals.masked(config, variant, options, tokenizer='runs/atari/tokenizer', heart=HEART)
    if options['tiny']:
        verticals.tiny(config)
    return config
