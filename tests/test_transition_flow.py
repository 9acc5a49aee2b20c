"""The flow: its steps, its field where it is known exactly, what a long step is told, two modes learned, keys per example."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models import experience, model

from worldmodels import rng, rollout
from worldmodels.build import init_variables
from worldmodels.filter import Posterior
from worldmodels.transition.flow import LEVELS, Flow, advance, draw_steps, integrate, landing, schedule
from worldmodels.types import Latent, Layout

B, N, E = 64, 3, 2


def noise(seed=0, batch=B):
    return jax.random.normal(jax.random.key(seed), (batch, N, E))


# -- steps ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('steps', range(1, 65))
def test_steps_are_powers_of_two_that_lead_to_one_on_their_own_grid(steps):
    sizes = [2.0**-level for level in schedule(steps)]
    assert len(sizes) == steps
    starts = np.cumsum([0, *sizes])
    assert starts[-1] == 1
    assert all(start % size == 0 for start, size in zip(starts, sizes)), 'only such steps are trained'
    assert max(sizes) / min(sizes) <= 2
    if steps & (steps - 1) == 0:
        assert set(sizes) == {1 / steps}


@pytest.mark.parametrize('steps', [0, 65])
def test_other_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match='it takes 1 to 64'):
        schedule(steps)
    with pytest.raises(ValueError, match='it takes 1 to 64'):
        model(*CHOICE).transition.clone(steps=steps)


def test_trained_steps_lie_on_their_grid_and_in_their_share():
    tau, level = jax.jit(lambda k: draw_steps(k, 0.25))(jax.random.split(jax.random.key(0), 4000))
    tau, level = np.asarray(tau), np.asarray(level)
    size = 2.0**-level
    assert (tau % size == 0).all()
    assert ((tau >= 0) & (tau + size <= 1)).all()
    np.testing.assert_allclose((level < LEVELS).mean(), 0.25, atol=0.03)
    assert set(level) == set(range(LEVELS + 1))
    np.testing.assert_allclose(tau[level == LEVELS].mean(), (1 - 1 / 64) / 2, atol=0.03)


# -- known fields ---------------------------------------------------------------------------------------------------------
# Data N(m, s^2), number by number. At tau, x is N(tau m, q^2) with q^2 = (1 - tau)^2 + tau^2 s^2, and the flow keeps each
# point at as many standard deviations: (x - tau m) / q. It ends at m + s * noise.

M, S = 0.5, 0.25


def spread(tau):
    return jnp.sqrt((1 - tau) ** 2 + (tau * S) ** 2)[:, None, None]


def expected(x, tau, level):
    """E[data | x], the field of smallest steps."""
    t = tau[:, None, None]
    return M + t * S**2 / spread(tau) ** 2 * (x - t * M)


def shortcut(x, tau, level):
    """The data that a step of any size must believe in, to land on the flow's path exactly."""
    size = jnp.exp2(-level.astype(jnp.float32))
    t, d = tau[:, None, None], size[:, None, None]
    end = (t + d) * M + spread(tau + size) / spread(tau) * (x - t * M)
    return x + (1 - t) / d * (end - x)


@pytest.mark.parametrize('steps', [1, 3, 4, 64])
def test_where_the_data_are_one_point_every_number_of_steps_ends_there(steps):
    there = noise(1)
    np.testing.assert_allclose(integrate(lambda x, tau, level: there, noise(), steps), there, atol=1e-5)


def test_small_steps_follow_the_flow_and_halving_them_halves_the_error():
    errors = [float(jnp.abs(integrate(expected, noise(), k) - (M + S * noise())).max()) for k in (16, 32, 64)]
    assert errors[2] < 0.03
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 2, rtol=0.15)


@pytest.mark.parametrize('steps', [1, 2, 3, 5, 64])
def test_exact_shortcuts_end_at_the_same_place_in_any_number_of_steps(steps):
    np.testing.assert_allclose(integrate(shortcut, noise(), steps), M + S * noise(), atol=1e-4)


def test_an_exact_shortcut_is_told_what_it_does():
    """The target of a long step, two steps of half its size, is the step itself: nothing is left to learn."""
    tau, level = draw_steps(jax.random.split(jax.random.key(2), B), 0.999)
    level = jnp.minimum(level, LEVELS - 1)
    tau = jnp.floor(tau * 2**level) / 2**level
    x = noise(3)
    np.testing.assert_allclose(landing(shortcut, x, tau, level), shortcut(x, tau, level), atol=2e-4)


def test_a_long_step_lands_where_two_short_ones_do():
    """Whatever the field is, and in particular where it is no flow of anything."""
    field = lambda x, tau, level: jnp.sin(3 * x) + tau[:, None, None] * level[:, None, None]
    tau, level = jnp.full(B, 0.25), jnp.full(B, 2)
    x = noise(4)
    first = advance(x, field(x, tau, level + 1), tau, level + 1)
    second = advance(first, field(first, tau + 0.125, level + 1), tau + 0.125, level + 1)
    np.testing.assert_allclose(advance(x, landing(field, x, tau, level), tau, level), second, atol=1e-5)


# -- the network ----------------------------------------------------------------------------------------------------------


def given(batch, seed=0):
    z = Latent(None, 0.1 * noise(seed, batch))
    return z, jnp.zeros((batch, 2)), jnp.zeros((batch, 0, 1))


