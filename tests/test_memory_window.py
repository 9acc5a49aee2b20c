"""The window memory: the ring is the whole history, at any length; ages are relative; nothing older is seen."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import shaken

from worldmodels.memory.window import Window
from worldmodels.types import Latent, Layout

B, W, DEPTH = 2, 3, 2
LAYOUT = Layout(((2, 2),))


def experience(length, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    index = jax.random.randint(keys[0], (B, length, 4), 0, 5)
    z = Latent(index, jax.random.normal(keys[1], (B, length, 4, 3)))
    return z, jax.random.normal(keys[2], (B, length, 2))


@pytest.fixture(scope='module')
def setting():
    memory = Window(5, LAYOUT, True, 'float32', length=W, width=16, depth=DEPTH, heads=2, hidden=16, neighbours=True)
    z, action = experience(1)
    variables = shaken(memory, z, action)  # a bias that starts at zero would hide a wrong age
    sequence = jax.jit(lambda h, z, a, r: memory.apply(variables, h, z, a, r, method='sequence'))
    step = jax.jit(lambda h, z, a: memory.apply(variables, h, z, a, method='step'))
    empty = memory.apply(variables, B, method='initial')[0]
    return memory, sequence, step, empty


def test_the_ring_is_the_whole_history_at_any_length(setting):
    _, sequence, step, h = setting
    z, action = experience(11)
    _, whole = sequence(None, z, action, jnp.zeros((B, 11), bool))
    for t in range(11):
        h, context = step(h, jax.tree.map(lambda x, t=t: x[:, t], z), action[:, t])
        np.testing.assert_allclose(context, whole[:, t], atol=2e-5)
    assert h.length_B.tolist() == [W, W]
    assert h.cursor_B.tolist() == [11 % W] * 2


@pytest.mark.parametrize('cut', [1, 2, 5])
def test_segments_in_turn_are_one_sequence(setting, cut):
    _, sequence, _, _ = setting
    z, action = experience(8)
    reset = jnp.zeros((B, 8), bool).at[1, 6].set(True)
    _, whole = sequence(None, z, action, reset)
    head, tail = (jax.tree.map(lambda x, s=s: x[:, s], (z, action, reset)) for s in (slice(0, cut), slice(cut, 8)))
    h, first = sequence(None, *head)
    _, second = sequence(h, *tail)
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, atol=2e-5)


def test_layers_together_reach_as_far_as_they_say(setting):
    _, sequence, _, _ = setting
    z, action = experience(9)
    reach = DEPTH * (W - 1)
    other = z.replace(embedding_BNE=z.embedding_BNE.at[:, 0].add(1.0))
    none = jnp.zeros((B, 9), bool)
    a, b = sequence(None, z, action, none)[1], sequence(None, other, action, none)[1]
    differs = [bool((a[:, t] != b[:, t]).any()) for t in range(9)]
    assert differs == [True] * (reach + 1) + [False] * (8 - reach)


def test_a_reset_hides_even_nan(setting):
    memory, sequence, step, empty = setting
    z, action = experience(W + 1)
    h, _ = sequence(None, *jax.tree.map(lambda x: x[:, :W], (z, action)), jnp.zeros((B, W), bool))
    h = h.replace(
        keys=jax.tree.map(lambda x: x * jnp.nan, h.keys), values=jax.tree.map(lambda x: x * jnp.nan, h.values)
    )
    last = jax.tree.map(lambda x: x[:, W], (z, action))
    _, after = step(memory.reset(h, jnp.ones(B, bool)), *last)
    _, fresh = step(empty, *last)
    chex.assert_trees_all_equal(after, fresh)
    _, spoiled = step(h, *last)
    assert np.isnan(spoiled).all()


def test_the_ring_never_grows(setting):
    memory, _, step, h = setting
    z, action = experience(1)
    once = step(h, *jax.tree.map(lambda x: x[:, 0], (z, action)))
    chex.assert_trees_all_equal_shapes_and_dtypes(once[0], h)
    assert memory.slots == LAYOUT.tokens
