"""What was carried in and is reset has no part in any gradient, not even as 0 times NaN."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import MEMORIES, READERS, experience, fitted, model

from worldmodels import rng, rollout
from worldmodels.build import init_variables
from worldmodels.training.losses import losses

B, T = 2, 4
CHOICES = [('palette', 'masked', m, 'frame', ('transition', 'outcome'), 'departure') for m in MEMORIES]
CHOICES += [('categorical', 'categorical', 'window', 'prediction', READERS, 'arrival')]


@pytest.mark.parametrize('choice', CHOICES, ids=lambda c: '-'.join(c[:4]))
def test_a_poisoned_past_that_is_reset_changes_no_gradient(choice):
    m, ticks, earlier = model(*choice), experience(B, T, firsts=((1, 2),)), experience(B, T, seed=2)
    variables = fitted(m, init_variables(m, 1), ticks)
    keys_B = rng.per_example(rng.stream(0, 'train'), 0, ticks.example_B)
    carried, _ = jax.jit(lambda v: rollout.observe(m, v, earlier, rng.per_tick(keys_B, T)))(variables)
    number = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    poisoned = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan) if number(x) else x, carried)

    @jax.jit
    def gradient(belief):
        def total(params):
            terms, _, _ = losses(m, {**variables, 'params': params}, ticks, belief, keys_B)
            return sum(jnp.sum(loss * mask) for loss, mask in terms.values())

        return jax.value_and_grad(total)(variables['params'])

    assert not np.asarray(ticks.continues_B).any()
    clean = gradient(carried)
    chex.assert_tree_all_finite(clean)
    assert any((x != 0).any() for x in jax.tree.leaves(clean[1]))
    chex.assert_trees_all_equal(clean, gradient(poisoned))
