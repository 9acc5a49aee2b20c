"""Outcome heads: what an untrained one expects, losses by hand, and both readouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels.outcome import Outcome
from worldmodels.types import Latent

B, N, A = 3, 4, 2
NAMES = ('reward', 'discount', 'lava')


def make(grid, **fields):
    fields = {'units': 8, 'bins': 5, 'aligned': False} | fields
    return Outcome(names=NAMES, classes=6, table=grid, grid_tokens=grid, dtype='float32', **fields)


def inputs(slots, seed=0):
    index_BN = jax.random.randint(jax.random.key(seed), (B, N), 0, 6)
    context_BMD = jax.random.normal(jax.random.key(seed + 1), (B, slots, 5))
    return Latent(index_BN, jax.nn.one_hot(index_BN, 6)), jnp.ones((B, A)), context_BMD


@pytest.mark.parametrize('grid', [False, True], ids=['groups', 'grid'])
@pytest.mark.parametrize('slots', [0, 1, N, N + 1], ids=['blind', 'one slot', 'aligned', 'and one'])
def test_heads(grid, slots):
    outcome = make(grid, aligned=slots >= N)
    args = inputs(slots)
    outputs, variables = outcome.init_with_output(jax.random.key(0), *args)
    assert {name: logits.shape for name, logits in outputs.items()} == {
        'reward': (B, 5),
        'discount': (B,),
        'lava': (B, 5),
    }
    mean = outcome.mean(outputs)
    np.testing.assert_array_equal(mean['reward'], 0)  # zero-initialised: an untrained model expects exactly nothing
    np.testing.assert_array_equal(mean['lava'], 0)
    assert ((mean['discount'] > 0) & (mean['discount'] < 1)).all()

    def discount(embedding, action, context):
        return jnp.sum(outcome.apply(variables, Latent(args[0].index_BN, embedding), action, context)['discount'])

    gradients = jax.grad(discount, (0, 1, 2))(args[0].embedding_BNE, *args[1:])
    assert all(np.any(np.asarray(g) != 0) for g in gradients[: 3 if slots else 2])


def test_a_grid_readout_knows_where_things_are():
    """Mean and maximum over tokens alone could not tell two tokens' places exchanged."""
    outcome = make(True)
    z, action, context = inputs(0)
    outputs, variables = outcome.init_with_output(jax.random.key(0), z, action, context)
    exchanged = Latent(z.index_BN[:, ::-1], z.embedding_BNE[:, ::-1])
    assert np.abs(outcome.apply(variables, exchanged, action, context)['discount'] - outputs['discount']).max() > 0


def test_losses_by_hand():
    outcome = make(False)
    # bins -exp(20)+1, -exp(10)+1, 0, exp(10)-1, exp(20)-1
    logits = jnp.broadcast_to(jnp.array([0.0, 0.0, np.log(2.0), 0.0, 0.0]), (B, 5))
    outputs = {'reward': logits, 'discount': jnp.full(B, np.log(3.0)), 'lava': logits}
    targets = {
        'reward': jnp.array([0.0, np.expm1(10.0) / 2, -np.expm1(20.0)]),
        'discount': jnp.array([1.0, 0.0, 1.0]),
        'lava': jnp.zeros(B),
    }
    losses = outcome.losses(outputs, targets)
    zero, other = -np.log(2 / 6), -np.log(1 / 6)
    np.testing.assert_allclose(losses['reward'], [zero, (zero + other) / 2, other], rtol=1e-5)
    np.testing.assert_allclose(losses['lava'], zero, rtol=1e-5)
    np.testing.assert_allclose(losses['discount'], -np.log([0.75, 0.25, 0.75]), rtol=1e-5)


def test_means_by_hand():
    high = np.expm1(10.0)
    outputs = {
        'reward': jnp.log(jnp.array([[1e-30, 1e-30, 0.5, 0.5, 1e-30], [1e-30, 0.25, 0.5, 0.25, 1e-30]])),
        'discount': jnp.log(jnp.array([3.0, 1.0])),
        'lava': jnp.zeros((2, 5)),
    }
    mean = make(False).mean(outputs)
    np.testing.assert_allclose(mean['reward'], [high / 2, 0], rtol=1e-5)
    np.testing.assert_allclose(mean['discount'], [0.75, 0.5], rtol=1e-6)
