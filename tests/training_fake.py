"""A model, its losses and its data, as small as the training loop allows: what tests of worldmodels.training run on.

As a script it trains in a process of its own; see training_runs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import training_runs

from worldmodels import rng
from worldmodels.data.pipeline import is_long
from worldmodels.training import loop, signatures
from worldmodels.training.config import default_config
from worldmodels.types import ActionSpace, Belief, Latent, Modality, Spec, Ticks

SPEC = Spec(observation=(('x', Modality('vector', (3,))),), action=ActionSpace('discrete', 2))
WIDTH = 5


class Heart:
    tokenizer = False


class Model:
    """Two parts: the heart reads a frame through noise, the memory averages; together they predict the frame."""

    heart = Heart()

    def apply(self, variables, batch, method):
        assert method == 'initial'
        return Belief(Latent(None, jnp.zeros((batch, 1, WIDTH))), jnp.zeros((batch, WIDTH)), jnp.zeros((batch, 0, 1)))


MODEL = Model()


def init():
    key = rng.stream(0, 'params')
    return {
        'params': {
            'heart': {'w': jax.random.normal(key, (3, WIDTH))},
            'memory': {'w': jax.random.normal(key, (WIDTH, 3)), 'b': jnp.zeros(3)},
            'outcome': {'w': jnp.zeros((WIDTH,))},
        },
        'constants': {'heart': {'scale': jnp.ones(())}},
    }


def losses(model, variables, ticks, belief, keys_B, parts, corruption=0.0, remat='none'):
    p = variables['params']
    x_BTP = ticks.observation['x'] * variables['constants']['heart']['scale']
    B, T, _ = x_BTP.shape
    keys_BT = rng.per_tick(keys_B, T)
    noise_BTD = rng.draw(lambda k: jax.random.normal(k, (WIDTH,)), keys_BT)
    features_BTD = jnp.tanh(x_BTP @ p['heart']['w']) + 0.1 * noise_BTD
    start = belief if belief is not None else model.apply(None, B, method='initial')

    def step(h_BD, inputs):
        features_BD, reset_B = inputs
        h_BD = jnp.where(reset_B[:, None], 0.0, h_BD)
        h_BD = 0.5 * h_BD + features_BD
        return h_BD, h_BD

    inputs = (features_BTD.swapaxes(0, 1), ticks.reset_BT.swapaxes(0, 1))
    h_BD, h_TBD = jax.lax.scan(step, start.h, inputs)
    h_BTD = h_TBD.swapaxes(0, 1)
    guess_BTP = h_BTD @ p['memory']['w'] + p['memory']['b']
    loss_BT = jnp.square(guess_BTP - x_BTP).sum(-1)
    reward_BT = jnp.square(h_BTD @ p['outcome']['w'] - ticks.outcomes['reward'])
    out = {
        'reconstruction': (loss_BT, jnp.ones((B, T))),
        'reward': (reward_BT, ~ticks.is_first),
    }
    after = Belief(Latent(None, features_BTD[:, -1:]), h_BD, start.context_BMD)
    size = (jnp.abs(h_BTD).sum(), jnp.asarray(h_BTD.size, jnp.float32))
    return out, after, {'size': size, signatures.SUMS: signatures.sums(h_BTD[:, :, None], after, {})}


class Batches:
    """Endless random batches whose position is one number."""

    def __init__(self, batch_size, length, consecutive, seed=0, bad=(), process=0, processes=1, long=(0, 0)):
        self.size, self.length, self.consecutive, self.seed, self.bad = batch_size, length, consecutive, seed, bad
        self.long_length, self.long_every = long
        share = batch_size // processes
        self.rows = slice(process * share, (process + 1) * share)
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        r = np.random.default_rng([self.seed, self.position])
        B, T = self.size, self.long_length if is_long(self.position, self.long_every) else self.length
        x_BTP = r.normal(size=(B, T, 3)).astype(np.float32)
        if self.position in self.bad:
            x_BTP[B - 1, T - 1] = np.nan
        is_first_BT = r.random((B, T)) < 0.2
        is_first_BT[:, 0] |= not (self.consecutive and self.position)
        batch = Ticks(
            observation={'x': x_BTP},
            action=r.integers(0, 2, (B, T)).astype(np.int32),
            outcomes={'reward': x_BTP[..., 0].copy(), 'discount': np.ones((B, T), np.float32)},
            is_first=is_first_BT,
            is_last=np.zeros((B, T), bool),
            is_terminal=np.zeros((B, T), bool),
            continues_B=np.full((B,), bool(self.consecutive and self.position)),
            example_B=np.arange(B, dtype=np.int32),
        )
        self.position += 1
        return jax.tree.map(lambda x: x[self.rows], batch)

    def get_state(self):
        return {'position': self.position}

    def set_state(self, state):
        self.position = state['position']


def config(**fields):
    """A tiny experiment; fields by dotted name, `config(**{'train.steps': 3})`."""
    c = default_config()
    c.data.update(batch_size=8, segment_length=4, consecutive=True)
    c.model = {'bad': (), 'heart': {'kind': 'fake'}}
    c.train.update(steps=12, parts=('heart', 'memory', 'outcome'), ema=0.9, log_every=2, checkpoint_every=4)
    c.train.weights = {'reconstruction': 1.0, 'reward': 0.5}
    c.optimizer.learning_rate = 1e-2
    with c.unlocked():
        c.update_from_flattened_dict(fields)
    return c


def assemble(c):
    def batches(split, consecutive, process, processes):
        bad = tuple(c.model.get('bad', ())) if split == 'train' else ()
        seed = len(split)
        long = (c.data.long_length, c.data.long_every) if split == 'train' else (0, 0)
        return Batches(c.data.batch_size, c.data.segment_length, consecutive, seed, bad, process, processes, long)

    return loop.Pieces(SPEC, MODEL, init, init, losses, batches, 'made up')


if __name__ == '__main__':
    training_runs.main(config, assemble)
