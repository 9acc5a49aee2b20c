"""Corruption: how much, of what, keyed by example and tick, and what it never touches."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import experience, model

from worldmodels import rng, rollout
from worldmodels.build import init_variables
from worldmodels.heart.corruption import corrupt
from worldmodels.training.config import default_config, fingerprint, step_config, validate
from worldmodels.training.losses import losses
from worldmodels.types import Latent

B, T, N, K, E = 8, 250, 4, 5, 3
KEYS_BT = rng.per_tick(jax.random.split(jax.random.key(0), B), T)


def codes(index):
    return Latent(index, jax.nn.one_hot(index, K))


def test_of_tokens_a_share_is_replaced_that_is_anew_at_every_tick():
    z = codes(jnp.full((B, T, N), 2))
    after = jax.jit(lambda keys: corrupt(z, 0.8, keys, K, codes))(KEYS_BT)
    np.testing.assert_array_equal(after.embedding_BNE, jax.nn.one_hot(after.index_BN, K))
    changed_BTN = np.asarray(after.index_BN) != 2
    # Half of 0.8 on average, of which a fifth are drawn as they were.
    np.testing.assert_allclose(changed_BTN.mean(), 0.4 * (1 - 1 / K), atol=0.03)
    share = [(after.index_BN == k).mean() for k in range(K) if k != 2]
    np.testing.assert_allclose(share, 0.4 / K, atol=0.02)
    # Ticks differ more than tokens that each fall with the same probability would.
    count_BT = changed_BTN.sum(-1)
    p = changed_BTN.mean()
    assert count_BT.var() > 1.2 * N * p * (1 - p)


def test_to_numbers_noise_is_added_whose_deviation_is_anew_at_every_tick():
    z = Latent(None, jnp.zeros((B, T, N, E)))
    noise = np.asarray(jax.jit(lambda keys: corrupt(z, 0.5, keys, None, codes))(KEYS_BT).embedding_BNE)
    np.testing.assert_allclose(np.sqrt((noise**2).mean()), 0.5 / np.sqrt(3), rtol=0.05)
    deviation_BT = noise.std((-1, -2))
    assert np.quantile(deviation_BT, 0.9) > 3 * np.quantile(deviation_BT, 0.1)


def test_a_tick_is_corrupted_alike_in_any_batch():
    z = codes(jax.random.randint(jax.random.key(1), (B, T, N), 0, K))
    whole = corrupt(z, 0.9, KEYS_BT, K, codes)
    part = corrupt(jax.tree.map(lambda x: x[3, 7:9], z), 0.9, KEYS_BT[3, 7:9], K, codes)
    chex.assert_trees_all_equal(part, jax.tree.map(lambda x: x[3, 7:9], whole))


# -- in a world model -----------------------------------------------------------------------------------------------------

CHOICES = [
    ('tokens', 'masked', 'window', 'frame', ('transition', 'outcome'), 'departure'),
    ('continuous', 'flow', 'recurrent', 'frame', ('transition', 'outcome'), 'departure'),
    ('categorical', 'categorical', 'recurrent', 'memory', ('transition', 'outcome', 'decoder'), 'arrival'),
]


@functools.cache
def setting(choice):
    m = model(*choice)
    ticks = experience(3, 5, firsts=((0, 0), (1, 2)))
    keys_BT = rng.per_tick(jax.random.split(jax.random.key(2), 3), 5)
    return m, init_variables(m, 0), ticks, keys_BT


@pytest.mark.parametrize('choice', CHOICES, ids=lambda c: c[0])
def test_what_was_seen_stays_what_departures_and_memory_are_given_does_not(choice):
    m, variables, ticks, keys_BT = setting(choice)
    last, clean = rollout.observe(m, variables, ticks, keys_BT)
    after, trace = rollout.observe(m, variables, ticks, keys_BT, corruption=0.9)
    differ = lambda a, b: any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))
    assert differ(trace.departure.z, clean.departure.z)
    assert differ(trace.context_BTMD, clean.context_BTMD)
    chex.assert_trees_all_equal(trace.features, clean.features)
    if choice[3] == 'frame':
        chex.assert_trees_all_equal((trace.posterior, trace.z, after.z), (clean.posterior, clean.z, last.z))
    # Before an opening stands nothing, and nothing is not corrupted.
    start = jax.tree.map(lambda x: x[1, 2], (trace.departure.z, clean.departure.z))
    chex.assert_trees_all_equal(*start)
    arrived = jax.tree.map(lambda x: x[:, -1], trace.z)
    chex.assert_trees_all_equal(after.z, arrived)


def test_the_hearts_own_loss_never_sees_it_and_none_of_it_is_none():
    m, variables, ticks, _ = setting(CHOICES[0])
    keys_B = jax.random.split(jax.random.key(3), 3)
    run = jax.jit(lambda v, rate: losses(m, v, ticks, None, keys_B, corruption=rate)[0], static_argnums=1)
    without, given, plain = (
        run(variables, 0.0),
        run(variables, 0.9),
        jax.jit(lambda v: losses(m, v, ticks, None, keys_B)[0])(variables),
    )
    chex.assert_trees_all_equal(without, plain)
    for name in ('reconstruction', 'saturation'):
        np.testing.assert_array_equal(given[name][0], without[name][0])
    assert (given['transition'][0] != without['transition'][0]).any()


def test_it_is_part_of_a_runs_fingerprint_where_there_is_any():
    config = default_config()
    config.train.weights = {'transition': 1.0}
    config.model = {'heart': {'kind': 'palette'}}
    assert 'train.corruption' not in fingerprint(config, {}, 'data')
    config.train.corruption = 0.1
    assert fingerprint(config, {}, 'data')['train.corruption'] == 0.1
    assert step_config(config).corruption == 0.1
    for wrong in (-0.1, 1.5, float('nan')):
        config.train.corruption = wrong
        with pytest.raises(ValueError, match=r'train\.corruption is'):
            validate(config)
