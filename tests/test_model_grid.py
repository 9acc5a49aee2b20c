"""Every heart x transition x memory x switch: built, trained one step and dreamed by shape alone, or refused in a sentence."""

from __future__ import annotations

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import pytest
from models import AXES, CONTEXTS, HEARTS, MEMORIES, OUTCOME_READS, READS, SPEC, TRANSITIONS, experience, model, refusal

from worldmodels import rng, rollout
from worldmodels.build import abstract_variables
from worldmodels.training.losses import losses

B, T = 2, 2


def expected_losses(heart: str, transition: str, memory: str) -> set[str]:
    names = {'reward', 'discount'}
    if memory == 'masked':
        names.add('recall')
    if heart != 'palette':
        names.add('reconstruction')
    if heart == 'continuous':
        names.add('perceptual')
    if heart == 'tokens':
        names.add('saturation')
    if transition in ('categorical', 'autoregressive') and heart == 'categorical':  # they have a likelihood
        return names | {'dynamics', 'representation'}
    return names | {'transition'}


class Shapes:
    """The shapes of one heart, transition and memory under every switch. What a switch leaves alone is traced once."""

    def __init__(self, *parts: str):
        self.parts = parts
        self.keys_B = jax.random.split(jax.random.key(0), B)
        valid = [c for c in itertools.product([parts], READS, CONTEXTS, OUTCOME_READS) if not refusal(*c[0], *c[1:])]
        self.choices = [(*p, *switches) for p, *switches in valid]
        self.reads = {c[3] for c in self.choices}
        self.readers = max((c[4] for c in self.choices), key=len, default=())
        self.variables = functools.cache(self.variables)
        self.observed = functools.cache(self.observed)
        self.dreamed = functools.cache(self.dreamed)

    def variables(self, reads: str, context_to: tuple[str, ...]):
        m = model(*self.parts, reads, context_to, 'departure')
        return abstract_variables(m)

    def assembled(self, reads: str, context_to: tuple[str, ...]):
        """Variables of a choice: each part's from a model in which it reads what it reads here."""
        out = {k: dict(v) for k, v in self.variables(reads, self.readers).items()}
        for part, reader in (('heart', 'decoder'), ('transition', 'transition'), ('outcome', 'outcome')):
            if reader in self.readers and reader not in context_to:
                other = self.variables(max(self.reads), ('outcome',) if reader != 'outcome' else ('transition',))
                for collection in out:
                    if part in other[collection]:
                        out[collection][part] = other[collection][part]
        if reads == 'prediction' and 'transition' not in context_to:  # a filter that reads what a transition says
            out['params']['filter'] = self.variables(reads, ('outcome',))['params']['filter']
        return out

    def observed(self, reads: str, to_transition: bool):
        """The belief and the trace of an observed batch, which depend on no other switch."""
        context_to = self.readers if to_transition else ('outcome',)
        m = model(*self.parts, reads, context_to, 'departure')
        keys_BT = jax.eval_shape(lambda: rng.per_tick(self.keys_B, T))
        ticks = experience(B, T)
        return jax.eval_shape(
            lambda v, keys_BT: rollout.observe(m, v, ticks, keys_BT), self.assembled(reads, context_to), keys_BT
        )

    def dreamed(self, context_to: tuple[str, ...], outcome_reads: str):
        """A belief and the dream that goes on from it: no filter has a part in it."""
        reads = next(r for r in READS if (*self.parts, r, context_to, outcome_reads) in self.choices)
        m = model(*self.parts, reads, context_to, outcome_reads)
        belief, _ = self.observed(reads, 'transition' in context_to)

        def dream(variables, belief):
            return rollout.imagine(
                m, variables, belief, rng.per_tick(self.keys_B, 8), action=jnp.zeros((B, 8), jnp.int32)
            )

        return belief, *jax.eval_shape(dream, self.assembled(reads, context_to), belief)


def total(terms: dict) -> jax.Array:
    return sum(jnp.sum(loss * mask) for loss, mask in terms.values())


@pytest.mark.parametrize('memory', MEMORIES)
@pytest.mark.parametrize('transition', TRANSITIONS)
@pytest.mark.parametrize('heart', HEARTS)
def test_every_combination_trains_and_dreams_or_says_why_not(heart, transition, memory, monkeypatch):
    shapes, ticks = Shapes(heart, transition, memory), experience(B, T)
    for choice in itertools.product((heart,), (transition,), (memory,), READS, CONTEXTS, OUTCOME_READS):
        why = refusal(*choice)
        if why:
            with pytest.raises(ValueError, match=why):
                model(*choice)
    for reads in shapes.reads:  # the whole step and its gradient
        m, variables = (
            model(heart, transition, memory, reads, shapes.readers, 'arrival'),
            shapes.variables(reads, shapes.readers),
        )

        def step(variables, m=m):
            def objective(params):
                terms, belief, _ = losses(m, {**variables, 'params': params}, ticks, None, shapes.keys_B)
                return total(terms), belief

            return jax.value_and_grad(objective, has_aux=True)(variables['params'])

        (_, belief), grads = jax.eval_shape(step, variables)
        chex.assert_trees_all_equal_shapes_and_dtypes(grads, variables['params'])
        chex.assert_trees_all_equal_shapes_and_dtypes(belief, shapes.observed(reads, True)[0])
    assert shapes.choices or (heart == 'continuous') != (transition == 'flow')
    for *_, reads, context_to, outcome_reads in shapes.choices:
        choice = (heart, transition, memory, reads, context_to, outcome_reads)
        observed = shapes.observed(reads, 'transition' in context_to)

        def forward(variables, observed, choice=choice):
            monkeypatch.setattr('worldmodels.training.losses.observe', lambda *_: observed)
            return losses(model(*choice), variables, ticks, None, shapes.keys_B)[0]

        terms = jax.eval_shape(forward, shapes.assembled(reads, context_to), observed)
        monkeypatch.undo()
        assert set(terms) == expected_losses(heart, transition, memory), choice
        chex.assert_shape(jax.tree.leaves(terms), (B, T))
        belief, after, dreamed = shapes.dreamed(context_to, outcome_reads)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, belief)
        assert dreamed.observation['image'].shape == (B, 8, 16, 16, 3)
        assert dreamed.observation['image'].dtype == jnp.uint8
        assert set(dreamed.outcomes) == set(SPEC.outcomes)


def test_axes_are_all_there():
    assert [len(axis) for axis in AXES] == [4, 4, 8, 3, 8, 2]
