"""Rematerialisation: less is kept for the gradient, and the gradient stays the same."""

from __future__ import annotations

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import pytest
from models import experience, model

from worldmodels import remat
from worldmodels.build import init_variables
from worldmodels.training.config import default_config, fingerprint, step_config, validate
from worldmodels.training.losses import losses

CHOICES = [
    ('tokens', 'masked', 'window', 'frame', ('transition', 'outcome'), 'departure'),
    ('continuous', 'flow', 'state_space', 'frame', ('transition', 'outcome'), 'departure'),
    ('palette', 'autoregressive', 'stack', 'frame', ('transition', 'outcome'), 'departure'),
    ('categorical', 'categorical', 'recurrent', 'prediction', ('transition', 'outcome', 'decoder'), 'arrival'),
]


@functools.cache
def setting(choice):
    m = model(*choice)
    return m, init_variables(m, 0), jax.random.split(jax.random.key(1), 2)


def objective(choice, policy):
    """(params, belief) -> the sum of all losses, on a few ticks with a reset among them."""
    m, variables, keys_B = setting(choice)
    ticks = experience(2, 6, firsts=((0, 0), (1, 3)))

    def total(params, belief):
        given = {'params': params, 'constants': variables['constants']}
        terms, _, _ = losses(m, given, ticks, belief, keys_B, remat=policy)
        return sum((loss_BT * mask_BT).sum() for loss_BT, mask_BT in terms.values())

    return total, variables['params'], m.apply(variables, 2, method='initial')


@pytest.mark.parametrize(('choice', 'policies'), [(CHOICES[0], ('dots', 'blocks')), (CHOICES[-1], ('all',))])
def test_the_gradient_is_the_same_under_every_policy(choice, policies):
    found = {}
    for policy in ('none', *policies):
        total, *given = objective(choice, policy)
        found[policy] = jax.jit(jax.grad(total))(*given)
    # Sums in another order: errors are in proportion to the largest number of a tensor, not to each.
    scale = jax.tree.map(lambda x: jnp.abs(x).max() + 1e-6, found['none'])
    scaled = {policy: jax.tree.map(jnp.divide, grads, scale) for policy, grads in found.items()}
    for policy in policies:
        chex.assert_trees_all_close(scaled[policy], scaled['none'], atol=1e-5)
        assert max(jnp.abs(x).max() for x in jax.tree.leaves(scaled[policy])) > 0.9


@pytest.mark.parametrize('choice', CHOICES, ids=lambda c: f'{c[1]}-{c[2]}')
def test_each_policy_keeps_less_than_the_one_before(choice):
    kept = {}
    for policy in remat.POLICIES:
        total, params, belief = objective(choice, policy)
        kept[policy] = remat.kept_bytes(lambda params, total=total, belief=belief: total(params, belief), params)
    assert kept['none'] > 1.5 * kept['dots']
    assert kept['dots'] > kept['blocks'] >= kept['all'] > 0
    blocks = choice[1] != 'categorical'
    assert (kept['blocks'] > kept['all']) == blocks  # there are none in DreamerV3's model


def test_what_a_scan_keeps_does_not_grow_with_what_a_tick_computes():
    m, variables, keys_B = setting(CHOICES[-1])
    kept = {}
    for policy, length in itertools.product(('none', 'all'), (4, 36)):
        ticks = experience(2, length)
        run = lambda v, ticks=ticks, policy=policy: losses(m, v, ticks, None, keys_B, remat=policy)[0]
        kept[policy, length] = remat.kept_bytes(run, variables)
    grown = {policy: kept[policy, 36] - kept[policy, 4] for policy in ('none', 'all')}
    assert grown['all'] < grown['none'] / 4


def test_the_config_names_a_policy_and_a_run_may_change_it():
    config = default_config()
    config.train.weights = {'transition': 1.0}
    config.model = {'heart': {'kind': 'palette'}}
    before = fingerprint(config, {}, 'data')
    assert step_config(config).remat == 'none'
    config.train.remat = 'blocks'
    assert step_config(config).remat == 'blocks'
    assert fingerprint(config, {}, 'data') == before
    config.train.remat = 'block'
    with pytest.raises(ValueError, match=r'train\.remat is "block", expected one of none, dots, blocks, all'):
        validate(config)
