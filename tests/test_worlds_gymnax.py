"""gymnax behind the World protocol: its own steps, its two kinds of end, its options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels import interaction, worlds
from worldmodels.control.random import Random
from worldmodels.worlds import carry

QUICK = (
    'Breakout-MinAtar',
    'Seaquest-MinAtar',
    'SpaceInvaders-MinAtar',
    'Catch-bsuite',
    'MemoryChain-bsuite',
    'Pendulum-v1',
    'FrozenLake-misc',
)
SLOW = ('Asterix-MinAtar', 'Freeway-MinAtar', 'DeepSea-bsuite', 'CartPole-v1', 'MetaMaze-misc', 'PointRobot-misc')


def both(name: str, steps: int, **options):
    """`steps` of our world and of gymnax's own, from the same states with the same keys and actions, as arrays (T, ...).

    gymnax's resets itself: ours is put where it went.
    """
    world = worlds.make(f'gymnax/{name}', 1, **options).single
    env, params = world.env, world.params
    space = env.action_space(params)

    @jax.jit
    def play(key):
        seen, start = env.reset(key, params)
        state, first = world.reset(key)

        def tick(state, key):
            act_key, key = jax.random.split(key)
            action = space.sample(act_key)
            step_key, _ = jax.random.split(key)  # as gymnax.step does before it calls step_env
            mine = world.step(state, jnp.reshape(action, world.spec.action.shape), step_key)
            _, after, reward, terminated, truncated, info = env.step(key, state, action, params)
            theirs = (after, info['final_observation'], reward, terminated, truncated)
            return carry.cast(after, world.dtypes), (mine, theirs)

        return (start, seen, state, first), jax.lax.scan(tick, state, jax.random.split(key, steps))[1]

    openings, (mine, theirs) = play(jax.random.key(7))
    return world, openings, mine, theirs


def check(name: str, steps: int, **options):
    world, (start, seen, state, first), mine, theirs = both(name, steps, **options)
    states, observation, outcomes, is_terminal, is_last = mine
    after, final, reward, terminated, truncated = (jax.tree.map(np.asarray, x) for x in theirs)
    (modality_name, modality) = world.spec.observation[0]
    on = ~(terminated | truncated)
    assert on.any() or name == 'SimpleBandit-bsuite'
    jax.tree.map(np.testing.assert_array_equal, state, start)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[on], b[on], rtol=1e-5, atol=1e-6), states, after)
    np.testing.assert_array_equal(first[modality_name].reshape(-1), np.ravel(seen))
    shown = np.asarray(observation[modality_name])
    np.testing.assert_allclose(shown.reshape(steps, -1), final.reshape(steps, -1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outcomes['reward'], reward, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(is_terminal, terminated)
    np.testing.assert_array_equal(is_last, terminated | truncated)
    np.testing.assert_array_equal(outcomes['discount'], 1.0 - terminated)
    assert shown.dtype == modality.dtype
    assert shown.shape[1:] == modality.shape
    if modality.kind == 'grid':
        assert (shown < np.array(modality.classes)).all()
        assert len(np.unique(shown)) > 1
    return terminated, truncated


@pytest.mark.parametrize('name', QUICK)
def test_steps_are_gymnax_own(name):
    terminated, truncated = check(name, 400)
    if name in ('Breakout-MinAtar', 'Catch-bsuite', 'MemoryChain-bsuite', 'FrozenLake-misc'):
        assert terminated.any()
        assert not truncated.any()
    if name == 'Pendulum-v1':
        assert np.flatnonzero(truncated).tolist() == [199, 399]
        assert not terminated.any()


@pytest.mark.slow
@pytest.mark.parametrize('name', SLOW)
def test_other_steps_are_gymnax_own(name):
    check(name, 300)


def test_pictures_of_four_rooms_are_a_grid():
    world = worlds.make('gymnax/FourRooms-misc', 1, use_visual_obs=True)
    assert world.spec.observation[0][1].shape == (13, 13, 2)
    check('FourRooms-misc', 60, use_visual_obs=True)


def test_time_out_is_last_but_not_terminal():
    terminated, truncated = check('Breakout-MinAtar', 40, max_steps=4)
    assert not terminated.any(), 'the ball needs longer than that to fall'
    assert np.flatnonzero(truncated).tolist() == [*range(3, 40, 4)]
    world = worlds.make('gymnax/Breakout-MinAtar', 1, max_steps=4)
    assert world.max_steps == 4


def test_both_ends_at_once_are_terminal():
    # DeepSea ends at the bottom, after as many steps as its own time limit.
    terminated, truncated = check('DeepSea-bsuite', 24)
    assert np.flatnonzero(terminated).tolist() == [7, 15, 23]
    assert np.flatnonzero(truncated).tolist() == [7, 15, 23]


@pytest.mark.slow
def test_every_environment_has_the_shapes_it_says():
    names = worlds.names('gymnax')
    assert len(names) >= 25
    assert 'gymnax/MNISTBandit-bsuite' not in names
    for name in names:
        world = worlds.make(name, 2)
        action = jnp.asarray(world.spec.action.null((2,)))
        state, seen = jax.eval_shape(world.reset, jax.random.key(0))
        after, then, outcomes, is_terminal, is_last = jax.eval_shape(world.step, state, action, jax.random.key(0))
        same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), (state, seen), (after, then))
        assert all(jax.tree.leaves(same)), name
        for key, modality in world.spec.observation:
            assert seen[key].shape == (2, *modality.shape), name
            assert seen[key].dtype == modality.dtype, name
        assert set(outcomes) == set(world.spec.outcomes)
        assert is_terminal.dtype == is_last.dtype == bool
        assert world.spec.action.names == () or len(world.spec.action.names) == world.spec.action.size
        assert jax.eval_shape(world.truth, state)['codes'].dtype == jnp.int32


def test_the_loop_plays_it():
    world = worlds.make('gymnax/Breakout-MinAtar', 4, max_steps=30)
    pool = interaction.prepare(world, jax.random.key(0), 8)
    _, records = interaction.interact(world, Random(world.spec.action), None, jax.random.key(1), 64, pool)
    grid = np.asarray(records['observation']['grid'])
    assert grid.shape == (64, 4, 10, 10, 4)
    first = np.asarray(records['is_first'])
    assert (grid[first][:, 1:4, :, 3] == 1).all(), 'an opening has all three rows of bricks'
    assert np.asarray(records['is_terminal']).any()
    assert (np.asarray(records['reward']) > 0).any()


def test_codes_tell_openings_apart():
    world = worlds.make('gymnax/MetaMaze-misc', 64)
    state, _ = jax.jit(world.reset)(jax.random.key(0))
    truth = jax.jit(world.truth)(state)
    goals = {tuple(goal) for goal in np.asarray(truth['goal']).tolist()}
    assert len({codes.tobytes() for codes in np.asarray(truth['codes'])}) == len(goals) > 10


def test_a_longer_chain_is_asked_before_its_time_is_out():
    world = worlds.make('gymnax/MemoryChain-bsuite', 1, memory_length=1500)
    assert world.max_steps == 1501


def test_chains_of_many_lengths():
    world = worlds.make('gymnax/MemoryChain-bsuite', 256, memory_length=64, shortest=4)
    state, _ = jax.jit(world.reset)(jax.random.key(0))
    length = np.asarray(jax.jit(world.truth)(state)['memory_length'])
    assert length.min() >= 4
    assert length.max() <= 64
    share = np.histogram(np.log2(length), [2, 3, 4, 5, 6.1])[0] / 256
    assert (share > 0.15).all(), 'as many from 4 to 8 as from 32 to 64'
    pool = interaction.prepare(world, jax.random.key(0), 256)
    _, records = interaction.interact(world, Random(world.spec.action), None, jax.random.key(1), 160, pool)
    records = jax.tree.map(np.asarray, records)
    paid, last = records['reward'] != 0, records['is_terminal']
    for lane in range(256):
        starts, ends = np.flatnonzero(records['is_first'][:, lane]), np.flatnonzero(last[:, lane])
        clock = records['observation']['vector'][:, lane, 0]
        for start, end in zip(starts, ends, strict=False):
            ticks = end - start
            assert 4 <= ticks - 1 <= 64
            # The opening's frame is shown twice.
            np.testing.assert_allclose(np.diff(clock[start + 1 : end]), -1 / (ticks - 1), atol=1e-5)
            assert paid[start:end, lane].sum() == 1
    same = worlds.make('gymnax/MemoryChain-bsuite', 2, memory_length=7, shortest=7)
    assert (np.asarray(same.truth(same.reset(jax.random.key(0))[0])['memory_length']) == 7).all()


def test_actions_are_named():
    assert worlds.make('gymnax/SpaceInvaders-MinAtar', 1).spec.action.names == ('noop', 'left', 'right', 'fire')
    every = worlds.make('gymnax/Breakout-MinAtar', 1, use_minimal_action_set=False)
    assert every.spec.action.names == ('noop', 'left', 'up', 'right', 'down', 'fire')
    pendulum = worlds.make('gymnax/Pendulum-v1', 1).spec.action
    assert (pendulum.kind, pendulum.size, pendulum.low, pendulum.high) == ('continuous', 1, -2.0, 2.0)


@pytest.mark.parametrize(
    ('name', 'options', 'sentence'),
    [
        ('gymnax/Brekout-MinAtar', {}, "did you mean 'gymnax/Breakout-MinAtar'"),
        ('gymnax/MemoryChain-bsuite', {'memory_lenght': 3}, "did you mean 'memory_length'"),
        ('gymnax/MemoryChain-bsuite', {'memory_length': 'long'}, 'give a whole number'),
        ('gymnax/MemoryChain-bsuite', {'memory_length': 5, 'shortest': 6}, 'at least the shortest'),
        ('gymnax/Catch-bsuite', {'shortest': 6}, "has no option 'shortest'"),
        ('gymnax/Breakout-MinAtar', {'max_steps': 0}, 'at least 1'),
        ('gymnax/MetaMaze-misc', {'maze_size': 8}, 'gymnax cannot make MetaMaze-misc with maze_size=8'),
        ('gymnax/FrozenLake-misc', {'map_name': '5x5'}, "map_name must be '4x4' or '8x8'"),
    ],
)
def test_errors_say_what_to_do(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        worlds.make(name, 1, **options)
