"""The state-space memory: both rules by hand, chunks and carried states, a thousand ticks, and what a reset hides."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import SPEC, config

from worldmodels.build import build_model
from worldmodels.memory.state_space import RULES, StateSpace
from worldmodels.nn import recurrence
from worldmodels.types import Latent

B, T, N, E, A = 4, 70, 3, 5, 2  # two chunks of the delta rule and a part of a third
SMALL = {'width': 16, 'depth': 2, 'heads': 2, 'hidden': 16, 'embedding': 4, 'slots': 2}
# Rows: none; at the start and on a chunk's edge; at the end; twice in a row.
RESET_BT = np.zeros((B, T), bool)
RESET_BT[1, 0] = RESET_BT[1, recurrence.CHUNK] = RESET_BT[2, -1] = RESET_BT[3, 3] = RESET_BT[3, 4] = True


def make(rule, **fields):
    return StateSpace(classes=5, table=False, dtype='float32', rule=rule, **{**SMALL, **fields})


@functools.cache
def setting(rule):
    memory = make(rule)
    keys = jax.random.split(jax.random.key(0), 4)
    z = Latent(None, jax.random.normal(keys[0], (B, T, N, E)))
    action = jax.random.normal(keys[1], (B, T, A))
    h = jax.tree.map(lambda x: jax.random.normal(keys[2], x.shape), memory.initial(B)[0])
    begin = lambda z, a: memory.init(keys[3], h, z, a, method='step')
    variables = jax.jit(begin)(at(z, 0), action[:, 0])
    sequence = jax.jit(lambda h, z, a, r: memory.apply(variables, h, z, a, r, method='sequence'))

    @jax.jit
    def steps(h, z, action, reset):
        def follow(h, tick):
            embedding, action, reset = tick
            h = memory.apply(variables, h, reset, method='reset')
            return memory.apply(variables, h, Latent(None, embedding), action, method='step')

        ticks = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (z.embedding_BNE, action, reset))
        h, context = jax.lax.scan(follow, h, ticks)
        return h, jnp.swapaxes(context, 0, 1)

    return memory, sequence, steps, h, z, action


def at(z, t):
    return Latent(None, z.embedding_BNE[:, t])


@pytest.mark.parametrize('rule', RULES)
def test_scan_of_step_is_sequence(rule):
    memory, sequence, steps, h, z, action = setting(rule)
    h_step, stepped = steps(h, z, action, RESET_BT)
    h_sequence, context = sequence(h, z, action, RESET_BT)
    assert context.shape == (B, T, 2, 16) == (B, T, memory.slots, memory.width)
    np.testing.assert_allclose(context, stepped, atol=1e-5)
    for a, b in zip(h_sequence, h_step):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('rule', RULES)
def test_a_poisoned_past_changes_nothing_after_a_reset_and_stays_poisoned_without(rule):
    _, sequence, _, h, z, action = setting(rule)
    reset_BT = np.zeros((B, T), bool)
    reset_BT[:, 40] = True
    clean_h, clean = sequence(h, z, action, reset_BT)
    dirty_z, dirty_action = Latent(None, z.embedding_BNE.at[:, 5:40].set(np.nan)), action.at[:, 5:40].set(np.nan)
    dirty_h, dirty = sequence(h, dirty_z, dirty_action, reset_BT)
    assert np.isnan(dirty[:, 5:40]).all()
    np.testing.assert_array_equal(dirty[:, :5], clean[:, :5])
    np.testing.assert_array_equal(dirty[:, 40:], clean[:, 40:])
    jax.tree.map(np.testing.assert_array_equal, dirty_h, clean_h)
    lost = jax.tree.map(lambda x: x * np.nan, h)
    _, carried = sequence(lost, z, action, reset_BT)
    assert np.isnan(carried[:, :40]).all()
    np.testing.assert_array_equal(carried[:, 40:], clean[:, 40:])
    spoiled_h, spoiled = sequence(h, Latent(None, z.embedding_BNE.at[:, 5].set(np.nan)), action, RESET_BT & False)
    assert np.isnan(spoiled[:, 5:]).all()
    assert all(np.isnan(x).any() for x in spoiled_h)


@pytest.mark.parametrize('rule', RULES)
def test_the_future_changes_nothing_before_it(rule):
    _, sequence, _, h, z, action = setting(rule)
    _, before = sequence(h, z, action, RESET_BT)
    reset_BT = RESET_BT.copy()
    reset_BT[:, 45:] = ~reset_BT[:, 45:]
    _, after = sequence(h, Latent(None, z.embedding_BNE.at[:, 45:].set(7.0)), action.at[:, 45:].set(-7.0), reset_BT)
    np.testing.assert_array_equal(after[:, :45], before[:, :45])
    assert np.any(np.asarray(after[:, 45:] != before[:, 45:]))


@pytest.mark.parametrize('rule', RULES)
def test_a_row_of_a_batch_is_that_row_alone(rule):
    _, sequence, _, h, z, action = setting(rule)
    _, whole = sequence(h, z, action, RESET_BT)
    row = lambda tree: jax.tree.map(lambda x: jnp.repeat(x[3:], B, 0), tree)
    _, alone = sequence(row(h), row(z), row(action), row(RESET_BT))
    np.testing.assert_allclose(alone[0], whole[3], atol=1e-6)


def test_diagonal_by_hand():
    h = jax.jit(recurrence.diagonal)(
        jnp.array([[8.0]]),
        jnp.log(jnp.array([[[0.5], [0.5], [0.25]]])),
        jnp.array([[[1.0], [2.0], [3.0]]]),
        jnp.array([[False, True, False]]),
    )
    np.testing.assert_allclose(h[0, :, 0], [0.5 * 8 + 1, 2, 0.25 * 2 + 3])


def recall(keys, values, beta):
    """What the delta rule without decay leaves after writing (T, C) keys and values: (S, what each tick's key recalls)."""
    T, C = keys.shape
    inputs = (keys, keys, values, jnp.asarray(beta), jnp.zeros(T))
    state = jnp.zeros((1, 1, C, C))
    state, y = jax.jit(recurrence.delta)(state, *(x[None, None] for x in inputs), jnp.zeros((1, T), bool))
    return state[0, 0], y[0, 0]


def keys_and_values(pairs, dim, seed=0):
    k = jnp.linalg.qr(jax.random.normal(jax.random.key(seed), (dim, dim)))[0][:pairs]
    return k, jax.random.normal(jax.random.key(seed + 1), (pairs, dim))


def test_the_delta_rule_replaces_what_stood_under_a_key_and_leaves_the_rest():
    """By hand: v0 under k0, v1 under k1, then v2 under k0; asking for k0 gives v2, for k1 still v1."""
    k, v = keys_and_values(2, 4)
    v2 = jnp.ones(4)
    keys, values = jnp.stack([k[0], k[1], k[0], k[1]]), jnp.stack([v[0], v[1], v2, v[1]])
    state, y = recall(keys, values, [1.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(y, jnp.stack([v[0], v[1], v2, v[1]]), atol=1e-6)
    np.testing.assert_allclose(k[0] @ state, v2, atol=1e-6)


@pytest.mark.parametrize('size', [1, 2, 5, 32])
def test_a_triangular_system_is_inverted(size):
    random = np.tril(np.random.default_rng(size).normal(size=(3, size, size)), -1)
    same_key = np.tril(np.ones((1, size, size)), -1)  # powers of it grow as binomials do
    lower = np.concatenate([random, same_key]).astype(np.float32)
    expected = np.linalg.inv(np.eye(size) + lower.astype(np.float64))
    found = np.asarray(recurrence.unit_lower_inverse(jnp.asarray(lower)))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(found, np.tril(found))


def test_the_delta_rule_calls_no_solver():
    """With the backend's, steps of training came to a standstill on CPU."""
    x, one = jnp.ones((2, 2, 40, 4)), jnp.ones((2, 2, 40))
    loss = lambda x: jnp.sum(recurrence.delta(jnp.zeros((2, 2, 4, 4)), x, x, x, one, -one, jnp.zeros((2, 40), bool))[1])
    assert 'custom_call' not in jax.jit(jax.grad(loss)).lower(x).as_text()


def test_the_delta_rule_recalls_sharply_after_a_thousand_ticks_of_writing():
    """Eight pairs, then 1,024 writes under eight other keys, decay 1: the first pairs are all still there."""
    k, v = keys_and_values(16, 16)
    noise = jax.random.normal(jax.random.key(9), (1024, 16))
    write_k = jnp.concatenate([k[:8], k[8 + jnp.arange(1024) % 8]])
    write_v = jnp.concatenate([v[:8], noise])
    state, _ = recall(write_k, write_v, jnp.ones(1032))
    np.testing.assert_allclose(k[:8] @ state, v[:8], atol=1e-4)
    np.testing.assert_allclose(k[8:] @ state, noise[-8:], atol=1e-4)


@pytest.mark.parametrize('rule', RULES)
def test_a_thousand_ticks_change_no_shape_and_something_of_the_first_is_left(rule):
    memory, sequence, _, _, _, _ = setting(rule)
    keys = jax.random.split(jax.random.key(3), 3)
    z = Latent(None, jax.random.normal(keys[0], (1, 1024, N, E)))
    action = jax.random.normal(keys[1], (1, 1024, A))
    h0 = memory.initial(1)[0]
    none = jnp.zeros((1, 1024), bool)
    h, context = sequence(h0, z, action, none)
    _, other = sequence(h0, Latent(None, z.embedding_BNE.at[:, 0].multiply(-1)), action, none)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), h) == jax.tree.map(lambda x: (x.shape, x.dtype), h0)
    assert np.abs(context).max() < 100
    assert np.abs(context[:, -1] - other[:, -1]).max() > 1e-4


def test_bytes_and_refusals():
    assert make('diagonal').nbytes(3) == 3 * 2 * 32 * 4
    assert make('delta').nbytes() == 2 * 2 * 8 * 16 * 4
    chosen = config('palette', 'masked', 'state_space', 'frame', ('transition',), 'departure')
    chosen['memory'] = {'kind': 'state_space', 'rule': 'delt'}
    with pytest.raises(ValueError, match=r"model\.memory\.rule is 'delt'; did you mean 'delta'"):
        build_model(chosen, SPEC, 'float32')
