"""A memory's own losses: what they are given, how they are weighed, and that no other part has to know of them."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import SPEC, config, experience

from worldmodels import rng
from worldmodels.build import build_model, init_variables
from worldmodels.memory.recurrent import Recurrent
from worldmodels.training.losses import losses
from worldmodels.training.step import StepConfig, check_losses
from worldmodels.world_model import PARTS

CHOICE = ('palette', 'categorical', 'recurrent', 'frame', ('transition',), 'departure')
FIRSTS = ((0, 0), (1, 2))


class Telling(Recurrent):
    """Its losses are what it was given, told apart by name."""

    def losses(self, context_BTMD, z, action_BTA, reset_BT, keys_BT):
        kept_BT = (~reset_BT).astype(jnp.float32)
        size_BT = jnp.sum(jnp.square(context_BTMD), (-1, -2))
        self.sow('metrics', 'ticks_kept', (jnp.sum(kept_BT), jnp.sum(jnp.ones_like(kept_BT))))
        return {
            'size': (size_BT, kept_BT),
            'acted': (jnp.sum(action_BTA, -1), kept_BT),
            'first_token': (z.index_BN[..., 0].astype(jnp.float32), kept_BT),
            'drawn': (rng.draw(jax.random.uniform, keys_BT), kept_BT),
        }


@pytest.fixture(scope='module')
def setting():
    choice = config(*CHOICE)
    choice['memory']['kind'] = f'{__name__}:Telling'
    m = build_model(choice, SPEC, 'float32')
    variables = init_variables(m, 0)
    ticks = experience(2, 4, firsts=FIRSTS)
    keys_B = rng.per_example(rng.stream(0, 'train'), 0, ticks.example_B)
    return m, variables, ticks, keys_B, jax.jit(losses, static_argnums=(0, 5))


def test_the_memory_is_given_its_segment(setting):
    m, variables, ticks, keys_B, compute = setting
    terms, belief, metrics = compute(m, variables, ticks, None, keys_B, PARTS)
    names = ('size', 'acted', 'first_token', 'drawn')
    assert {terms[n][0].shape for n in names} == {terms[n][1].shape for n in names} == {(2, 4)}
    np.testing.assert_array_equal(terms['size'][1], [[0, 1, 1, 1], [0, 1, 0, 1]])  # nothing carried: rows start anew
    np.testing.assert_array_equal(terms['acted'][0], [[0, 1, 1, 1], [0, 1, 0, 1]])  # the null action at resets
    np.testing.assert_allclose(terms['size'][0][:, -1], jnp.sum(jnp.square(belief.context_BMD), (1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(terms['first_token'][0][:, -1], belief.z.index_BN[:, 0])
    assert len(np.unique(terms['drawn'][0])) == 8
    assert [float(x) for x in metrics['ticks_kept']] == [5, 8]
    # A belief carried in: a row that goes on has no reset at its start.
    going = dataclasses.replace(ticks, continues_B=jnp.array([True, True]))
    kept = compute(m, variables, going, belief, keys_B, PARTS)[0]['size'][1]
    np.testing.assert_array_equal(kept, [[0, 1, 1, 1], [1, 1, 0, 1]])


def test_a_memory_that_is_not_trained_has_no_losses(setting):
    m, variables, ticks, keys_B, _ = setting
    run = lambda parts: jax.eval_shape(lambda v: losses(m, v, ticks, None, keys_B, parts)[::2], variables)
    terms, metrics = run(('transition', 'outcome'))
    assert set(terms) == {'transition', 'reward', 'discount'}
    assert 'ticks_kept' not in metrics
    terms, metrics = run(('memory',))
    assert 'size' in terms
    assert 'ticks_kept' in metrics


def test_weights_name_them_or_the_config_is_refused(setting):
    m, variables, ticks, _, _ = setting
    plain = build_model(config(*CHOICE), SPEC, 'float32')
    names = ('transition', 'reward', 'discount')
    own = ('size', 'acted', 'first_token', 'drawn')
    state = types.SimpleNamespace(**variables, belief=None, step=0)

    def check(model, names):
        weights = tuple((n, 1.0) for n in sorted(names))
        check_losses(state, ticks, model=model, config=StepConfig(0, PARTS, weights, 0.0), losses=losses)

    check(m, names + own)
    with pytest.raises(ValueError, match='no weight for the loss acted, drawn, first_token, size'):
        check(m, names)
    with pytest.raises(ValueError, match='no loss for the weight size'):
        check(plain, (*names, 'size'))
