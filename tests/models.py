"""Tiny models of every kind and random experience for them, shared by tests."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.build import build_model
from worldmodels.nn import initializers
from worldmodels.types import ActionSpace, Modality, Spec, Ticks

SPEC = Spec((('image', Modality('image', (16, 16, 3))),), ActionSpace('discrete', 5))

HEARTS = {
    'tokens': {'levels': (3, 3), 'width': 16, 'heads': 2, 'hidden': 16, 'encoder_depth': 1, 'decoder_depth': 1},
    'palette': {'codes': 9, 'embedding': 6},
    'continuous': {
        'latents': 3,
        'size': 4,
        'width': 16,
        'heads': 2,
        'hidden': 16,
        'encoder_depth': 1,
        'decoder_depth': 1,
    },
    'categorical': {'stoch': 4, 'classes': 3, 'depth': 2, 'units': 8, 'layers': 1},
}
TRANSITIONS = {
    'categorical': {'hidden': 16, 'layers': 1},
    'masked': {'width': 16, 'depth': 1, 'heads': 2, 'hidden': 16, 'steps': 2},
    'autoregressive': {'width': 16, 'depth': 1, 'heads': 2, 'hidden': 16},
    'flow': {'width': 16, 'depth': 1, 'heads': 2, 'hidden': 16, 'steps': 2},
}
MEMORIES = {
    'none': {},
    'compressive': {'length': 3, 'rate': 2, 'levels': 2, 'width': 16, 'depth': 1, 'heads': 2, 'hidden': 16},
    'masked': {'slots': 3, 'width': 16, 'heads': 2, 'hidden': 16},
    'recurrent': {'deter': 16, 'hidden': 8},
    'retrieval': {'capacity': 4, 'entry': 6, 'keys': 8, 'slots': 2, 'width': 16, 'embedding': 4},
    'state_space': {'width': 16, 'depth': 1, 'heads': 2, 'hidden': 16, 'embedding': 4, 'slots': 2},
    'window': {'length': 3, 'width': 16, 'depth': 1, 'heads': 2, 'hidden': 16},
    'stack': {
        'width': 16,
        'parts': {
            'near': {'kind': 'window', 'length': 2, 'width': 16, 'depth': 1, 'heads': 2, 'hidden': 16},
            'far': {'kind': 'recurrent', 'deter': 16, 'hidden': 8},
        },
    },
}
READS = ('frame', 'memory', 'prediction')
OUTCOME_READS = ('departure', 'arrival')
READERS = ('transition', 'outcome', 'decoder')
CONTEXTS = tuple(c for n in range(4) for c in itertools.combinations(READERS, n))

AXES = (HEARTS, TRANSITIONS, MEMORIES, READS, CONTEXTS, OUTCOME_READS)


def config(heart, transition, memory, reads, context_to, outcome_reads) -> dict:
    return {
        'heart': {'kind': heart, **HEARTS[heart]},
        'filter': {'reads': reads, **({'hidden': 8} if heart == 'categorical' else {})},
        'transition': {'kind': transition, **TRANSITIONS[transition]},
        'memory': {'kind': memory, **MEMORIES[memory]},
        'outcome': {'reads': outcome_reads, 'units': 8},
        'context_to': context_to,
    }


def model(*choice, spec: Spec = SPEC, dtype: str = 'float32'):
    return build_model(config(*choice), spec, dtype)


def refusal(heart, transition, memory, reads, context_to, outcome_reads) -> str | None:
    """What the refusal of a combination must say, None where it makes sense. Written from the contract, not the code."""
    if heart == 'continuous' and transition != 'flow':
        return 'draws classes, and heart .continuous. has latents of numbers'
    if heart != 'continuous' and transition == 'flow':
        return 'draws numbers, and heart .{} has [0-9]+ classes'.replace('{}', heart + '.')
    if heart != 'categorical' and reads != 'frame':
        return 'is a tokenizer: the frame alone decides'
    if heart != 'categorical' and 'decoder' in context_to:
        return 'its decoder reads the frame'
    if reads == 'frame' and not context_to and memory != 'none':
        return 'leaves nothing to train the memory'
    return None


@functools.cache
def experience(batch: int, length: int, seed: int = 0, spec: Spec = SPEC, firsts: tuple = ()) -> Ticks:
    """Random ticks; `firsts` are (row, tick) of openings."""
    keys = jax.random.split(jax.random.key(seed), 5)
    is_first = jnp.zeros((batch, length), bool)
    for row, tick in firsts:
        is_first = is_first.at[row, tick].set(True)
    observation = {}
    for name, m in spec.observation:
        shape = (batch, length, *m.shape)
        if m.kind == 'image':
            observation[name] = jax.random.randint(keys[0], shape, 0, 256).astype(jnp.uint8)
        elif m.kind == 'grid':
            tops = jnp.asarray(m.classes)
            observation[name] = (jax.random.uniform(keys[0], shape) * tops).astype(jnp.uint8)
        else:
            observation[name] = jax.random.normal(keys[0], shape)
    if spec.action.kind == 'discrete':
        action = jax.random.randint(keys[1], (batch, length), 0, spec.action.size)
        action = jnp.where(is_first, -1, action)
    else:
        action = jax.random.normal(keys[1], (batch, length, spec.action.size))
        action = jnp.where(is_first[..., None], 0.0, action)
    terminal = jax.random.bernoulli(keys[2], 0.1, (batch, length)) & ~is_first
    outcomes = {k: jax.random.normal(keys[3], (batch, length)) for k in spec.outcomes}
    outcomes['discount'] = 1.0 - terminal.astype(jnp.float32)
    return Ticks(observation, action, outcomes, is_first, terminal, terminal, jnp.zeros(batch, bool), jnp.arange(batch))


def fitted(m, variables, ticks):
    """Variables in which what a heart fits to frames is fitted to these."""
    if not hasattr(m.heart, 'fit'):
        return variables
    frames = {k: np.asarray(x).reshape(-1, *x.shape[2:]) for k, x in ticks.observation.items()}
    return {**variables, 'constants': {**variables['constants'], 'heart': m.heart.fit([frames])}}


def shaken(memory, z, action_BTA):
    """Variables of a memory, none of them as it begins: noise is added to all."""
    first = jax.tree.map(lambda x: x[:, 0], (z, action_BTA))
    begin = lambda m, z, a: m.step(m.initial(a.shape[0])[0], z, a)
    return noisy(initializers.draw(lambda key: memory.init(key, *first, method=begin), 1, jax.random.key(1)))


def noisy(variables):
    """Noise is added to all: what begins as zero would hide a mistake."""
    leaves, tree = jax.tree.flatten(variables)
    return tree.unflatten([x + 0.3 * jax.random.normal(jax.random.key(i), x.shape) for i, x in enumerate(leaves)])
