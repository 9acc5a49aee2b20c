"""A memory that keeps the opening and a transition that answers with it, so that what a score must be is known."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.build import build_model, init_variables
from worldmodels.memory.base import Memory
from worldmodels.types import Latent
from worldmodels.worlds import recall

BANKS = {
    'content': {'write': 'all', 'retrieve': 'content', 'update': 'replace', 'forget': 'oldest'},
    'recency': {'write': 'every_k', 'retrieve': 'recency', 'update': 'refresh', 'forget': 'least_used', 'every': 2},
    'place': {'write': 'novelty', 'retrieve': 'place', 'update': 'none', 'forget': 'least_used'},
}
"""Policies of an episodic bank, by what it retrieves."""
SURE = 0.9  # probability that Answers gives the token it means


class Keeps(Memory):
    """Context (B, 1, 1): the symbol of the first frame, 0 before any."""

    slots, width = 1, 1

    def initial(self, batch: int):
        return jnp.zeros((batch, 2)), jnp.zeros((batch, 1, 1))

    def step(self, h, z: Latent, action_BA):
        h = jnp.where(h[:, :1] > 0, h, jnp.stack([jnp.ones(h.shape[0]), z.index_BN[:, 1].astype(jnp.float32)], 1))
        return h, h[:, None, 1:]

    def sequence(self, h, z: Latent, action_BTA, reset_BT):
        h = self.initial(reset_BT.shape[0])[0] if h is None else h

        def follow(h, tick):
            index_BN, reset_B = tick
            return self.step(jnp.where(reset_B[:, None], 0.0, h), Latent(index_BN, None), None)

        h, context_TBMD = jax.lax.scan(follow, h, (jnp.swapaxes(z.index_BN, 0, 1), reset_BT.T))
        return h, jnp.swapaxes(context_TBMD, 0, 1)


class Answers(nn.Module):
    """Whatever was asked, the next frame is the answer that the context says."""

    classes: int
    likelihood = True

    def predict(self, z, action_BA, context_BMD):
        kept_B = context_BMD[:, 0, 0] if context_BMD.shape[1] else jnp.zeros(context_BMD.shape[0])
        symbol_B = kept_B.astype(jnp.int32)
        return jnp.stack([jnp.full_like(symbol_B, recall.ANSWER), symbol_B], 1)

    def sample(self, prediction, keys_B, **dials):
        return prediction

    def log_prob(self, prediction, z):
        other = (1 - SURE) / (self.classes - 1)
        return jnp.sum(jnp.log(jnp.where(prediction == z.index_BN, SURE, other)), -1)

    def loss(self, prediction, posterior, keys_B):
        return {'transition': -self.log_prob(prediction, posterior.latent)}


def cue_model(memory: str = 'remembering:Keeps', transition: str = 'remembering:Answers', **fields):
    """A model of recall/Cue whose code of a cell is its class, and fresh variables for it."""
    spec = recall.load('Cue', 4, 4, True).spec
    config = {
        'heart': {'kind': 'palette', 'codes': recall.FIRST + recall.SYMBOLS, 'embedding': 4},
        'filter': {'reads': 'frame'},
        'transition': {'kind': transition},
        'memory': {'kind': memory, **fields},
        'outcome': {'reads': 'departure', 'units': 8},
        'context_to': ('transition', 'outcome'),
    }
    model = build_model(config, spec, 'float32')
    every = np.arange(recall.FIRST + recall.SYMBOLS, dtype=np.uint8)
    constants = model.heart.fit([{'grid': np.broadcast_to(every[:, None, None, None], (len(every), 1, 2, 1))}])
    variables = init_variables(model, 0)
    return model, {**variables, 'constants': {'heart': constants}}
