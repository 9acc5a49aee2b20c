"""MinAtar Breakout."""

from __future__ import annotations

import ml_collections

from experiments import verticals
from experiments.arguments import parse
from worldmodels.training.config import default_config

HEART = {'kind': 'palette', 'codes': 16, 'embedding': 16}


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: masked (on exact cells), recurrent (DreamerV3's world model, trained jointly).

    Options: memory (of the masked variant: window, recurrent or none), size (of the recurrent one), tiny (a few steps of
    the same road).
    """
    variant, options = parse(arg, ('masked', 'recurrent'), **verticals.OPTIONS)
    config = default_config()
    config.world = {'name': 'gymnax/Breakout-MinAtar'}
    config.data.path = 'runs/minatar/data'
    config.evaluate = {'starts': 200, 'context': 8, 'horizon': 10}
    if variant == 'recurrent':
        verticals.recurrent(config, options['size'])
    else:
        verticals.masked(config, variant, options, tokenizer='', heart=HEART)
    if options['tiny']:
        verticals.tiny(config)
    return config
