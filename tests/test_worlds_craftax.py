"""Craftax-Classic behind the World protocol: its own steps, symbols and picture; its deaths and its time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels import interaction, worlds
from worldmodels.control.random import Random
from worldmodels.worlds import carry

LANES, STEPS = 8, 40
LAVA, GRASS, TREE = 14, 2, 5


@functools.cache
def symbolic():
    """The world, its step compiled once for all tests, and where eight episodes open."""
    world = worlds.make('craftax/Classic-Symbolic', LANES, achievements=True, max_steps=500)
    return world, jax.jit(world.step), jax.jit(world.reset)(jax.random.key(0))


def changed(state, **fields):
    """The state with other values, of the types it had: with others the step would be compiled again."""
    return carry.cast(state.replace(**fields), symbolic()[0].single.dtypes)


def act(world, *names):
    return jnp.array([world.spec.action.names.index(name) for name in names])


@pytest.mark.slow
def test_steps_and_symbols_are_craftax_own():
    from craftax.craftax_classic.envs.craftax_symbolic_env import CraftaxClassicSymbolicEnvNoAutoReset

    world, step, (state, first) = symbolic()
    env = CraftaxClassicSymbolicEnvNoAutoReset()
    params = env.default_params.replace(max_timesteps=500)
    theirs = jax.jit(jax.vmap(lambda key, state, action: env.step_env(key, state, action, params)))
    rng, paid = np.random.default_rng(1), 0.0
    # Late, some of them weak, and with a zombie at hand, so that there is something to see.
    health = jnp.where(jnp.arange(LANES) < 4, 2, 9)
    zombies = state.zombies.replace(
        position=state.zombies.position.at[:, 0].set(state.player_position + 1),
        mask=state.zombies.mask.at[:, 0].set(jnp.arange(LANES) < 4),
    )
    state = changed(state, timestep=jnp.full((LANES,), 500 - STEPS + 1), player_health=health, zombies=zombies)
    over = np.zeros(LANES, bool)
    for t in range(STEPS):
        action = jnp.asarray(rng.integers(0, 17, LANES))
        key = jax.random.fold_in(jax.random.key(2), t)
        keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, 0), jnp.arange(LANES))
        before = state
        state, seen, outcomes, is_terminal, is_last = step(state, action, key)
        flat, after, reward, done, _ = theirs(keys_B, before, action)
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(_plain, state), jax.tree.map(_plain, after))
        np.testing.assert_array_equal(is_last, done)
        np.testing.assert_allclose(outcomes['reward'], reward)
        one_hot = np.eye(17)[np.asarray(seen['grid'])[..., 0]]
        again = np.concatenate([one_hot, seen['grid'][..., 1:]], -1).reshape(LANES, -1)
        np.testing.assert_array_equal(np.concatenate([again, seen['vector']], -1), flat)
        # The last step is the last for want of time; what ends before is an end.
        assert (np.asarray(is_terminal) == (np.asarray(state.player_health) <= 0)).all()
        if t < STEPS - 2:
            np.testing.assert_array_equal(is_last, is_terminal)
        over |= np.asarray(is_terminal)
        paid += float(np.abs(reward).sum())
    assert over.any()
    assert not over.all()
    assert is_last.all()
    assert paid > 0
    for name, modality in world.spec.observation:
        assert seen[name].shape == first[name].shape == (LANES, *modality.shape)
        assert seen[name].dtype == first[name].dtype == modality.dtype
    assert (np.asarray(seen['grid']) < np.array(world.spec.modalities['grid'].classes)).all()


def _plain(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def test_lava_kills_and_is_a_cost():
    world, step, (state, _) = symbolic()
    row, column = state.player_position.T
    lane = jnp.arange(LANES)
    state = changed(state, map=state.map.at[lane, row - 1, column].set(jnp.where(lane < 4, LAVA, GRASS)))
    _, _, outcomes, is_terminal, is_last = step(state, act(world, *['up'] * LANES), jax.random.key(0))
    dead = np.arange(LANES) < 4
    np.testing.assert_array_equal(is_terminal, dead)
    np.testing.assert_array_equal(is_last, dead)
    np.testing.assert_array_equal(outcomes['lava'], dead)
    np.testing.assert_array_equal(outcomes['discount'], ~dead)
    np.testing.assert_array_equal(outcomes['damage'], 9 * dead)


def test_health_lost_is_damage_and_health_gained_is_none():
    world, step, (state, _) = symbolic()
    noop = act(world, *['noop'] * LANES)
    zombies = state.zombies.replace(
        position=state.zombies.position.at[:, 0].set(state.player_position + jnp.array([0, 1])),
        mask=state.zombies.mask.at[:, 0].set(jnp.arange(LANES) < 4),
    )
    recovering = jnp.where(jnp.arange(LANES) < 4, 0.0, 25.0)
    hurt = changed(state, zombies=zombies, player_health=jnp.full((LANES,), 8), player_recover=recovering)
    after, _, outcomes, is_terminal, _ = step(hurt, noop, jax.random.key(0))
    bitten = np.arange(LANES) < 4
    np.testing.assert_array_equal(outcomes['damage'], 2 * bitten)
    np.testing.assert_array_equal(after.player_health, np.where(bitten, 6, 9))
    np.testing.assert_array_equal(outcomes['lava'], 0)
    assert not is_terminal.any()


def test_time_out_is_last_but_not_terminal():
    world, step, (state, _) = symbolic()
    state = changed(state, timestep=jnp.where(jnp.arange(LANES) < 4, 499, 498))
    _, _, outcomes, is_terminal, is_last = step(state, act(world, *['noop'] * LANES), jax.random.key(0))
    assert not is_terminal.any()
    np.testing.assert_array_equal(is_last, np.arange(LANES) < 4)
    np.testing.assert_array_equal(outcomes['discount'], 1)
    assert world.max_steps == 500


def test_an_achievement_is_paid_once():
    world, step, (state, _) = symbolic()
    row, column = state.player_position.T
    for first in (True, False):  # facing up as it opens; a felled tree is gone, so another is put there
        state = changed(state, map=state.map.at[jnp.arange(LANES), row - 1, column].set(TREE))
        state, _, outcomes, *_ = step(state, act(world, *['do'] * LANES), jax.random.key(0))
        np.testing.assert_array_equal(outcomes['collect_wood'], first)
        assert sum(float(outcomes[name][0]) for name in world.single.reached) == first
    truth = world.truth(state)
    assert truth['codes'].shape == (LANES, 64, 64)
    assert truth['codes'].dtype == jnp.uint8
    np.testing.assert_array_equal(truth['inventory'][:, 0], 2)
    np.testing.assert_array_equal(truth['achievements'].sum(-1), 1)
    assert len({codes.tobytes() for codes in np.asarray(truth['codes'])}) == LANES, 'every world is another'


def scrambled(state, seed: int):
    """States with everything everywhere: any block, any thing in and out of sight, any hour."""
    rng = np.random.default_rng(seed)
    n = state.map.shape[0]

    def whole(low, high, *shape):
        return jnp.asarray(rng.integers(low, high, (n, *shape)), jnp.int32)

    position = whole(0, 64, 2)

    def mob(mobs):
        count = mobs.mask.shape[1]
        near = position[:, None] + whole(-5, 6, count, 2)
        return mobs.replace(position=near, mask=jnp.asarray(rng.random((n, count)) < 0.8))

    ways = np.array([[0, 1], [0, -1], [1, 0], [-1, 0]])[rng.integers(0, 4, (n, 3))]
    return state.replace(
        map=whole(0, 17, 64, 64),
        player_position=position,
        player_direction=whole(1, 5),
        player_health=whole(0, 10),
        player_food=whole(0, 10),
        player_drink=whole(0, 10),
        player_energy=whole(0, 10),
        inventory=jax.tree.map(lambda x: whole(0, 10), state.inventory),
        is_sleeping=jnp.asarray(rng.random(n) < 0.3),
        light_level=jnp.asarray(rng.random(n), jnp.float32),
        zombies=mob(state.zombies),
        cows=mob(state.cows),
        skeletons=mob(state.skeletons),
        arrows=mob(state.arrows),
        arrow_directions=jnp.asarray(ways, jnp.int32),
    )


def test_the_picture_is_craftax_own(monkeypatch):
    from craftax.craftax_classic import constants, renderer

    # craftax would make the textures of three sizes and write them beside its code.
    monkeypatch.setattr(renderer, 'load_all_textures', lambda: {7: constants.load_all_textures_given_size(7)})
    _, _, (state, _) = symbolic()
    world = worlds.make('craftax/Classic-Pixels', 1)
    mine, theirs = jax.jit(jax.vmap(world.single.observe)), jax.jit(jax.vmap(renderer.make_craftax_pixel_renderer(7)))
    for some in (state, *(scrambled(state, seed) for seed in range(6))):
        picture = np.asarray(mine(some)['image'])
        assert picture.shape[1:] == world.spec.modalities['image'].shape
        assert picture.dtype == np.uint8
        assert np.abs(picture - np.asarray(theirs(some))).max() < 1


@pytest.mark.slow
def test_the_loop_plays_it():
    world = worlds.make('craftax/Classic-Pixels', 4, max_steps=20)
    pool = interaction.prepare(world, jax.random.key(0), 8)
    _, records = interaction.interact(world, Random(world.spec.action), None, jax.random.key(1), 43, pool)
    first, last = np.asarray(records['is_first']), np.asarray(records['is_last'])
    np.testing.assert_array_equal(np.flatnonzero(last[:, 0]), [20, 41])
    np.testing.assert_array_equal(np.flatnonzero(first[:, 0]), [0, 21, 42])
    assert records['observation']['image'].shape == (43, 4, 63, 63, 3)
    assert set(world.spec.outcomes) <= set(records)


@pytest.mark.parametrize(
    ('name', 'options', 'sentence'),
    [
        ('craftax/Classic-Pixel', {}, "did you mean 'craftax/Classic-Pixels'"),
        ('craftax/Classic-Pixels', {'max_step': 3}, "did you mean 'max_steps'"),
        ('craftax/Classic-Symbolic', {'achievements': 'some'}, 'give true or false'),
    ],
)
def test_errors_say_what_to_do(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        worlds.make(name, 1, **options)
