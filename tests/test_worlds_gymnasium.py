"""Gymnasium environments as worlds: the mapping of spaces, and lanes that play as the environment alone would."""

import re

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from test_worlds_host import area

from worldmodels import interaction, worlds
from worldmodels.control.random import Random
from worldmodels.types import ActionSpace, Modality
from worldmodels.worlds import spaces

KEY = jax.random.key(3)
BYTES = np.arange(24, dtype=np.uint8)


def box(*shape, low=-1.0, high=1.0, dtype=np.float32):
    return Box(low, high, shape, dtype)


def bytes_in(*shape):
    return box(*shape, low=0, high=255, dtype=np.uint8)


@pytest.mark.parametrize(
    ('space', 'given', 'modality', 'read'),
    [
        (bytes_in(4, 6), BYTES.reshape(4, 6), Modality('image', (4, 6, 1)), BYTES),
        (bytes_in(4, 2, 3), BYTES.reshape(4, 2, 3), Modality('image', (4, 2, 3)), BYTES),
        (bytes_in(3, 4, 2), BYTES.reshape(3, 4, 2), Modality('image', (4, 2, 3)), BYTES.reshape(3, 8).T.ravel()),
        (bytes_in(24), BYTES, Modality('vector', (24,)), BYTES),
        (box(2, 3), np.ones((2, 3), np.float32), Modality('vector', (6,)), [1] * 6),
        (box(), np.float64(0.5), Modality('vector', (1,)), [0.5]),
        (Discrete(5, start=2), 6, Modality('grid', (1, 1, 1), (5,)), [4]),
        (MultiDiscrete([3, 9]), [2, 8], Modality('grid', (1, 1, 2), (3, 9)), [2, 8]),
        (MultiBinary(3), [0, 1, 1], Modality('grid', (1, 1, 3), (2, 2, 2)), [0, 1, 1]),
    ],
    ids=str,
)
def test_observations_have_a_form(space, given, modality, read):
    (part,) = spaces.parts(space)
    assert part.modality == modality
    value = part.read(given)
    assert value.shape == modality.shape
    assert value.dtype == modality.dtype
    assert value.ravel().tolist() == list(read)


def test_parts_of_an_observation_are_modalities():
    space = Dict({'eye': bytes_in(4, 6), 'body': Dict({'arm': box(2)}), 'two': Tuple([Discrete(2), Discrete(3)])})
    found = {part.name: part.modality.kind for part in spaces.parts(space)}
    assert found == {'body_arm': 'vector', 'eye': 'image', 'two_0': 'grid', 'two_1': 'grid'}
    value = {'eye': BYTES.reshape(4, 6), 'body': {'arm': [0.5, 1]}, 'two': (1, 2)}
    assert [part.read(value).ravel().tolist() for part in spaces.parts(space, ('two_1', 'body_arm'))] == [[0.5, 1], [2]]
    with pytest.raises(ValueError, match=r"there is no 'ear' to keep, only body_arm, eye, two_0, two_1\."):
        spaces.parts(space, ('ear',))


