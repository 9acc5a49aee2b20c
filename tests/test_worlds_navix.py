"""navix behind the World protocol: its own picture, its ends, its names."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels import interaction, worlds
from worldmodels.control.random import Random
from worldmodels.control.scripted import Scripted, distances
from worldmodels.worlds import tiles

NAME = 'navix/DoorKey-Random-6x6'


@functools.cache
def played():
    """States on the way of a noisy scripted player: eight lanes, 25 ticks, joined."""
    world = worlds.make(NAME, 8, observation='symbolic')
    policy = Scripted(world.spec.action, noise=0.2)
    reset, step, truth = jax.jit(world.reset), jax.jit(world.step), jax.jit(world.truth)
    act = jax.jit(policy)
    state, _ = reset(jax.random.key(3))
    states, truths = [state], [truth(state)]
    for t in range(24):
        key = jax.random.fold_in(jax.random.key(4), t)
        action, _, _ = act(None, Now(truths[-1]), (), jax.random.split(key, 8))
        state, *_ = step(state, action, key)
        states.append(state)
        truths.append(truth(state))
    return jax.tree.map(lambda *x: jnp.concatenate(x), *states), jax.tree.map(lambda *x: np.concatenate(x), *truths)


@flax.struct.dataclass
class Now:
    truth: dict


def mine(view: str, observation: str):
    world = worlds.make(NAME, 1, view=view, observation=observation)
    (state, _), _ = played()
    seen = jax.jit(jax.vmap(world.single.observe))(state)
    for name, modality in world.spec.observation:
        assert seen[name].shape[1:] == modality.shape
        assert seen[name].dtype == modality.dtype
    return np.asarray(seen['image' if observation == 'rgb' else 'grid'])


def navix_own(kind: str):
    """The same states drawn by navix itself."""
    import navix
    from navix.rendering.cache import RenderingCache

    draw = getattr(navix.observations, kind)

    @jax.jit
    @jax.vmap
    def one(state):
        return draw(state.replace(cache=RenderingCache.init(state.grid)))

    return np.asarray(one(played()[0][0]))


def test_states_show_everything():
    _, truth = played()
    assert (truth['pocket'] >= 0).any()
    assert (~truth['closed'].any((1, 2))).any()
    assert (~truth['goal'].any((1, 2))).any(), 'nobody stands on the goal'


def test_full_picture_is_navix_own():
    np.testing.assert_array_equal(mine('full', 'rgb'), navix_own('rgb'))


def test_partial_picture_is_navix_own_but_for_the_key_in_the_pocket():
    differs = (mine('partial', 'rgb') != navix_own('rgb_first_person')).reshape((-1, 7, 8, 7, 8, 3)).any((2, 4, 5))
    _, truth = played()
    away = ~truth['key'].any((1, 2))
    # navix puts what is carried into a corner of the wall, where one sees through then: the corner and its neighbours.
    assert not differs[~away].any()
    assert differs[away].sum((1, 2)).max() <= 3


def test_symbols_are_navix_own_but_for_the_key_in_the_pocket():
    theirs = navix_own('symbolic').copy()
    theirs[:, 0, -1] = (2, 5, 0)
    np.testing.assert_array_equal(mine('full', 'symbolic'), theirs)
    assert (theirs < np.array(tiles.CLASSES)).all()


def test_time_out_is_last_but_not_terminal_and_nothing_resets():
    world = worlds.make('navix/Empty-5x5', 2, observation='symbolic', max_steps=3)
    step = jax.jit(world.step)
    state, first = jax.jit(world.reset)(jax.random.key(0))
    done = jnp.full((2,), world.spec.action.names.index('done'))
    for t in range(1, 6):
        state, seen, outcomes, is_terminal, is_last = step(state, done, jax.random.key(t))
        assert not is_terminal.any()
        assert bool(is_last.all()) == (t >= 3)
        assert (outcomes['discount'] == 1).all()
        np.testing.assert_array_equal(seen['grid'], first['grid'])


def test_goal_is_terminal_and_pays():
    world = worlds.make('navix/Empty-5x5', 1, observation='symbolic')
    state, _ = jax.jit(world.reset)(jax.random.key(0))
    step = jax.jit(world.step)
    # From (1, 1) facing east to the goal at (3, 3).
    for name in ('forward', 'forward', 'rotate_cw', 'forward', 'forward'):
        state, _, outcomes, is_terminal, is_last = step(
            state, jnp.array([world.spec.action.names.index(name)]), jax.random.key(0)
        )
    assert (outcomes['reward'][0], outcomes['discount'][0], bool(is_terminal[0]), bool(is_last[0])) == (
        1,
        0,
        True,
        True,
    )


def test_lava_is_a_cost():
    world = worlds.make('navix/LavaGapS5', 1, observation='symbolic')
    assert world.spec.outcomes == ('reward', 'discount', 'lava')
    reset, step = jax.jit(world.reset), jax.jit(world.step)
    forward = jnp.array([world.spec.action.names.index('forward')])
    fell = False
    for seed in range(6):  # the gap is in the first row in a third of the layouts
        state, _ = reset(jax.random.key(seed))
        for _ in range(2):
            state, _, outcomes, is_terminal, _ = step(state, forward, jax.random.key(0))
            if outcomes['lava'][0]:
                fell = True
                assert is_terminal[0]
                assert outcomes['reward'][0] == 0
                assert outcomes['discount'][0] == 0
                break
    assert fell


def test_a_lane_does_not_depend_on_the_batch():
    one, three = (worlds.make('navix/Empty-Random-5x5', n, observation='symbolic') for n in (1, 3))
    a, b = jax.jit(one.reset)(jax.random.key(5))[1], jax.jit(three.reset)(jax.random.key(5))[1]
    np.testing.assert_array_equal(a['grid'][0], b['grid'][0])


@pytest.mark.parametrize(
    ('name', 'options', 'sentence'),
    [
        ('DoorKey-8x8', {}, "did you mean 'navix/DoorKey-8x8'"),
        ('navix/DorKey-8x8', {}, "did you mean 'navix/DoorKey-8x8'"),
        ('navix/Empty-5x5', {'veiw': 'full'}, "did you mean 'view'"),
        ('navix/Empty-5x5', {'view': 'side'}, 'full | partial'),
        ('navix/Empty-5x5', {'max_steps': 0}, 'at least 1'),
    ],
)
def test_errors_say_what_to_do(name, options, sentence):
    with pytest.raises(ValueError, match=sentence.replace('|', r'\|')):
        worlds.make(name, 1, **options)


def test_distances_by_hand():
    # One row: target, floor, floor, wall, floor; closed by walls around it.
    open_BHW = jnp.zeros((1, 3, 7), bool).at[0, 1, 1:6].set(jnp.array([True, True, True, False, True]))
    target_BHW = jnp.zeros_like(open_BHW).at[0, 1, 1].set(True)
    row = distances(open_BHW, target_BHW)[0, 1]
    assert row[1:4].tolist() == [0, 1, 2]
    assert (row[4:6] > 1000).all()


def test_scripted_solves_every_layout():
    world = worlds.make('navix/DoorKey-6x6', 16, observation='symbolic')
    pool = interaction.prepare(world, jax.random.key(1), 32)
    policy = Scripted(world.spec.action)
    _, records = interaction.interact(world, policy, None, jax.random.key(2), 40, pool)
    # The longest way in a 6x6 grid is under 30 steps.
    assert (np.asarray(records['is_terminal']).sum(0) >= 1).all()
    assert not np.asarray(records['is_last'] & ~records['is_terminal']).any()


def test_scripted_refuses_a_world_it_cannot_play():
    from worldmodels.types import ActionSpace

    with pytest.raises(ValueError, match='has no forward'):
        Scripted(ActionSpace('discrete', 2, ('left', 'right')))
    Random(ActionSpace('discrete', 2))
