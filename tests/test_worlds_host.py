"""Worlds outside JAX: nothing is off by one where episodes meet, and a policy meets them as it meets any world."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_worlds_interaction import Calls, Counter, world

from worldmodels import interaction, rng, worlds
from worldmodels.control.mixture import Mixture
from worldmodels.control.random import Random
from worldmodels.control.sticky import Sticky
from worldmodels.types import ActionSpace
from worldmodels.worlds.host import Host, TooFewOpenings

KEY = jax.random.key(1)


class Outside(Host):
    """The JAX world of test_worlds_interaction played from outside, with the openings the scan would draw."""

    def __init__(self, pool, start_key):
        super().__init__(world.spec, world.batch, None)
        self.pool, self.start_key, self.t = pool, start_key, 0
        self.world_step, self.opened = jax.jit(world.step), jax.jit(self.open)

    def reset(self, key):
        self.t, self.state = 0, self.opened(rng.per_example(key, 0, jnp.arange(self.batch)))
        self._over_B[:] = False
        return self.seen()

    def open(self, keys_B):
        size = self.pool['observation']['vector'].shape[0]
        chosen_B = rng.draw(lambda key: jax.random.randint(key, (), 0, size), keys_B)
        return jax.tree.map(lambda x: x[chosen_B], self.pool['state'])

    def seen(self):
        return {k: np.asarray(x) for k, x in jax.vmap(Counter().observe)(self.state).items()}

    def _step(self, action_B, fresh_B):
        state, _, outcomes, terminal_B, last_B = self.world_step(self.state, action_B, KEY)
        opening = self.opened(rng.per_example(self.start_key, self.t, jnp.arange(self.batch)))
        self.state = jax.tree.map(lambda new, went_on: jnp.where(fresh_B, new, went_on), opening, state)
        self.t += 1
        terminal_B, last_B = np.asarray(terminal_B), np.asarray(last_B)
        return self.seen(), {'reward': np.asarray(outcomes['reward'])}, terminal_B, last_B & ~terminal_B


def outside(pool_size=12):
    pool = interaction.prepare(world, jax.random.key(0), pool_size)
    return Outside(pool, rng.split(KEY, 3)[2]), pool


@pytest.mark.parametrize('policy', [Calls(), Sticky(Counter.spec.action)], ids=['calls', 'sticky'])
def test_outside_and_scanned_are_the_same_records(policy):
    hosted, pool = outside()
    _, scanned = interaction.interact(world, policy, None, KEY, 23, pool)
    playing, played = interaction.play(hosted, policy, None, KEY, 11)
    _, rest = interaction.play(hosted, policy, None, KEY, 12, playing)
    assert played['is_first'].sum() > 6, 'some episodes end and begin'
    assert jax.tree.structure(scanned) == jax.tree.structure(played)
    jax.tree.map(lambda w, a, b: np.testing.assert_array_equal(w, np.concatenate([a, b])), scanned, played, rest)


def test_the_policy_is_traced_once():
    traces = []

    class Counted(Calls):
        def __call__(self, *args):
            traces.append(1)
            return super().__call__(*args)

    hosted, _ = outside()
    policy = Mixture.weighted((Counted(), Sticky(Counter.spec.action)), (0.5, 0.5), 6)
    playing, _ = interaction.play(hosted, policy, None, KEY, 5)
    interaction.play(hosted, policy, None, KEY, 5, playing)
    interaction.play(hosted, policy, None, jax.random.key(2), 5)
    assert len(traces) == 1


def test_what_a_world_raises_comes_with_its_step():
    hosted, _ = outside()
    usual = hosted._step

    def broken(action_B, fresh_B):
        if hosted.t == 3:
            raise ZeroDivisionError('by nothing')
        return usual(action_B, fresh_B)

    hosted._step = broken
    with pytest.raises(interaction.WorldRaised, match='ZeroDivisionError: by nothing') as raised:
        interaction.play(hosted, Calls(), None, KEY, 9)
    assert raised.value.tick == 3


class Lottery(Host):
    """Every opening is the next number of a lane's own count; time is out after two actions."""

    def __init__(self, batch):
        super().__init__(Counter.spec, batch, 2)

    def _reset(self, seeds_B):
        self.drawn_B = np.zeros((self.batch,), int)
        return self.seen()

    def seen(self):
        return {'vector': np.stack([self.drawn_B, self._age_B], axis=1).astype(np.float32)}

    def _step(self, action_B, fresh_B):
        self.drawn_B = self.drawn_B + fresh_B
        false_B = np.zeros((self.batch,), bool)
        return self.seen(), {'reward': np.ones(self.batch)}, false_B, false_B

    def _again(self, mask_B):
        self.drawn_B = self.drawn_B + mask_B
        return self.seen()