@pytest.fixture(scope='module')
def flow():
    module = Flow(Layout(loose=N), False, 'float32', width=16, depth=1, heads=2, hidden=32)
    keys = jax.random.split(jax.random.key(0), B)

    def loss(module, data, keys):
        return module.loss(module.predict(*given(len(keys))), Posterior(Latent(None, data), None), keys)['transition']

    variables = jax.jit(lambda: module.init(jax.random.key(1), noise(), keys, method=loss))()
    return module, {'params': variables['params']}, loss


def test_losses_are_per_example(flow):
    module, variables, loss = flow
    run = jax.jit(lambda data, keys: module.apply(variables, data, keys, method=loss))
    keys = jax.random.split(jax.random.key(5), 4)
    whole = run(noise(0, 4), keys)
    assert whole.shape == (4,)
    alone = module.apply(variables, noise(0, 4)[:1], keys[:1], method=lambda m, d, k: loss(m, d, k))
    np.testing.assert_allclose(whole[0], alone[0], rtol=1e-4)
    assert (whole != run(noise(0, 4), keys[::-1])).all()


def test_an_example_draws_alike_in_any_batch(flow):
    module, variables, _ = flow
    keys = jax.random.split(jax.random.key(6), 4)

    def draw(m, rows):
        known = m.predict(*(jax.tree.map(lambda x: x[rows], x) for x in given(4)))
        return m.sample(known, keys[rows], steps=3)

    whole = module.apply(variables, slice(0, 4), method=draw)
    assert whole.shape == (4, N, E)
    np.testing.assert_allclose(module.apply(variables, slice(2, 3), method=draw)[0], whole[2], atol=1e-5)
    assert np.abs(whole[1] - whole[2]).max() > 1e-3
    still = lambda m: m.sample(m.predict(*given(4)), keys, temperature=0.0)
    again = lambda m: m.sample(m.predict(*given(4)), keys[::-1], temperature=0.0)
    np.testing.assert_array_equal(module.apply(variables, method=still), module.apply(variables, method=again))


def test_two_modes_are_learned_and_drawn_in_one_step_and_in_sixty_four(flow):
    """All numbers of a frame are -0.8, or all 0.8, as a coin falls that nothing foretells."""
    module, variables, loss = flow
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))

    @jax.jit
    def step(variables, opt_state, key):
        coin_key, key = jax.random.split(key)
        side = jnp.where(jax.random.bernoulli(coin_key, 0.5, (B, 1, 1)), 0.8, -0.8)
        data = jnp.broadcast_to(side, (B, N, E))
        keys = jax.random.split(key, B)
        total = lambda v: jnp.mean(module.apply(v, data, keys, method=loss))
        value, grads = jax.value_and_grad(total)(variables)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(variables, updates), opt_state, value

    opt_state = optimizer.init(variables)
    for key in jax.random.split(jax.random.key(7), 700):
        variables, opt_state, _ = step(variables, opt_state, key)
    keys = jax.random.split(jax.random.key(8), 256)
    for steps, within in ((1, 0.35), (4, 0.2), (64, 0.2)):
        draw = lambda m, steps=steps: m.sample(m.predict(*given(256)), keys, steps=steps)
        drawn = np.asarray(module.apply(variables, method=draw))
        side = np.sign(drawn.mean((1, 2)))
        error = np.abs(drawn - 0.8 * side[:, None, None]).mean()
        assert error < within, (steps, error)
        assert 0.35 < (side > 0).mean() < 0.65, steps


def test_long_steps_teach_nothing_to_the_short_ones_they_learn_from(flow):
    """With shortcuts alone, and data that are not there, the target has no slope."""
    module, variables, loss = flow
    only = module.clone(shortcuts=0.999999)
    keys = jax.random.split(jax.random.key(9), B)
    run = lambda data: jnp.sum(only.apply(variables, data, keys, method=loss))
    through_target = jax.grad(lambda data: run(data))(noise())
    assert np.isfinite(through_target).all()
    moved = jax.grad(lambda v: jnp.sum(only.apply(v, noise(), keys, method=loss)))(variables)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(moved))


# -- in a world model -----------------------------------------------------------------------------------------------------

CHOICE = ('continuous', 'flow', 'window', 'frame', ('transition', 'outcome'), 'departure')


def test_the_number_of_steps_is_a_dial_of_the_dream_and_the_history_is_read_once():
    m = model(*CHOICE)
    variables = init_variables(m, 0)
    ticks = experience(2, 3)
    keys_BT = rng.per_tick(jax.random.split(jax.random.key(0), 2), 3)
    belief, _ = rollout.observe(m, variables, ticks, keys_BT)
    dream = lambda **dials: rollout.imagine(m, variables, belief, keys_BT, action=ticks.action, **dials)[0].z
    few, many, own = dream(steps=1), dream(steps=8), dream()
    assert few.index_BN is None
    assert (few.embedding_BNE != many.embedding_BNE).any()
    np.testing.assert_array_equal(own.embedding_BNE, dream(steps=m.transition.steps).embedding_BNE)
    with pytest.raises(ValueError, match='it takes 1 to 64'):
        dream(steps=65)


def test_parts_of_other_latents_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="take transition 'flow', or heart 'tokens'"):
        model('continuous', 'masked', *CHOICE[2:])
    with pytest.raises(ValueError, match="take heart 'continuous', or transition 'masked'"):
        model('tokens', 'flow', *CHOICE[2:])
