"""The real models at the smallest size that has every part, on a dataset of noise, trained in a process of its own."""

import os

import numpy as np
import training_runs

from worldmodels.data import episodes
from worldmodels.training import loop
from worldmodels.training.config import default_config
from worldmodels.types import ActionSpace, Modality, Spec

SPEC = Spec(observation=(('image', Modality('image', (16, 16, 3))),), action=ActionSpace('discrete', 3))


def episode(r, length):
    """An episode of noise from a numpy generator; time runs out at its end."""
    return {
        'observation': {'image': r.integers(0, 256, (length, 16, 16, 3)).astype(np.uint8)},
        'action': r.integers(0, 3, length).astype(np.int32),
        'reward': r.normal(size=length).astype(np.float32),
        'discount': np.ones(length, np.float32),
        'is_first': np.arange(length) == 0,
        'is_last': np.arange(length) == length - 1,
        'is_terminal': np.zeros(length, bool),
    }


def write_data(path):
    """Some episodes of noise, in both splits."""

    def some(seed, count):
        r = np.random.default_rng(seed)
        for _ in range(count):
            yield episode(r, int(r.integers(3, 12)))

    episodes.write(str(path), SPEC, {'train': some(0, 20), 'validation': some(1, 5)}, {'world': 'noise'})


def config(vertical, path, **fields):
    """`vertical` is 'masked' or 'recurrent'; both carry their belief from segment to segment."""
    c = default_config()
    c.data.update(path=path, batch_size=4, segment_length=4, consecutive=True)
    c.train.update(steps=60, log_every=7, checkpoint_every=15, ema=0.9, evaluate_every=20, evaluate_batches=2)
    c.train.weights = {'reconstruction': 1.0, 'reward': 1.0, 'discount': 1.0}
    if vertical == 'masked':
        small = {'width': 8, 'depth': 1, 'heads': 2, 'hidden': 8}
        tokens = {'width': 8, 'heads': 2, 'hidden': 8, 'encoder_depth': 0, 'decoder_depth': 1}
        c.model = {
            'heart': {'kind': 'tokens', 'levels': (3, 3), 'patch': 8, **tokens},
            'filter': {'reads': 'frame'},
            'transition': {'kind': 'masked', **small},
            'memory': {'kind': 'window', 'length': 3, **small},
            'outcome': {'reads': 'departure', 'units': 8},
            'context_to': ('transition', 'outcome'),
        }
        c.train.weights.transition = 1.0
        c.train.weights.saturation = 1.0
    else:
        c.model = {
            'heart': {
                **{'kind': 'categorical', 'stoch': 2, 'classes': 4},
                **{'depth': 2, 'mults': (1, 2), 'units': 8, 'layers': 1, 'blocks': 2},
            },
            'filter': {'reads': 'prediction', 'hidden': 8},
            'transition': {'kind': 'categorical', 'hidden': 8, 'layers': 1},
            'memory': {'kind': 'recurrent', 'deter': 16, 'hidden': 8, 'blocks': 2},
            'outcome': {'reads': 'arrival', 'units': 8},
            'context_to': ('transition', 'outcome', 'decoder'),
        }
        c.train.weights.dynamics = 1.0
        c.train.weights.representation = 0.1
        c.optimizer.update(kind='laprop', agc=0.3)
    c.update_from_flattened_dict(fields)
    return c


if __name__ == '__main__':
    training_runs.main(
        lambda vertical, **fields: config(vertical, os.environ['TRAINING_DATA'], **fields), loop.assemble
    )
