"""The block GRU: two forms, one meaning, with resets anywhere; and no memory at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels.memory import KINDS
from worldmodels.memory.recurrent import Recurrent
from worldmodels.types import Latent

B, T, N, E, A = 4, 7, 3, 5, 2


@pytest.fixture(scope='module')
def setting():
    memory = Recurrent(dtype='float32', deter=16, hidden=8, blocks=4)
    keys = jax.random.split(jax.random.key(0), 4)
    z = Latent(None, jax.random.normal(keys[0], (B, T, N, E)))
    action_BTA = 3 * jax.random.normal(keys[1], (B, T, A))
    h = jax.random.normal(keys[2], (B, 16))
    variables = jax.jit(lambda *args: memory.init(keys[3], *args, method='step'))(h, at(z, 0), action_BTA[:, 0])
    return memory, variables, h, z, action_BTA


def at(z, t):
    return Latent(None, z.embedding_BNE[:, t])


# Rows: none; at the start; at the end; twice in a row.
RESET_BT = np.zeros((B, T), bool)
RESET_BT[1, 0] = RESET_BT[2, -1] = RESET_BT[3, 3] = RESET_BT[3, 4] = True


def scan_of_steps(memory, variables, h, z, action_BTA, reset_BT):
    contexts = []
    for t in range(T):
        h = memory.apply(variables, h, reset_BT[:, t], method='reset')
        h, context = memory.apply(variables, h, at(z, t), action_BTA[:, t], method='step')
        contexts.append(context)
    return h, jnp.stack(contexts, 1)


def sequence(memory, variables, *args):
    return jax.jit(lambda *a: memory.apply(variables, *a, method='sequence'))(*args)


def test_scan_of_step_is_sequence(setting):
    memory, variables, h, z, action = setting
    h_step, stepped = scan_of_steps(memory, variables, h, z, action, RESET_BT)
    h_sequence, context = sequence(memory, variables, h, z, action, RESET_BT)
    assert context.shape == (B, T, 1, 16) == (B, T, memory.slots, memory.width)
    np.testing.assert_allclose(context, stepped, atol=1e-5)
    np.testing.assert_allclose(h_sequence, h_step, atol=1e-5)


def test_initial_is_what_a_reset_restores(setting):
    memory, variables, h, z, action = setting
    first = np.zeros((B, T), bool)
    first[:, 0] = True
    fresh = sequence(memory, variables, None, z, action, np.zeros((B, T), bool))
    again = sequence(memory, variables, h, z, action, first)
    np.testing.assert_array_equal(fresh[1], again[1])


def test_a_poisoned_past_changes_nothing_after_a_reset(setting):
    memory, variables, h, z, action = setting
    reset_BT = np.zeros((B, T), bool)
    reset_BT[:, 3] = True
    clean_h, clean = sequence(memory, variables, h, z, action, reset_BT)
    dirty_z = Latent(None, z.embedding_BNE.at[:, :3].set(np.nan))
    dirty_h, dirty = sequence(memory, variables, h * np.nan, dirty_z, action.at[:, :3].set(np.nan), reset_BT)
    assert np.isnan(dirty[:, :3]).all()
    np.testing.assert_array_equal(dirty[:, 3:], clean[:, 3:])
    np.testing.assert_array_equal(dirty_h, clean_h)
    assert not np.isnan(memory.apply(variables, h * np.nan, np.ones(B, bool), method='reset')).any()


def test_the_future_changes_nothing_before_it(setting):
    memory, variables, h, z, action = setting
    _, before = sequence(memory, variables, h, z, action, RESET_BT)
    other_z = Latent(None, z.embedding_BNE.at[:, 4:].set(7.0))
    reset_BT = RESET_BT.copy()
    reset_BT[:, 4:] = ~reset_BT[:, 4:]
    _, after = sequence(memory, variables, h, other_z, action.at[:, 4:].set(-7.0), reset_BT)
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert np.any(np.asarray(after[:, 4:] != before[:, 4:]))


def test_history_z_and_action_all_reach_the_context(setting):
    memory, variables, h, z, action = setting

    def last(h, embedding, action):
        return jnp.sum(memory.apply(variables, h, Latent(None, embedding), action, RESET_BT, method='sequence')[0])

    gradients = jax.jit(jax.grad(last, (0, 1, 2)))(h, z.embedding_BNE, action)
    for gradient in gradients:
        assert np.abs(gradient[0]).reshape(gradient[0].shape[0], -1).max() > 0
    np.testing.assert_array_equal(gradients[0][1:], 0)  # rows that reset do not remember what was before


def test_large_actions_are_clipped_to_their_sign(setting):
    memory, variables, h, z, action = setting
    small = jnp.where(jnp.abs(action) > 1, jnp.sign(action), action)
    outs = [memory.apply(variables, h, at(z, 0), a[:, 0], method='step')[0] for a in (action, small)]
    np.testing.assert_allclose(outs[0], outs[1], atol=1e-6)


def test_update_gate_by_hand():
    """All weights zero: the candidate is 0 and the update sigmoid(-1), so h keeps 1 - sigmoid(-1) of itself."""
    memory = Recurrent(dtype='float32', deter=8, hidden=4, blocks=2)
    h, z, action = jnp.arange(8.0)[None], Latent(None, jnp.ones((1, N, E))), jnp.ones((1, A))
    variables = jax.tree.map(jnp.zeros_like, memory.init(jax.random.key(0), h, z, action, method='step'))
    after, _ = memory.apply(variables, h, z, action, method='step')
    np.testing.assert_allclose(after, h * (1 - 1 / (1 + np.exp(1))), rtol=1e-5)


def test_bytes_and_refusals():
    assert Recurrent(dtype='float32', deter=16, hidden=8, blocks=4).nbytes(3) == 3 * 16 * 4
    assert Recurrent(dtype='bfloat16', deter=16, hidden=8, blocks=4).nbytes() == 16 * 2
    with pytest.raises(ValueError, match='take a multiple of 3'):
        Recurrent(dtype='float32', deter=16, hidden=8, blocks=3)


def test_none_remembers_nothing():
    memory = KINDS['none']()
    h, context = memory.initial(B)
    assert jax.tree.leaves(h) == []
    assert context.shape == (B, memory.slots, memory.width) == (B, 0, 1)
    z = Latent(None, jnp.ones((B, T, N, E)))
    _, contexts = memory.sequence(None, z, jnp.ones((B, T, A)), RESET_BT)
    assert contexts.shape == (B, T, 0, 1)
    assert memory.nbytes(B) == 0