@pytest.mark.parametrize(
    ('space', 'sentence'),
    [
        (Text(9), 'the observation is in Text('),
        (Dict({'goal': Text(9)}), "'goal' of the observation is in Text"),
        (Discrete(500), 'is one of 500 in Discrete(500), a grid holds at most 256: set render=true'),
        (MultiDiscrete([2], start=[1]), 'do not begin at 0'),
    ],
    ids=str,
)
def test_observations_without_a_form_are_refused(space, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        spaces.parts(space)


@pytest.mark.parametrize(
    ('space', 'value', 'sentence'),
    [
        (box(2), [0.0, np.nan], "'vector' holds NaN or infinity"),
        (box(2), [0.0], r"'vector' has the shape (1,), its space says (2,)"),
        (bytes_in(4, 6), BYTES.reshape(4, 6) / 255, "'image' is float64, its space says uint8"),
        (Discrete(5), 5, "'grid' is [5], outside its space"),
    ],
)
def test_values_outside_their_space_are_refused(space, value, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        spaces.parts(space)[0].read(value)


def test_actions_are_stretched_to_their_bounds():
    uneven = Box(np.array([0, -2], np.float32), np.array([1, 2], np.float32))
    ours, theirs = spaces.action(uneven)
    assert ours == ActionSpace('continuous', 2)
    np.testing.assert_allclose(spaces.raw(np.array([-1, 0.5]), ours, theirs, uneven), [0, 1])
    np.testing.assert_allclose(spaces.raw(np.array([9, -9]), ours, theirs, uneven), [1, -2])
    even = box(2, 2, low=-3, high=3)
    ours, theirs = spaces.action(even)
    assert ours == ActionSpace('continuous', 4, (), -3.0, 3.0)
    np.testing.assert_allclose(spaces.raw(np.arange(4) - 1, ours, theirs, even), [[-1, 0], [1, 2]])
    ours, theirs = spaces.action(Discrete(3, start=5))
    assert (ours, spaces.raw(np.int32(2), ours, theirs, None)) == (ActionSpace('discrete', 3), 7)
    for space, sentence in ((MultiBinary(2), 'have no form here'), (box(1, high=np.inf), 'have no bounds')):
        with pytest.raises(ValueError, match=sentence):
            spaces.action(space)


@pytest.mark.parametrize('shape', [(210, 160, 3), (64, 100, 1), (30, 50, 3)])
def test_pictures_are_resized_by_area(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    wanted = np.einsum('yh,hwc,xw->yxc', area(shape[0]), picture, area(shape[1]), optimize=True)
    assert np.abs(spaces.resized(picture, 64) - wanted).max() <= 0.5 + 1e-6


@pytest.mark.parametrize('processes', [False, True], ids=['here', 'processes'])
def test_a_lane_plays_as_the_environment_alone(processes):
    """Frame by frame against a loop written out, through several episodes; time is out after 15 actions."""
    world = worlds.make('gymnasium/CartPole-v1', 3, max_steps=15, processes=processes)
    seeds = []
    usual = world._reset
    world._reset = lambda seeds_B: seeds.extend(seeds_B.tolist()) or usual(seeds_B)
    _, r = interaction.play(world, Random(world.spec.action), None, KEY, 60)
    world.close()
    assert r['is_terminal'].sum() > 2
    assert (r['is_last'] & ~r['is_terminal']).sum() > 2
    for lane in range(3):
        env = gymnasium.make('CartPole-v1', max_episode_steps=15)
        observation, _ = env.reset(seed=seeds[lane])
        first, last, terminal = True, False, False
        for t in range(60):
            row = {k: r[k][t, lane] for k in ('is_first', 'is_last', 'is_terminal', 'reward', 'discount', 'action')}
            np.testing.assert_array_equal(r['observation']['vector'][t, lane], observation)
            assert (row['is_first'], row['is_last'], row['is_terminal']) == (first, last, terminal)
            if last:
                assert (row['action'], row['reward'], row['discount']) == (0, 0, 0)
                (observation, _), first, last, terminal = env.reset(), True, False, False
                continue
            observation, reward, terminal, truncated, _ = env.step(int(row['action']))
            assert (row['reward'], row['discount']) == (reward, 1 - terminal)
            first, last = False, terminal or truncated


def test_what_it_renders_is_the_observation():
    world = worlds.make('gymnasium/FrozenLake-v1', 2, render='true', is_slippery=False)
    assert world.spec.observation == (('image', Modality('image', (64, 64, 3))),)
    _, r = interaction.play(world, Random(world.spec.action), None, KEY, 12)
    env = gymnasium.make('FrozenLake-v1', render_mode='rgb_array', is_slippery=False)
    env.reset()
    np.testing.assert_array_equal(r['observation']['image'][0, 0], spaces.resized(env.render(), 64))
    went = r['observation']['image'].reshape(12, -1)
    assert (went[1:] != went[:-1]).any()


def test_names_and_options():
    known = worlds.options('gymnasium/FrozenLake-v1')
    assert (known['is_slippery'].default, known['map_name'].default) == (True, '4x4')
    assert {'max_steps', 'render', 'size', 'modalities', 'costs', 'processes'} <= set(known)
    names = worlds.names('gymnasium')
    assert 'gymnasium/CartPole-v1' in names
    assert not [name for name in names if 'Breakout' in name], 'those are of the family atari'
    assert worlds.make('gymnasium/gymnasium:Pendulum-v1', 1).max_steps == 200
    for name, sentence in (
        ('gymnasium/CartPol-v1', "did you mean 'gymnasium/CartPole-v1'"),
        ('gymnasium/nowhere:CartPole-v1', 'There is no world'),
        ('gymnasium/Taxi-v4', 'gymnasium/Taxi-v4 cannot be played: the observation is one of 500'),
    ):
        with pytest.raises(ValueError, match=sentence):
            worlds.make(name, 1)


def test_crafter():
    world = worlds.make('crafter/Crafter', 2, max_steps=150)
    policy = Random(world.spec.action)
    assert world.spec.action.names[:2] == ('noop', 'move_left')
    _, r = interaction.play(world, policy, None, KEY, 160)
    assert r['observation']['image'].shape == (160, 2, 64, 64, 3)
    assert (r['observation']['image'][0, 0] != r['observation']['image'][0, 1]).any(), 'each lane has its own terrain'
    # 1 for each achievement, and 0.1 for health won and lost: what is not achieved or lost was won back.
    won = r['reward'] - r['achievements'] + 0.1 * r['damage']
    assert r['achievements'].sum() > 0
    assert won.min() > -1e-6
    assert set(np.round(10 * won.ravel(), 3).tolist()) <= {0.0, 1.0}
    again = worlds.make('crafter/Crafter', 2, max_steps=150)
    _, same = interaction.play(again, policy, None, KEY, 60)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:60], b), r, same)
