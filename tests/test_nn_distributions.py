"""Distributions against arithmetic done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels import rng
from worldmodels.nn import distributions as d


def test_symlog_and_symexp():
    x = jnp.array([-1e6, -1.0, 0.0, 1e-3, np.e - 1])
    np.testing.assert_allclose(d.symexp(d.symlog(x)), x, rtol=1e-5)
    np.testing.assert_allclose(d.symlog(x)[-1], 1.0, rtol=1e-6)
    assert float(d.symlog(x)[1]) == pytest.approx(-np.log(2))


def test_bins_are_symmetric_and_evenly_spaced_under_symlog():
    bins = d.twohot_bins(255)
    assert bins[127] == 0
    np.testing.assert_array_equal(bins, -bins[::-1])
    # 254 steps of 40 / 254 from -20 to 20
    np.testing.assert_allclose(np.diff(np.asarray(d.symlog(jnp.asarray(bins)))), 40 / 254, rtol=1e-3)
    with pytest.raises(ValueError, match='odd number of bins'):
        d.twohot_bins(254)


def test_twohot_by_hand():
    # 5 bins: -exp(20)+1, -exp(10)+1, 0, exp(10)-1, exp(20)-1. A quarter of the way from 0 to the next: 3/4 and 1/4.
    high = np.expm1(10.0)
    np.testing.assert_allclose(d.twohot(jnp.array(high / 4), 5), [0, 0, 0.75, 0.25, 0], atol=1e-6)
    np.testing.assert_allclose(d.twohot(jnp.array(0.0), 5), [0, 0, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(d.twohot(jnp.array([1e30, -1e30]), 5), [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]], atol=1e-6)


def test_twohot_loss_by_hand():
    # Weights (0, 0, 3/4, 1/4, 0) against log-softmax of (0, 0, 1, 2, 0).
    logits = jnp.array([0.0, 0.0, 1.0, 2.0, 0.0])
    total = np.log(3 + np.e + np.e**2)
    expected = 0.75 * (total - 1) + 0.25 * (total - 2)
    assert float(d.twohot_loss(logits, jnp.array(np.expm1(10.0) / 4))) == pytest.approx(expected, rel=1e-5)


def test_twohot_mean_recovers_the_value_and_is_exactly_zero_for_equal_logits():
    values = jnp.array([-123.0, -0.5, 0.0, 0.01, 1.0, 7.0])
    np.testing.assert_allclose(d.twohot_mean(jnp.log(d.twohot(values) + 1e-30)), values, rtol=1e-4, atol=1e-4)
    assert float(d.twohot_mean(jnp.zeros(255))) == 0
    assert float(d.twohot_mean(jnp.zeros(255, jnp.bfloat16))) == 0


def test_unimix_floor():
    probs = jnp.exp(d.unimix(jnp.array([100.0, 0.0, 0.0, 0.0]), 0.01))
    np.testing.assert_allclose(probs, [0.9925, 0.0025, 0.0025, 0.0025], rtol=1e-4)
    np.testing.assert_allclose(jnp.exp(d.unimix(jnp.array([0.0, np.log(3)]), 0.0)), [0.25, 0.75], rtol=1e-6)


def test_categorical_kl_by_hand():
    p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    assert float(d.categorical_kl(p, q)) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), rel=1e-5)
    assert float(d.categorical_kl(p, p)) == 0


def test_categorical_log_prob_picks_the_class():
    log_probs = jnp.log(jnp.array([[[0.1, 0.9], [0.3, 0.7]]]))
    np.testing.assert_allclose(jnp.exp(d.categorical_log_prob(log_probs, jnp.array([[1, 0]]))), [[0.9, 0.3]], rtol=1e-6)


def test_a_sample_belongs_to_its_key_and_follows_the_probabilities():
    keys_B = rng.per_example(rng.stream(0, 'test'), 0, jnp.arange(4000))
    log_probs_BNK = jnp.broadcast_to(jnp.log(jnp.array([[0.2, 0.8], [0.6, 0.4]])), (4000, 2, 2))
    index_BN = d.categorical_sample(log_probs_BNK, keys_B)
    np.testing.assert_allclose(jnp.mean(index_BN, 0), [0.8, 0.4], atol=0.04)
    np.testing.assert_array_equal(d.categorical_sample(log_probs_BNK[7:9], keys_B[7:9]), index_BN[7:9])


def test_straight_through_is_one_hot_forward_and_the_probabilities_backward():
    logits, weights = jnp.array([0.3, -0.2, 0.1]), jnp.array([1.0, 2.0, 3.0])
    one_hot = d.straight_through(jnp.array(2), jax.nn.log_softmax(logits))
    np.testing.assert_allclose(one_hot, [0, 0, 1], atol=1e-6)
    through = jax.grad(lambda x: weights @ d.straight_through(jnp.array(2), jax.nn.log_softmax(x)))(logits)
    soft = jax.grad(lambda x: weights @ jax.nn.softmax(x))(logits)
    np.testing.assert_allclose(through, soft, rtol=1e-5)


def test_bernoulli_loss_by_hand():
    # sigmoid(log 3) = 3/4
    logits = jnp.full(3, np.log(3.0))
    expected = [-np.log(0.75), -np.log(0.25), -0.5 * np.log(0.75) - 0.5 * np.log(0.25)]
    np.testing.assert_allclose(d.bernoulli_loss(logits, jnp.array([1.0, 0.0, 0.5])), expected, rtol=1e-5)
    assert np.isfinite(d.bernoulli_loss(jnp.array(-1e4), jnp.array(1.0)))


@pytest.mark.parametrize('classes', [1, 2, 7, 64, 1000])
def test_categorical_at_inverts_the_cumulative_distribution(classes):
    logits = 3 * jax.random.normal(jax.random.key(classes), (classes,))
    logits = logits.at[: classes // 3].set(-jnp.inf)
    uniform = jnp.linspace(0, 1, 4097)[:-1]
    index, log_prob = d.categorical_at(jnp.broadcast_to(logits, (4096, classes)), uniform)
    cumulative = np.cumsum(np.asarray(jax.nn.softmax(logits), np.float64))
    # Where rounding may decide, within 1e-5 of a step, either neighbour is right.
    low, high = (np.searchsorted(cumulative, np.asarray(uniform) + e, side='right') for e in (-1e-5, 1e-5))
    assert ((low <= index) & (index <= np.minimum(high, classes - 1))).all()
    np.testing.assert_allclose(log_prob, jax.nn.log_softmax(logits)[index], rtol=1e-4, atol=1e-5)
    assert np.isfinite(log_prob).all()


def test_categorical_at_never_draws_what_has_no_probability():
    """At the very ends of the unit interval too, and with a group's sum rounded either way."""
    logits = jnp.where(jnp.arange(100) % 7 == 3, jax.random.normal(jax.random.key(0), (100,)), -jnp.inf)
    uniform = jnp.array([0.0, 1e-30, 0.5, 1 - 2**-24, 1.0])
    index, _ = d.categorical_at(jnp.broadcast_to(logits, (5, 100)), uniform)
    assert (np.asarray(index) % 7 == 3).all()
    assert (int(index[0]), int(index[-1])) == (3, 94)
