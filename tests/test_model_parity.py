"""Two paths, one meaning: tick by tick and all at once, observed and imagined, whatever came before a reset."""

from __future__ import annotations

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import MEMORIES, READERS, experience, fitted, model

from worldmodels import rng, rollout
from worldmodels.build import init_variables

B, T = 3, 7
FIRSTS = ((0, 0), (1, 3), (1, 4), (2, 6))
FRAME = [('tokens', 'masked', m, 'frame', ('transition', 'outcome'), 'departure') for m in MEMORIES]
FRAME += [('categorical', 'categorical', m, 'frame', READERS, 'arrival') for m in MEMORIES]
FRAME += [('palette', 'autoregressive', 'window', 'frame', ('transition', 'outcome'), 'departure')]
FRAME += [('continuous', 'flow', 'window', 'frame', ('transition', 'outcome'), 'departure')]
SCANNED = [('categorical', 'categorical', m, r, READERS, 'arrival') for m in MEMORIES for r in ('memory', 'prediction')]
SCANNED += [('categorical', 'autoregressive', 'recurrent', 'prediction', READERS, 'arrival')]
name = lambda c: '-'.join(c[:4])


def each(choices):
    """Tests of one model stay in one process, where it is compiled once."""
    return [pytest.param(c, id=name(c), marks=pytest.mark.xdist_group(name(c))) for c in choices]


@functools.cache
def setting(choice):
    m = model(*choice)
    variables = fitted(m, init_variables(m, 1), experience(B, T))
    return m, variables, rng.per_tick(rng.per_example(rng.stream(0, 'watch'), 0, jnp.arange(B)), T)


# Compiled once for a model and shapes: without it every call compiles its scan anew.
observe = jax.jit(rollout.observe, static_argnums=0, static_argnames=('execution', 'corruption'))
imagine = jax.jit(rollout.imagine, static_argnums=0, static_argnames='policy')


def visible(trace):
    return trace.z, trace.context_BTMD, trace.departure


def test_corrupted_parallel_is_corrupted_scanned():
    m, variables, keys_BT = setting(FRAME[0])
    ticks = experience(B, T, firsts=FIRSTS)
    seen = [observe(m, variables, ticks, keys_BT, execution=how, corruption=0.5) for how in ('parallel', 'scan')]
    (last_a, a), (last_b, b) = seen
    chex.assert_trees_all_close((last_a, visible(a)), (last_b, visible(b)), atol=1e-5)


@pytest.mark.parametrize('carried', [False, True])
@pytest.mark.parametrize('choice', each(FRAME))
def test_parallel_is_scanned(choice, carried):
    m, variables, keys_BT = setting(choice)
    ticks = experience(B, T, firsts=FIRSTS)
    belief = None
    if carried:
        earlier = experience(B, 5, seed=1)
        belief, _ = observe(m, variables, earlier, keys_BT[:, :5])
        ticks = dataclasses.replace(ticks, continues_B=jnp.array([True, True, False]))
    last_a, a = observe(m, variables, ticks, keys_BT, belief, execution='parallel')
    last_b, b = observe(m, variables, ticks, keys_BT, belief, execution='scan')
    chex.assert_trees_all_close(visible(a), visible(b), atol=1e-5)
    chex.assert_trees_all_close(last_a.context_BMD, last_b.context_BMD, atol=1e-5)
    # And the beliefs go on alike: the same dream comes out of both.
    dream = lambda belief: imagine(m, variables, belief, keys_BT, action=jnp.ones((B, T), jnp.int32))
    (after_a, a), (after_b, b) = dream(last_a), dream(last_b)
    chex.assert_trees_all_close(after_a.z, after_b.z, atol=1e-4)
    if m.heart.classes is not None:
        np.testing.assert_array_equal(a.index_BTN, b.index_BTN)


@pytest.mark.parametrize('choice', each(FRAME + SCANNED))
def test_observing_is_ticking(choice):
    m, variables, keys_BT = setting(choice)
    ticks = experience(B, T, firsts=FIRSTS)
    last, trace = observe(m, variables, ticks, keys_BT)
    tick = jax.jit(lambda belief, *inputs: m.apply(variables, belief, *inputs, method='tick'))
    belief = m.apply(variables, B, method='initial')
    vectors = m.spec.action.vector(ticks.action)
    for t in range(T):
        frame = {k: x[:, t] for k, x in ticks.observation.items()}
        first = ticks.is_first[:, t] | (t == 0)
        belief, _ = tick(belief, vectors[:, t], keys_BT[:, t], frame, first)
        chex.assert_trees_all_close(belief.context_BMD, trace.context_BTMD[:, t], atol=1e-5)
        chex.assert_trees_all_close(belief.z, jax.tree.map(lambda x, t=t: x[:, t], trace.z), atol=1e-5)
    chex.assert_trees_all_close(belief.z, last.z, atol=1e-5)


