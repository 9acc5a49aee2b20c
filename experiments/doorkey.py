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

from experiments.arguments import parse
from worldmodels.build import complete
from worldmodels.imports import FORM, is_path
from worldmodels.sizes import dreamer
from worldmodels.training.config import default_config

TRANSFORMER = {'width': 64, 'depth': 2, 'heads': 4, 'hidden': 192, 'neighbours': True}


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: tokenizer, masked (on the tokenizer's tokens), recurrent (DreamerV3's world model, trained jointly).

    Options: memory and transition (of the masked variant: window, recurrent or none; masked; or one of your own,
    package.module:Name), size (of the recurrent one), observation (rgb or symbolic, as the data are), tiny (a few steps of
    the same road).
    """
    options = {'memory': 'window', 'transition': 'masked', 'size': '1m', 'observation': 'rgb', 'tiny': False}
    variant, options = parse(arg, ('tokenizer', 'masked', 'recurrent'), **options)
    config = default_config()
    config.world = {'name': 'navix/DoorKey-Random-8x8', 'view': 'full', 'observation': options['observation']}
    config.data.path = 'runs/doorkey/data'
    config.evaluate = {'starts': 200, 'context': 8, 'horizon': 15}
    if variant == 'recurrent':
        _recurrent(config, options)
    else:
        _masked(config, variant, options)
    if options['tiny']:
        config.train.update({'steps': 20, 'log_every': 10})
        config.optimizer.warmup = 5
    return config


def _masked(config: ml_collections.ConfigDict, variant: str, options: dict) -> None:
    memories = {
        'window': {'kind': 'window', 'length': 8, **TRANSFORMER},
        'recurrent': {'kind': 'recurrent', 'deter': 512, 'hidden': 128},
        'none': {'kind': 'none'},
    }
    transitions = {'masked': {'kind': 'masked', 'steps': 4, 'temperature': 0.5, **TRANSFORMER}}
    config.model = complete(
        {
            'heart': {
                'kind': 'tokens',
                'levels': (4, 4, 4, 4),
                'patch': 8,
                'width': 64,
                'heads': 4,
                'hidden': 128,
                'encoder_depth': 0,
                'decoder_depth': 1,
                'hide': 0.1,
            },
            'filter': {'reads': 'frame'},
            'transition': _chosen('transition', transitions, options),
            'memory': _chosen('memory', memories, options),
            'outcome': {'reads': 'departure', 'units': 64},
            'context_to': ('transition', 'outcome'),
        }
    )
    config.optimizer.update(
        {'learning_rate': 3e-3, 'warmup': 50, 'schedule': 'cosine', 'weight_decay': 1e-2, 'b2': 0.99}
    )
    config.train.log_every = 20
    if variant == 'tokenizer':
        config.data.update({'batch_size': 16, 'segment_length': 1})
        config.optimizer.learning_rate = 5e-3
        config.train.update({'steps': 2000, 'parts': ('heart',), 'log_every': 200})
        config.train.weights = {'reconstruction': 1.0, 'saturation': 10.0}
    else:
        config.data.update({'batch_size': 8, 'segment_length': 16})
        config.train.update(
            {
                'steps': 400,
                'parts': ('filter', 'transition', 'memory', 'outcome'),
                'weights': {'transition': 1.0, 'reward': 0.1, 'discount': 0.1},
                'ema': 0.98,
                'init_from': {'path': 'runs/doorkey/tokenizer', 'parts': ('heart',)},
            }
        )


def _chosen(part: str, known: dict, options: dict) -> dict:
    """The fields of a part by its option: those known here, or the defaults of one's own part."""
    name = options[part]
    if is_path(name):
        return {'kind': name}
    if name not in known:
        raise ValueError(f"{part} '{name}' is not one of {', '.join(known)}, nor of the form {FORM}.")
    return known[name]


def _recurrent(config: ml_collections.ConfigDict, options: dict) -> None:
    config.model = complete(dreamer(options['size']))
    config.data.update({'batch_size': 16, 'segment_length': 16})
    config.optimizer.update(
        {'kind': 'laprop', 'learning_rate': 1e-3, 'warmup': 200, 'clip_norm': 0.0, 'agc': 0.3, 'eps': 1e-20}
    )
    config.optimizer.schedule = 'cosine'
    config.train.update(
        {
            'steps': 3500,
            'log_every': 50,
            'weights': {
                'reconstruction': 1.0,
                'dynamics': 1.0,
                'representation': 0.1,
                'reward': 1.0,
                'discount': 1.0,
            },
        }
    )
