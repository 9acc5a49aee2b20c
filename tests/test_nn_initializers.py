"""Parameters are drawn after the model is traced: from the same distributions as by flax, one by one, without a compiler."""

from __future__ import annotations

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import MEMORIES, model
from scipy import stats

from worldmodels import rng
from worldmodels.build import _initial, abstract_variables, init_variables
from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense

KEY = jax.random.key(3)


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        (initializers.Normal(0.5), nn.initializers.normal(0.5)),
        (initializers.Scaled(), nn.initializers.lecun_normal()),
        (
            initializers.Scaled(0.3, batch_axes=1),
            nn.initializers.variance_scaling(0.3, 'fan_in', 'truncated_normal', batch_axis=(0,)),
        ),
        (initializers.zeros, nn.initializers.zeros),
        (initializers.Constant(2.0), nn.initializers.constant(2.0)),
    ],
    ids=['normal', 'scaled', 'scaled in blocks', 'zeros', 'constant'],
)
def test_an_initialiser_is_flaxs_at_call_and_of_its_distribution_when_drawn(ours, theirs):
    shape = (4, 50, 100)
    np.testing.assert_allclose(ours(KEY, shape), theirs(KEY, shape), rtol=1e-5)
    drawn = initializers.draw(lambda key: ours(key, shape), 0, KEY)
    if isinstance(ours, initializers.Constant):
        np.testing.assert_array_equal(drawn, theirs(KEY, shape))
    else:
        assert stats.ks_2samp(np.ravel(drawn), np.ravel(theirs(KEY, shape))).pvalue > 1e-3
        assert abs(np.std(drawn) / np.std(theirs(KEY, shape)) - 1) < 0.02


class Two(nn.Module):
    """A parameter of ours twice, and one of flax's own initialisers."""

    @nn.compact
    def __call__(self, x):
        y = Dense(5, name='b')(Dense(5, name='a')(x))
        return y + self.param('own', nn.initializers.uniform(), (5,))


def test_each_parameter_has_numbers_of_its_own_by_seed_and_name():
    init = lambda key: Two().init(key, jnp.zeros((1, 5)))
    one, again, other = (initializers.draw(init, seed, jax.random.key(seed)) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(one, again)
    p, q = one['params'], other['params']
    assert not np.array_equal(p['a']['kernel'], p['b']['kernel'])
    assert not np.array_equal(p['a']['kernel'], q['a']['kernel'])
    assert not np.array_equal(p['own'], q['own'])
    np.testing.assert_allclose(p['own'], init(jax.random.key(0))['params']['own'], rtol=1e-6)


@pytest.mark.parametrize('memory', MEMORIES)
def test_no_part_of_ours_needs_a_compiler_to_begin(memory):
    """Every kind's parameters are drawn here: their shapes are those of flax's init, and nothing is compiled for them."""
    choices = [('tokens', 'masked'), ('continuous', 'flow'), ('palette', 'masked'), ('categorical', 'categorical')]
    for heart, transition in choices if memory == 'none' else choices[:1]:
        m = model(heart, transition, memory, 'frame', ('transition', 'outcome'), 'departure')
        planned = initializers.shapes(_initial(m))
        boxes = jax.tree.leaves(planned, is_leaf=lambda x: isinstance(x, initializers._Planned))
        assert all(isinstance(x, initializers._Planned) for x in boxes)
        plain = jax.eval_shape(_initial(m), rng.stream(0, 'params'))
        chex.assert_trees_all_equal_shapes_and_dtypes(abstract_variables(m), plain)
        chex.assert_trees_all_equal_shapes_and_dtypes(init_variables(m, 0), plain)
