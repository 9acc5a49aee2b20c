"""The categorical transition: its losses by hand, where gradients go, and token grids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels import rng
from worldmodels.filter import Posterior
from worldmodels.transition import KINDS
from worldmodels.types import Latent, Layout

B, A = 3, 2
KEYS_B = rng.per_example(rng.stream(0, 'test'), 0, jnp.arange(B))


def make(layout, **fields):
    fields = {'hidden': 8, 'unimix': 0.0, 'free_nats': 0.0, 'aligned': False} | fields
    grid = bool(layout.grids)
    return KINDS['categorical'](classes=2, layout=layout, table=grid, grid_tokens=grid, dtype='float32', **fields)


def latent(N, seed=0):
    index_BN = jax.random.randint(jax.random.key(seed), (B, N), 0, 2)
    return Latent(index_BN, jax.nn.one_hot(index_BN, 2))


def predicted(transition, N, context_BMD, action=0.5):
    def everything(m, z, action_BA, context_BMD):
        prediction = m.predict(z, action_BA, context_BMD)
        return prediction, m.log_probs(prediction)

    args = latent(N), jnp.full((B, A), action), context_BMD
    variables = transition.init(jax.random.key(0), *args, method=everything)
    return variables, transition.apply(variables, *args, method='predict')


def uniform(transition, variables):
    """The same transition with a head that says 'even odds' whatever it is asked."""
    return {'params': variables['params'] | {'head': jax.tree.map(jnp.zeros_like, variables['params']['head'])}}


def test_balanced_kl_by_hand():
    transition = make(Layout(loose=2))
    variables, prediction = predicted(transition, 2, jnp.zeros((B, 1, 4)))
    posterior = Posterior(latent(2), jnp.broadcast_to(jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]])), (B, 2, 2)))
    losses = transition.apply(uniform(transition, variables), prediction, posterior, KEYS_B, method='loss')
    kl = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)  # the second group is the prior itself: 0
    assert losses.keys() == {'dynamics', 'representation'}
    np.testing.assert_allclose(losses['dynamics'], kl, rtol=1e-5)
    np.testing.assert_allclose(losses['representation'], kl, rtol=1e-5)


def test_unimix_is_in_the_prior():
    transition = make(Layout(loose=1), unimix=0.1)
    variables, prediction = predicted(transition, 1, jnp.zeros((B, 1, 4)))
    certain = uniform(transition, variables)
    certain['params']['head']['bias'] = jnp.array([100.0, 0.0])
    log_probs = transition.apply(certain, prediction, method='log_probs')
    np.testing.assert_allclose(jnp.exp(log_probs[:, 0]), [[0.95, 0.05]] * B, rtol=1e-5)


def test_free_nats_are_not_pushed_further():
    transition = make(Layout(loose=2), free_nats=1.0)
    variables, prediction = predicted(transition, 2, jnp.zeros((B, 1, 4)))
    variables = uniform(transition, variables)

    def term(logits):
        posterior = Posterior(latent(2), jax.nn.log_softmax(logits))
        losses = transition.apply(variables, prediction, posterior, KEYS_B, method='loss')
        return jnp.sum(losses['representation']), losses

    # KL to the even prior is near 0 and near 2 log 2 = 1.39 nats: below one nat, and above
    for logits, below in ((jnp.array([0.1, 0.0]), True), (jnp.array([20.0, 0.0]), False)):
        (_, losses), gradient = jax.value_and_grad(term, has_aux=True)(jnp.broadcast_to(logits, (B, 2, 2)))
        np.testing.assert_allclose(losses['dynamics'], 1.0 if below else 2 * np.log(2), rtol=1e-4)
        assert bool(jnp.all(gradient == 0)) == below


def test_each_half_of_the_kl_trains_its_own_side():
    transition = make(Layout(loose=2))
    variables, prediction = predicted(transition, 2, jnp.zeros((B, 1, 4)))

    def term(name, prediction, logits):
        posterior = Posterior(latent(2), jax.nn.log_softmax(logits))
        return jnp.sum(transition.apply(variables, prediction, posterior, KEYS_B, method='loss')[name])

    logits = jax.random.normal(jax.random.key(2), (B, 2, 2))
    for name, prior_moves in (('dynamics', True), ('representation', False)):
        prior, posterior = jax.grad(lambda p, q, n=name: term(n, p, q), (0, 1))(prediction, logits)
        assert bool(jnp.any(prior != 0)) == prior_moves
        assert bool(jnp.any(posterior != 0)) != prior_moves


def test_tokens_cost_their_negative_log_probability():
    transition = make(Layout(((2, 2),)))
    variables, prediction = predicted(transition, 4, jnp.zeros((B, 0, 1)))
    losses = transition.apply(
        uniform(transition, variables), prediction, Posterior(latent(4), None), KEYS_B, method='loss'
    )
    assert losses.keys() == {'transition'}
    np.testing.assert_allclose(losses['transition'], np.log(2), rtol=1e-6)
    log_prob = transition.apply(uniform(transition, variables), prediction, latent(4), method='log_prob')
    np.testing.assert_allclose(log_prob, -4 * np.log(2), rtol=1e-6)


@pytest.mark.parametrize('layout', [Layout(loose=4), Layout(((2, 2),))], ids=['groups', 'grid'])
@pytest.mark.parametrize('slots', [0, 1, 4, 5], ids=['blind', 'one slot', 'aligned', 'and one'])
def test_every_kind_of_context(layout, slots):
    transition = make(layout, aligned=slots >= 4)
    context_BMD = jax.random.normal(jax.random.key(3), (B, slots, 6))
    variables, prediction = predicted(transition, 4, context_BMD)
    index_BN = transition.apply(variables, prediction, KEYS_B, method='sample')
    assert index_BN.shape == (B, 4)
    assert index_BN.dtype == jnp.int32
    most_likely = transition.apply(variables, prediction, KEYS_B, temperature=0.0, method='sample')
    log_probs = transition.apply(variables, prediction, method='log_probs')
    np.testing.assert_array_equal(most_likely, jnp.argmax(log_probs, -1))
    z, action_BA = latent(4), jnp.full((B, A), 0.5)
    changed = [(latent(4, 1), action_BA, context_BMD), (z, action_BA + 1, context_BMD), (z, action_BA, context_BMD + 1)]
    for args in changed[: 3 if slots else 2]:
        assert np.abs(transition.apply(variables, *args, method='predict') - prediction).max() > 0


def test_a_token_of_a_grid_sees_its_neighbours():
    transition = make(Layout(((2, 2),)))
    variables, prediction = predicted(transition, 4, jnp.zeros((B, 0, 1)))
    z = latent(4)
    index_BN = z.index_BN.at[:, 3].set(1 - z.index_BN[:, 3])
    other = transition.apply(
        variables,
        Latent(index_BN, jax.nn.one_hot(index_BN, 2)),
        jnp.full((B, A), 0.5),
        jnp.zeros((B, 0, 1)),
        method='predict',
    )
    assert np.abs(other[:, 0] - prediction[:, 0]).max() > 0


def test_sampling_follows_the_probabilities_and_its_keys():
    transition = make(Layout(loose=1))
    variables, prediction = predicted(transition, 1, jnp.zeros((B, 1, 4)))
    odds = uniform(transition, variables)
    odds['params']['head']['bias'] = jnp.log(jnp.array([0.2, 0.8]))
    keys = rng.per_example(rng.stream(1, 'test'), 0, jnp.arange(3000))
    many = jnp.repeat(prediction[:1], 3000, 0)
    draws = transition.apply(odds, many, keys, method='sample')
    assert abs(float(jnp.mean(draws)) - 0.8) < 0.03
    # temperature 1/2 squares the odds: 16 to 1
    sharp = transition.apply(odds, many, keys, temperature=0.5, method='sample')
    assert abs(float(jnp.mean(sharp)) - 16 / 17) < 0.02