def test_only_openings_that_are_kept_begin_an_episode():
    hosted = Lottery(3)
    hosted.keep = lambda observation: observation['vector'][0] % 4 == 1
    _, records = interaction.play(hosted, Calls(), None, KEY, 9)
    openings = records['observation']['vector'][..., 0][records['is_first']].reshape(3, 3)
    assert openings.tolist() == [[1, 1, 1], [5, 5, 5], [9, 9, 9]]
    assert hosted.refused == 3 * (1 + 3 + 3 + 3), 'the opening after the last record was drawn too'
    assert records['is_last'].tolist() == [[t % 3 == 2] * 3 for t in range(9)]
    assert records['reward'].tolist() == [[float(t % 3 != 2)] * 3 for t in range(9)]
    hosted.keep = lambda observation: False
    with pytest.raises(interaction.WorldRaised) as raised:
        interaction.play(hosted, Calls(), None, KEY, 9)
    assert isinstance(raised.value.error, TooFewOpenings)


def breakout(batch=2, **options):
    return worlds.make('atari/Breakout', batch, **options)


@pytest.fixture(scope='module')
def atari():
    """Two lanes of 400 random frames."""
    played = breakout()
    policy = Random(played.spec.action)
    return policy, interaction.play(played, policy, None, KEY, 400)[1]


def test_atari_records(atari):
    _, r = atari
    assert r['observation']['image'].shape == (400, 2, 64, 64, 3)
    assert breakout().spec.action == ActionSpace('discrete', 4, ('noop', 'fire', 'right', 'left'))
    assert r['is_first'].sum() >= 4
    for lane in range(2):
        first = np.flatnonzero(r['is_first'][:, lane])
        last = np.flatnonzero(r['is_last'][:, lane])
        assert first[0] == 0
        np.testing.assert_array_equal(first[1:], last[: len(first) - 1] + 1)
        for start, stop in zip(first, last):
            # The fifth life ends the game, and with it the episode: no life ends one.
            assert r['life_lost'][start : stop + 1, lane].sum() == 5
            assert r['life_lost'][stop - 1, lane] == 1
            assert r['is_terminal'][start : stop + 1, lane].tolist() == [False] * (stop - start) + [True]
            assert r['discount'][stop - 1, lane] == 0
            assert r['discount'][start : stop - 1, lane].all()
            np.testing.assert_array_equal(
                r['observation']['image'][start, lane], r['observation']['image'][0, lane], 'Breakout opens alike'
            )
    assert r['reward'].sum() > 0


def test_atari_is_a_function_of_the_key(atari):
    policy, r = atari
    again = breakout()
    interaction.play(again, policy, None, jax.random.key(8), 30)
    _, same = interaction.play(again, policy, None, KEY, 120)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:120], b), r, same)
    _, other = interaction.play(breakout(sticky=0.25), policy, None, KEY, 120)
    assert (other['observation']['image'] != same['observation']['image']).any()


def area(size):
    """(64, size): how much of each of `size` pixels lies in each of 64."""
    edges = np.arange(65) * size / 64
    low, high = (np.clip(e[:, None] - np.arange(size), 0, 1) for e in (edges[:-1], edges[1:]))
    return (high - low) * 64 / size


def test_atari_frames_are_the_maximum_of_two_by_area():
    import ale_py
    from ale_py import roms

    played = breakout(1, noops=0)
    played.reset(KEY)
    console = ale_py.ALEInterface()
    console.setFloat('repeat_action_probability', 0.0)
    console.loadROM(roms.get_rom_path('breakout'))
    actions = console.getMinimalActionSet()
    for action in (1, 2, 2, 0, 3, 3, 3, 0):
        frames = []
        for _ in range(4):
            console.act(actions[action])
            frames.append(console.getScreenRGB())
        both = np.maximum(*frames[-2:])
        wanted = np.einsum('yh,hwc,xw->yxc', area(210), both, area(160), optimize=True)
        observation, *_ = played.step(np.array([action]))
        assert np.abs(observation['image'][0] - wanted).max() <= 1


def test_atari_time_is_out_and_a_new_game_begins():
    played = breakout(2, max_steps=6, noops=0)
    _, r = interaction.play(played, Random(played.spec.action), None, KEY, 21)
    assert r['is_first'].tolist() == [[t % 7 == 0] * 2 for t in range(21)]
    assert r['is_last'].tolist() == [[t % 7 == 6] * 2 for t in range(21)]
    assert not r['is_terminal'].any()
    assert not r['life_lost'].any()
    image = r['observation']['image']
    np.testing.assert_array_equal(image[0], image[7])
    np.testing.assert_array_equal(image[0], image[14])


def test_atari_options():
    assert breakout(1, actions='full').spec.action.size == 18
    gray = breakout(1, gray=True, size=32)
    assert gray.reset(KEY)['image'].shape == (1, 32, 32, 1) == (1, *gray.spec.modalities['image'].shape)
    with pytest.raises(ValueError, match="did you mean 'atari/Breakout'"):
        worlds.make('atari/breakout', 1)
    with pytest.raises(ValueError, match='probability'):
        breakout(1, sticky=2.0)
