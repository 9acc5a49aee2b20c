"""Every heart x transition x memory x switch: built, trained one step and dreamed by shape alone, or refused in a sentence."""

from __future__ import annotations

import itertools

import chex
import jax
import jax.numpy as jnp
import pytest
from models import AXES, CONTEXTS, HEARTS, MEMORIES, OUTCOME_READS, READS, SPEC, TRANSITIONS, experience, model, refusal

from worldmodels import rng, rollout
from worldmodels.build import init_variables
from worldmodels.training.losses import losses

B, T = 2, 2


def expected_losses(heart: str, transition: str) -> set[str]:
    names = {'reward', 'discount'}
    if heart != 'palette':
        names.add('reconstruction')
    if heart == 'continuous':
        names.add('perceptual')
    if heart == 'tokens':
        names.add('saturation')
    if transition == 'categorical' and heart == 'categorical':
        return names | {'dynamics', 'representation'}
    return names | {'transition'}


@pytest.mark.parametrize('memory', MEMORIES)
@pytest.mark.parametrize('transition', TRANSITIONS)
@pytest.mark.parametrize('heart', HEARTS)
def test_every_combination_trains_and_dreams_or_says_why_not(heart, transition, memory):
    ticks = experience(B, T)
    built = 0
    for reads, context_to, outcome_reads in itertools.product(READS, CONTEXTS, OUTCOME_READS):
        choice = (heart, transition, memory, reads, context_to, outcome_reads)
        why = refusal(*choice)
        if why:
            with pytest.raises(ValueError, match=why):
                model(*choice)
            continue
        built += 1
        m = model(*choice)
        shapes = jax.eval_shape(lambda m=m: init_variables(m, 0))
        keys_B = jax.random.split(jax.random.key(0), B)

        def step(variables, m=m, keys_B=keys_B):
            def total(params):
                terms, belief, _ = losses(m, {**variables, 'params': params}, ticks, None, keys_B)
                return sum(jnp.sum(loss * mask) for loss, mask in terms.values()), (terms, belief)

            return jax.value_and_grad(total, has_aux=True)(variables['params'])

        (_, (terms, belief)), grads = jax.eval_shape(step, shapes)
        chex.assert_trees_all_equal_shapes_and_dtypes(grads, shapes['params'])
        assert set(terms) == expected_losses(heart, transition), choice
        chex.assert_shape(jax.tree.leaves(terms), (B, T))

        def dream(variables, belief, m=m, keys_B=keys_B):
            return rollout.imagine(m, variables, belief, rng.per_tick(keys_B, 8), action=jnp.zeros((B, 8), jnp.int32))

        after, dreamed = jax.eval_shape(dream, shapes, belief)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, belief)
        assert dreamed.observation['image'].shape == (B, 8, 16, 16, 3)
        assert dreamed.observation['image'].dtype == jnp.uint8
        assert set(dreamed.outcomes) == set(SPEC.outcomes)
    assert built or (heart == 'continuous') != (transition == 'flow')


def test_axes_are_all_there():
    assert [len(axis) for axis in AXES] == [4, 3, 4, 3, 8, 2]
