"""Latent actions: found in frames alone, told to every part, silent where nothing led to a frame."""

from __future__ import annotations

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models import MEMORIES, SPEC, config, experience

from worldmodels import rng, rollout
from worldmodels.action.latent import Latent, turned
from worldmodels.build import build_model, complete, init_variables
from worldmodels.evaluation.agreement import adjusted_mutual_information, contingency
from worldmodels.training.losses import losses
from worldmodels.types import ActionSpace, Modality, Spec

B, T = 3, 6
FIRSTS = ((0, 0), (1, 3), (2, 5))
TINY = {'kind': 'latent', 'codes': 4, 'width': 16, 'heads': 2, 'hidden': 16, 'depth': 1}
FRAME = ('tokens', 'masked', 'window', 'frame', ('transition', 'outcome'), 'departure')
SCANNED = ('categorical', 'categorical', 'recurrent', 'prediction', ('transition', 'outcome', 'decoder'), 'arrival')


@functools.cache
def setting(choice=FRAME, **fields):
    m = build_model({**config(*choice), 'action': {**TINY, **fields}}, SPEC, 'float32')
    keys_BT = rng.per_tick(rng.per_example(rng.stream(0, 'watch'), 0, jnp.arange(B)), T)
    return m, init_variables(m, 1), keys_BT


def ticks(seed=0):
    return experience(B, T, seed=seed, firsts=FIRSTS)


actions_of = jax.jit(rollout.actions_of, static_argnames='model')


def dots(count, seed, cells=6, side=2):
    """A dot in a row that goes right, left, or stays: frames before and after, what was done, what moved."""
    random = np.random.default_rng(seed)
    at, action = random.integers(0, cells, count), random.integers(0, 3, count)
    to = np.clip(at + np.array([1, -1, 0])[action], 0, cells - 1)

    def draw(place):
        row = np.zeros((count, 1, cells), np.uint8)
        row[np.arange(count), 0, place] = 255
        return {'image': np.repeat(np.kron(row, np.ones((1, side, side), np.uint8))[..., None], 3, -1)}

    return draw(at), draw(to), action, at != to


def test_actions_are_found_in_frames_alone():
    before, after, _, _ = dots(1024, 0)
    spec = Spec((('image', Modality('image', before['image'].shape[1:])),), ActionSpace('discrete', 1))
    m = Latent(spec, 'float32', codes=3, patch=2, width=16, heads=2, hidden=32, depth=1)
    keys_B = jax.random.split(jax.random.key(0), 32)
    batches = jax.tree.map(lambda x: jnp.asarray(x).reshape(32, 32, *x.shape[1:]), (before, after))
    first = jax.tree.map(lambda x: x[0], batches)
    begin = jax.jit(functools.partial(m.init, method='losses'))
    params = begin(jax.random.key(0), *first, keys_B)['params']
    optimizer = optax.adam(5e-3)

    @jax.jit
    def epoch(carry):
        def step(carry, batch):
            params, state = carry
            total = lambda p: sum(jnp.mean(x) for x in m.apply({'params': p}, *batch, keys_B, method='losses').values())
            updates, state = optimizer.update(jax.grad(total)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, carry, batches)[0]

    carry = params, optimizer.init(params)
    for _ in range(10):
        carry = epoch(carry)
    before, after, action, moved = dots(300, 1)
    infer = jax.jit(functools.partial(m.apply, method='infer'))
    code = np.asarray(infer({'params': carry[0]}, before, after))
    assert adjusted_mutual_information(contingency(action[moved], code[moved], 3, 3)) > 0.95
    assert len(set(code[~moved])) == 1, 'that nothing moved is a kind of its own'


def test_frames_are_turned_together():
    frames = np.random.default_rng(0).integers(0, 255, (64, 4, 4, 3)).astype(np.uint8)
    keys_B = jax.random.split(jax.random.key(0), 64)
    one, two = turned(({'image': jnp.asarray(frames)}, {'image': jnp.asarray(255 - frames)}), keys_B)
    np.testing.assert_array_equal(one['image'], 255 - two['image'])
    quarters = [[np.array_equal(np.rot90(x, k), y) for k in range(4)] for x, y in zip(frames, one['image'])]
    assert np.sum(quarters, 1).tolist() == [1] * 64
    assert np.sum(quarters, 0).min() > 4


def test_recorded_actions_are_not_looked_at_and_openings_have_none():
    m, variables, keys_BT = setting()
    data = ticks()
    other = dataclasses.replace(data, action=jnp.zeros_like(data.action))
    codes = actions_of(m, variables, data)
    assert m.actions == ActionSpace('discrete', 4)
    np.testing.assert_array_equal(codes == -1, data.is_first | (jnp.arange(T) == 0))
    chex.assert_trees_all_equal(
        rollout.observe(m, variables, data, keys_BT), rollout.observe(m, variables, other, keys_BT)
    )
    _, trace = rollout.observe(m, variables, data, keys_BT)
    np.testing.assert_array_equal(trace.departure.action_BTA, m.actions.vector(codes))


def test_all_at_once_is_tick_by_tick_and_the_future_changes_nothing():
    m, variables, keys_BT = setting()
    data = ticks()
    _, a = rollout.observe(m, variables, data, keys_BT, execution='parallel')
    _, b = rollout.observe(m, variables, data, keys_BT, execution='scan')
    chex.assert_trees_all_close(a.context_BTMD, b.context_BTMD, atol=1e-5)
    later = {k: x.at[:, 4:].set(255 - x[:, 4:]) for k, x in data.observation.items()}
    _, c = rollout.observe(m, variables, dataclasses.replace(data, observation=later), keys_BT, execution='parallel')
    chex.assert_trees_all_equal(a.departure.action_BTA[:, :4], c.departure.action_BTA[:, :4])