@pytest.mark.parametrize('choice', each(FRAME + SCANNED))
def test_nothing_passes_a_reset_and_nothing_comes_from_the_future(choice):
    m, variables, keys_BT = setting(choice)
    ticks = experience(B, T, firsts=FIRSTS)
    earlier, _ = observe(m, variables, experience(B, 4, seed=2), keys_BT[:, :4])
    poisoned = jax.tree.map(
        lambda x: jnp.full_like(x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x, earlier
    )
    _, clean = observe(m, variables, ticks, keys_BT, earlier)
    # A belief full of NaN is carried in, and no row continues it.
    _, after = observe(m, variables, ticks, keys_BT, poisoned)
    chex.assert_trees_all_equal(visible(clean), visible(after))
    # All rows continue it: row 1 resets at 3 and 4, and from there on nothing of it is left.
    going = dataclasses.replace(ticks, continues_B=jnp.ones(B, bool))
    _, mixed = observe(m, variables, going, keys_BT, poisoned)
    row = jax.tree.map(lambda x: x[1, 3:], (mixed.z, mixed.context_BTMD, mixed.departure))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(row))
    # Other frames from tick 5 on: up to tick 4 nothing differs, to the bit.
    other = experience(B, T, seed=9, firsts=FIRSTS)
    changed = dataclasses.replace(
        ticks,
        observation={k: x.at[:, 5:].set(other.observation[k][:, 5:]) for k, x in ticks.observation.items()},
        action=ticks.action.at[:, 5:].set(other.action[:, 5:]),
    )
    _, later = observe(m, variables, changed, keys_BT, earlier)
    cut = lambda trace: jax.tree.map(lambda x: x[:, :5], visible(trace))
    chex.assert_trees_all_equal(cut(later), cut(clean))
    pairs = zip(jax.tree.leaves(later.posterior), jax.tree.leaves(clean.posterior))
    assert any((a[:, 5:] != b[:, 5:]).any() for a, b in pairs), 'what differs must be seen from tick 5 on'


def test_parallel_is_refused_where_the_filter_looks_back():
    m, variables, keys_BT = setting(SCANNED[0])
    with pytest.raises(ValueError, match='needs the tick before'):
        observe(m, variables, experience(B, T), keys_BT, execution='parallel')


def test_a_dream_wants_actions_or_a_policy():
    m, variables, keys_BT = setting(FRAME[0])
    belief = m.apply(variables, B, method='initial')
    with pytest.raises(ValueError, match='either recorded actions'):
        imagine(m, variables, belief, keys_BT)
    with pytest.raises(ValueError, match='one key a tick'):
        imagine(m, variables, belief, keys_BT, action=jnp.zeros((B, T + 1), jnp.int32))


def test_an_opening_can_be_dreamed_and_forgets_what_came_before():
    m, variables, keys_BT = setting(FRAME[2])
    action = jnp.zeros((B, T), jnp.int32)
    fresh = m.apply(variables, B, method='initial')
    used, _ = observe(m, variables, experience(B, T), keys_BT)
    first = jnp.ones(B, bool)
    a = imagine(m, variables, fresh, keys_BT, action=action, is_first_B=first)[1]
    b = imagine(m, variables, used, keys_BT, action=action, is_first_B=first)[1]
    chex.assert_trees_all_equal(a, b)


def test_the_policy_of_a_dream_sees_the_belief_and_its_actions_are_kept():
    m, variables, keys_BT = setting(FRAME[2])
    belief = m.apply(variables, B, method='initial')

    def policy(params, belief, state, keys_B):
        return belief.z.index_BN[:, 0] % 5, state + 1, {'count': state}

    _, dream = imagine(m, variables, belief, keys_BT, policy=policy, policy_state=jnp.zeros(B, jnp.int32))
    np.testing.assert_array_equal(dream.extras['count'], np.tile(np.arange(T), (B, 1)))
    np.testing.assert_array_equal(dream.action[:, 1:], dream.index_BTN[:, :-1, 0] % 5)
    again = imagine(m, variables, belief, rng.split(keys_BT, 2)[1], action=dream.action)[1]
    assert again.index_BTN.shape == dream.index_BTN.shape
