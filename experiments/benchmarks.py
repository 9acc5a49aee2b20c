"""The benchmark's workloads: shapes that others have published or that peers were measured on, with noise for data.

python launch/benchmark.py tokenizer masked_dynamics masked_dynamics_latent masked_dreaming dreamer_1m
python launch/benchmark.py autoregressive_dynamics autoregressive_dreaming
python launch/benchmark.py mae_tokenizer flow_dynamics flow_dreaming flow_dreaming_4 shortcut_dynamics
"""

from __future__ import annotations

import ml_collections

from experiments.arguments import parse
from worldmodels.build import complete
from worldmodels.sizes import dreamer
from worldmodels.training.config import default_config

MEASURES = {
    'tokenizer': ('train',),
    'masked_dynamics': ('train',),
    'masked_dynamics_latent': ('train',),
    'masked_dreaming': ('dream',),
    'autoregressive_dynamics': ('train',),
    'autoregressive_dreaming': ('dream',),
    'mae_tokenizer': ('train',),
    'flow_dynamics': ('train',),
    'flow_dreaming': ('dream',),
    'flow_dreaming_4': ('dream',),
    'shortcut_dynamics': ('train',),
    'dreamer_1m': ('train', 'dream'),
}
"""The workloads, and what each is about."""

TINY = {
    'depth': 2,
    'deter': 32,
    'encoder_depth': 1,
    'decoder_depth': 1,
    'heads': 2,
    'hidden': 16,
    'latents': 3,
    'length': 3,
    'steps': 2,
    'units': 16,
    'width': 16,
}


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: the names in MEASURES. Option: tiny, the same code at test size.

    `evaluate.starts`, `context` and `horizon` are the batch, the frames watched and the frames dreamed.
    """
    variant, options = parse(arg, tuple(MEASURES), tiny=False)
    config = default_config()
    if variant == 'dreamer_1m':
        _dreamer(config)
    elif variant.startswith(('mae', 'flow', 'shortcut')):
        _numbers(config, variant)
    else:
        _video(config, variant)
    config.model = complete(config.model.to_dict())
    if options['tiny']:
        _shrink(config)
    return config


def _video(config: ml_collections.ConfigDict, variant: str) -> None:
    """4 x 16 frames of 64 x 64 x 3 in patches of 8: a tokenizer of 1,024 codes; dynamics on it, frozen.

    Parameters are within a tenth of the peers': 2.20M for the tokenizer, 5.11M with either dynamics, 4.99M with the dynamics
    whose actions are found in the frames beside it (peers 4.67M, which counts a latent-action model). The history is read
    once a frame by a deep memory, so that the rounds of decoding, or the tokens one after the other, repeat a shallow
    network.
    """
    config.world = {'name': 'random', 'image': (64, 64, 3), 'actions': 6}
    config.data.update({'batch_size': 4, 'segment_length': 16})
    config.model = {
        'heart': {
            'kind': 'tokens',
            'levels': (4, 4, 4, 4, 4),
            'patch': 8,
            'width': 128,
            'heads': 4,
            'hidden': 768,
            'encoder_depth': 4,
            'decoder_depth': 4,
        },
        'filter': {'reads': 'frame'},
        'transition': {'kind': 'masked', 'width': 128, 'depth': 2, 'heads': 4, 'hidden': 512},
        'memory': {'kind': 'window', 'length': 16, 'width': 128, 'depth': 6, 'heads': 4, 'hidden': 512},
        'outcome': {'reads': 'departure', 'units': 128},
        'context_to': ('transition', 'outcome'),
    }
    if variant.startswith('autoregressive'):
        config.model.transition.kind = 'autoregressive'
    else:
        config.model.transition.steps = 25
    if variant == 'tokenizer':
        config.train.parts = ('heart',)
        config.train.weights = {'reconstruction': 1.0, 'saturation': 1.0}
    else:
        config.train.parts = ('filter', 'transition', 'memory', 'outcome')
        config.train.weights = {'transition': 1.0, 'reward': 1.0, 'discount': 1.0}
    if variant == 'masked_dynamics_latent':
        small = {'width': 64, 'heads': 4, 'hidden': 256}
        config.model.action = {'kind': 'latent', 'codes': 6, 'patch': 16, 'turns': False, 'depth': 2, **small}
        config.model.memory.depth = 3
        config.train.parts += ('action',)
        config.train.weights.update({'latent_action': 1.0, 'action_code': 1.0, 'action_prior': 1.0})
    config.evaluate.update({'starts': 1, 'context': 12, 'horizon': 8})


def _numbers(config: ml_collections.ConfigDict, variant: str) -> None:
    """The same video without codes: masked autoencoders, and flows on them, frozen.

    mae_tokenizer      16 slots of 32 numbers a frame; 2.21M parameters (peer 2.31M)
    flow_...           64 slots of 32 numbers, one a patch; 4.50M parameters with the heart (peer 4.36M), 64 denoising steps
                       a dreamed frame, or 4
    shortcut_dynamics  8 slots of 64 numbers; 1.20M parameters without the heart (peer 1.14M)
    """
    _video(config, variant)
    transformer = {'width': 128, 'heads': 4, 'hidden': 512}
    slots, size = {'mae': (16, 32), 'flow': (0, 32), 'shortcut': (8, 64)}[variant.partition('_')[0]]
    shallow, deep = (1, 3) if variant == 'shortcut_dynamics' else (2, 6)
    steps = 64 if variant == 'flow_dreaming' else 4
    heart = {'kind': 'continuous', 'latents': slots, 'size': size, 'patch': 8, 'encoder_depth': 4, 'decoder_depth': 4}
    config.model.heart = {**heart, **transformer, 'hidden': 768}
    config.model.transition = {'kind': 'flow', 'depth': shallow, 'steps': steps, **transformer}
    config.model.memory.update({'depth': deep})
    if variant == 'mae_tokenizer':
        config.train.parts = ('heart',)
        config.train.weights = {'reconstruction': 1.0, 'perceptual': 1.0}


def _dreamer(config: ml_collections.ConfigDict) -> None:
    """DreamerV3's world model at size 1m: 16 x 65 frames 64 x 64 x 3, 17 actions."""
    config.world = {'name': 'random', 'image': (64, 64, 3), 'actions': 17}
    config.data.update({'batch_size': 16, 'segment_length': 65})
    config.model = dreamer('1m')
    config.train.weights = {
        'reconstruction': 1.0,
        'dynamics': 1.0,
        'representation': 0.1,
        'reward': 1.0,
        'discount': 1.0,
    }
    config.optimizer.update({'kind': 'laprop', 'learning_rate': 4e-5, 'eps': 1e-20, 'agc': 0.3, 'clip_norm': 0.0})
    config.evaluate.update({'starts': 16, 'context': 8, 'horizon': 15})


def _shrink(config: ml_collections.ConfigDict) -> None:
    config.data.update({'batch_size': 2, 'segment_length': 4})
    config.evaluate.update({'starts': 2, 'context': 2, 'horizon': 2})
    config.world.image = (16, 16, 3)
    for part in config.model.values():
        for field, value in TINY.items():
            if field in part:
                part[field] = value
