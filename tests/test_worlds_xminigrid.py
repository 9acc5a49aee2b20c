"""xminigrid behind the World protocol: its own steps and pictures, its ends, what a script reads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels import interaction, worlds
from worldmodels.control.random import Random
from worldmodels.control.scripted import Scripted

MEMORY = 'xminigrid/MiniGrid-MemoryS16'


@functools.cache
def played(name: str, steps: int, options: tuple = ()):
    """`steps` of our world and of xminigrid's own under the same random actions, 8 lanes, as arrays (T, 8, ...).

    Where an episode ends both begin anew.
    """
    world = worlds.make(name, 8, **dict(options))
    env, params = world.single.env, world.single.params

    @jax.jit
    def play(key):
        keys = jax.random.split(key, 8)
        start = jax.vmap(lambda k: env.reset(params, k))(keys)

        def tick(timestep, action):
            mine = world.step(timestep.state, action, key)
            after = jax.vmap(lambda t, a: env.step(params, t, a))(timestep, action)
            over = after.last()

            def pick(fresh, x):
                return jnp.where(over.reshape(over.shape + (1,) * (x.ndim - 1)), fresh, x)

            return jax.tree.map(pick, start, after), (mine, after)

        actions = jax.random.randint(jax.random.fold_in(key, 1), (steps, 8), 0, 6)
        return jax.lax.scan(tick, start, actions)[1]

    return world, *jax.tree.map(np.asarray, jax.tree.map(_plain, play(jax.random.key(5))))


def _plain(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


@pytest.mark.parametrize('name', [MEMORY, 'xminigrid/MiniGrid-EmptyRandom-5x5'])
def test_steps_are_xminigrid_own(name):
    world, (state, seen, outcomes, is_terminal, is_last), theirs = played(name, 300)
    jax.tree.map(np.testing.assert_array_equal, state, theirs.state)
    np.testing.assert_array_equal(seen['grid'], theirs.observation)
    np.testing.assert_array_equal(outcomes['reward'], theirs.reward)
    np.testing.assert_array_equal(is_last, theirs.step_type == 2)
    np.testing.assert_array_equal(is_terminal, theirs.discount == 0)
    np.testing.assert_array_equal(outcomes['discount'], theirs.discount)
    modality = world.spec.modalities['grid']
    assert seen['grid'].shape[2:] == modality.shape
    assert seen['grid'].dtype == modality.dtype
    assert (seen['grid'] < np.array(modality.classes)).all()
    assert is_terminal.any()
    assert (outcomes['reward'] > 0).any()


def test_time_out_is_last_but_not_terminal():
    _, (_, _, outcomes, is_terminal, is_last), _ = played(MEMORY, 21, (('max_steps', 7),))
    np.testing.assert_array_equal(np.flatnonzero(is_last[:, 0] & ~is_terminal[:, 0])[:1], [6])
    assert (is_last & ~is_terminal).sum() >= 8
    np.testing.assert_array_equal(outcomes['discount'], 1 - is_terminal)


def test_both_ends_at_once_are_terminal():
    world = worlds.make('xminigrid/MiniGrid-Empty-5x5', 1, max_steps=5, view='full')
    state, _ = jax.jit(world.reset)(jax.random.key(0))
    step = jax.jit(world.step)
    # From (1, 1) facing right to the goal at (3, 3): the fifth action is the last in time.
    for name in ('forward', 'forward', 'rotate_cw', 'forward', 'forward'):
        action = jnp.array([world.spec.action.names.index(name)])
        state, seen, outcomes, is_terminal, is_last = step(state, action, jax.random.key(0))
    assert is_terminal.all()
    assert is_last.all()
    assert outcomes['reward'][0] == pytest.approx(0.1)
    assert seen['grid'][0, 3, 3].tolist() == [6, 2, 3], 'the goal, green, and the player facing down'


def test_the_full_picture_is_xminigrid_own():
    from xminigrid.rendering.rgb_render import render

    _, (states, *_), _ = played('xminigrid/MiniGrid-EmptyRandom-5x5', 300)
    full = worlds.make('xminigrid/MiniGrid-EmptyRandom-5x5', 1, view='full', observation='rgb')
    state = jax.tree.map(lambda x: jnp.asarray(x[:20, 0]), states)
    pictures = np.asarray(jax.vmap(full.single.observe)(state)['image'])
    assert pictures.shape[1:] == full.spec.modalities['image'].shape
    for i in range(20):
        agent = jax.tree.map(lambda x, i=i: np.asarray(x[i]), state.agent)
        theirs = render(np.asarray(state.grid[i]), agent, view_size=1, tile_size=8)
        # xminigrid lightens what is in view, here the player's own cell, a fifth of the way to white.
        ours = pictures[i].astype(int)
        row, column = agent.position * 8
        cell = (slice(row, row + 8), slice(column, column + 8))
        assert np.abs(ours[cell] + 0.2 * (255 - ours[cell]) - theirs[cell]).max() < 2
        ours[cell] = theirs[cell]
        np.testing.assert_array_equal(ours, theirs)


def test_the_partial_picture_shows_the_symbols():
    from xminigrid.rendering.rgb_render import render_tile

    world = worlds.make(MEMORY, 2, observation='rgb', view_size=5)
    state, seen = jax.jit(world.reset)(jax.random.key(0))
    grid = worlds.make(MEMORY, 2, view_size=5).single.observe
    symbols = np.asarray(jax.vmap(grid)(state)['grid'])
    assert seen['image'].shape == (2, 40, 40, 3)
    for row in range(5):
        for column in range(5):
            facing = 0 if (row, column) == (4, 2) else None
            tile = render_tile(tuple(symbols[1, row, column].tolist()), facing, False, 8).astype(np.uint8)
            np.testing.assert_array_equal(seen['image'][1, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8], tile)


def test_the_loop_plays_it_and_codes_tell_openings_apart():
    world = worlds.make(MEMORY, 4, max_steps=20)
    pool = interaction.prepare(world, jax.random.key(0), 64)
    openings = {codes.tobytes() for codes in np.asarray(pool['truth']['codes'])}
    assert 8 < len(openings) <= 4 * 13, 'what is to be kept in mind, where it is again, where one starts'
    _, records = interaction.interact(world, Random(world.spec.action), None, jax.random.key(1), 50, pool)
    assert records['observation']['grid'].shape == (50, 4, 3, 3, 2)
    assert np.asarray(records['is_last'] & ~records['is_terminal']).any()


def test_a_script_opens_the_door():
    world = worlds.make('xminigrid/MiniGrid-DoorKey-6x6', 8)
    pool = interaction.prepare(world, jax.random.key(1), 16)
    policy = Scripted(world.spec.action)
    _, records = interaction.interact(world, policy, None, jax.random.key(2), 40, pool)
    # The longest way in a 6x6 grid is under 30 steps.
    assert (np.asarray(records['is_terminal']).sum(0) >= 1).all()
    assert not np.asarray(records['is_last'] & ~records['is_terminal']).any()


@pytest.mark.slow
def test_every_environment_has_the_shapes_it_says():
    names = worlds.names('xminigrid')
    assert MEMORY in names
    assert len(names) >= 19
    assert not any('XLand' in name for name in names)
    for name in names:
        for view in ('partial', 'full') if name == MEMORY else ('partial',):
            world = worlds.make(name, 2, view=view)
            state, seen = jax.eval_shape(world.reset, jax.random.key(0))
            after = jax.eval_shape(world.step, state, jnp.zeros((2,), jnp.int32), jax.random.key(0))
            assert jax.tree.map(lambda x: (x.shape, x.dtype), (state, seen)) == jax.tree.map(
                lambda x: (x.shape, x.dtype), after[:2]
            ), name
            assert seen['grid'].shape == (2, *world.spec.modalities['grid'].shape), name
            assert world.max_steps > 0


@pytest.mark.parametrize(
    ('name', 'options', 'sentence'),
    [
        ('xminigrid/MiniGrid-MemoryS61', {}, "did you mean 'xminigrid/MiniGrid-MemoryS64'"),
        (MEMORY, {'view_size': 4}, 'give an odd number'),
        (MEMORY, {'view_size': 1}, 'at least 3'),
        (MEMORY, {'observation': 'pixels'}, 'symbolic | rgb'),
    ],
)
def test_errors_say_what_to_do(name, options, sentence):
    with pytest.raises(ValueError, match=sentence.replace('|', r'\|')):
        worlds.make(name, 1, **options)