def test_a_carried_row_is_led_to_from_what_the_belief_draws():
    m, variables, keys_BT = setting()
    data = dataclasses.replace(experience(B, T), continues_B=jnp.array([True, True, False]))
    belief, _ = rollout.observe(m, variables, experience(B, T, seed=4), keys_BT)
    codes = actions_of(m, variables, data, belief)

    @jax.jit
    def inferred(variables, belief, shown):
        return m.apply(variables, m.apply(variables, belief, method='render'), shown, method='infer')

    expected = inferred(variables, belief, {k: x[:, 0] for k, x in data.observation.items()})
    np.testing.assert_array_equal(codes[:, 0], jnp.where(data.continues_B, expected, -1))


@pytest.mark.parametrize('choice', [FRAME, SCANNED], ids=['frame', 'scanned'])
def test_other_parts_do_not_move_the_codes(choice):
    m, variables, _ = setting(choice)
    data, keys_B = ticks(), jax.random.split(jax.random.key(0), B)

    own = {'latent_action', 'action_code', 'action_prior'}
    names = set()

    @jax.jit
    def gradient(params, own_weight):
        def total(params):
            terms, _, metrics = losses(m, {**variables, 'params': params}, data, None, keys_B)
            names.update(terms)
            weights = {k: own_weight if k in own else 1 - own_weight for k in terms}
            return sum(weights[k] * jnp.sum(loss * mask) for k, (loss, mask) in terms.items()), metrics

        return jax.grad(total, has_aux=True)(params)

    grads, metrics = gradient(variables['params'], 1.0)
    assert own < names
    assert float(metrics['codes_used'][0]) == pytest.approx(4)
    assert all(not np.any(g) for part in grads if part != 'action' for g in jax.tree.leaves(grads[part]))
    assert any(np.any(g) for g in jax.tree.leaves(grads['action']))
    grads, _ = gradient(variables['params'], 0.0)
    assert all(not np.any(g) for g in jax.tree.leaves(grads['action']))
    assert any(np.any(g) for g in jax.tree.leaves(grads['transition']))


def test_what_led_to_a_rows_first_frame_or_an_opening_is_not_asked():
    m, variables, _ = setting()
    data, keys_B = ticks(), jax.random.split(jax.random.key(0), B)
    run = jax.jit(losses, static_argnums=(0, 5))
    terms, belief, _ = run(m, variables, data, None, keys_B, ('action',))
    assert set(terms) == {'latent_action', 'action_code', 'action_prior'}
    assert belief is None, 'nothing is watched to find actions'
    for _, mask_BT in terms.values():
        np.testing.assert_array_equal(mask_BT == 0, data.is_first | (jnp.arange(T) == 0))
    with_heart = jax.eval_shape(lambda: losses(m, variables, data, None, keys_B, ('heart', 'action'))[0])
    assert set(with_heart) == set(terms) | {'reconstruction', 'saturation'}


@pytest.mark.parametrize('memory', MEMORIES)
def test_every_memory_dreams_of_latent_actions(memory):
    choice = ('tokens', 'masked', memory, 'frame', ('transition', 'outcome'), 'departure')
    m, variables, keys_BT = setting(choice)

    def dream(variables):
        belief, _ = rollout.observe(m, variables, ticks(), keys_BT)
        return rollout.imagine(m, variables, belief, keys_BT, action=jnp.full((B, T), 3))[1]

    assert jax.eval_shape(dream, variables).observation['image'].shape == (B, T, 16, 16, 3)


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'kind': 'latend'}, "did you mean 'latent'"),
        ({'kind': 'latent', 'code': 3}, "did you mean 'codes'"),
        ({'kind': 'latent', 'codes': 1}, 'one action says nothing'),
        ({'kind': 'latent', 'patch': 5}, 'do not tile'),
        ({'kind': 'latent', 'floor': 1.5}, 'a share of at least 0'),
        ({'kind': 'given', 'codes': 3}, 'is no field of action'),
    ],
)
def test_what_makes_no_sense_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        build_model({**config(*FRAME), 'action': fields}, SPEC, 'float32')


def test_only_square_pictures_are_turned():
    symbols = Spec((('grid', Modality('grid', (4, 4, 1), (3,))),), ActionSpace('discrete', 2))
    with pytest.raises(ValueError, match='it takes square pictures'):
        build_model({**config(*FRAME), 'action': {**TINY, 'turns': True}}, symbols, 'float32')
    build_model({**config(*FRAME), 'action': {**TINY, 'turns': True}}, SPEC, 'float32')
    m = build_model({**config(*FRAME), 'action': TINY}, symbols, 'float32')
    data = experience(2, 3, spec=symbols)
    run = jax.jit(losses, static_argnums=(0, 5))
    terms, _, _ = run(m, init_variables(m, 0), data, None, jax.random.split(jax.random.key(0), 2), ('action',))
    assert np.isfinite(terms['latent_action'][0]).all()


def test_actions_are_the_worlds_own_unless_asked():
    m = build_model(config(*FRAME), SPEC, 'float32')
    assert m.actions is SPEC.action
    assert complete(config(*FRAME))['action'] == {'kind': 'given'}
    assert complete({**config(*FRAME), 'action': {'kind': 'latent'}})['action']['codes'] == 7
    assert 'action' not in init_variables(m, 0)['params']
