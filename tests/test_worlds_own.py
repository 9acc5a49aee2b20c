"""A world of one's own, by its import path: it is played as any other, and what is wrong with it is said before."""

import re
import textwrap

import jax
import numpy as np
import pytest
from test_collect import read

from worldmodels import interaction, worlds
from worldmodels.control.random import Random
from worldmodels.data import collect
from worldmodels.worlds.host import Host

WALK = """
    import jax
    import jax.numpy as jnp
    from worldmodels.types import ActionSpace, Modality, Spec

    class Walk:
        '''A walk on a line: it ends at either end.'''

        def __init__(self, length=9, max_steps=30):
            self.length, self.max_steps = length, max_steps
            self.spec = Spec((('place', Modality('grid', (1, 1, 1), (length,))),), ActionSpace('discrete', 2))

        def reset(self, key):
            place = jax.random.randint(key, (), 1, self.length - 1)
            state = {'place': place, 'steps': jnp.int32(0)}
            return state, self.observe(state)

        def step(self, state, action, key):
            state = {'place': state['place'] + 2 * action - 1, 'steps': state['steps'] + 1}
            over = (state['place'] == 0) | (state['place'] == self.length - 1)
            outcomes = {'reward': over.astype(jnp.float32), 'discount': 1.0 - over}
            return state, self.observe(state), outcomes, over, over | (state['steps'] >= self.max_steps)

        def observe(self, state):
            return {'place': state['place'].astype(jnp.uint8).reshape(1, 1, 1)}
"""

STAIRS = """
    import os
    import gymnasium
    import numpy as np

    class Stairs(gymnasium.Env):
        '''Counts up to `top`; falls where a file 'ice' lies in the current folder and anybody is on the third step.'''

        metadata = {'render_modes': ['rgb_array']}

        def __init__(self, render_mode=None, top=6):
            self.render_mode, self.top = render_mode, top
            self.observation_space = gymnasium.spaces.Box(0, 99, (2,), np.float32)
            self.action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.height, self.start = 0, int(self.np_random.integers(99))
            return self.see(), {}

        def step(self, action):
            if self.height == 3 and os.path.exists('ice'):
                raise RuntimeError('slipped')
            self.height += 1
            return self.see(), float(action), self.height == self.top, False, {'tired': 0.5}

        def see(self):
            return np.array([self.start, self.height], np.float32)

        def render(self):
            return np.full((20, 30, 3), 10 * self.height, np.uint8)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, request):
    """The current folder, with a package of worlds of a name that no other test uses."""
    name = f'own_{abs(hash(request.node.name))}'
    (tmp_path / name).mkdir()
    (tmp_path / name / 'walks.py').write_text(textwrap.dedent(WALK))
    (tmp_path / name / 'stairs.py').write_text(textwrap.dedent(STAIRS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path, name


def test_a_functional_world_is_collected(folder):
    path, name = folder
    settings = collect.Settings(
        world=f'{name}.walks:Walk', options=(('length', '5'),), policy=(('random', 1.0),), noise=0.0, steps=300,
        validation=4, lanes=4, seed=0,
    )  # fmt: skip
    assert settings.options == (('length', 5), ('max_steps', 30))
    metadata = collect.collect(str(path / 'data'), settings, {})
    assert metadata['split']['by'] == 'episodes', 'there are three openings'
    for episode in read(str(path / 'data'), 'train'):
        place = episode['observation']['place'].ravel().astype(int)
        np.testing.assert_array_equal(np.diff(place), 2 * episode['action'][:-1] - 1)
        np.testing.assert_array_equal(episode['is_terminal'], (place == 0) | (place == 4))


def test_a_gymnasium_world_is_played(folder):
    _, name = folder
    world = worlds.make(f'{name}.stairs:Stairs', 2, top=4, costs='tired', max_steps='3')
    assert isinstance(world, Host)
    assert world.spec.outcomes == ('reward', 'discount', 'tired')
    _, r = interaction.play(world, Random(world.spec.action), None, jax.random.key(0), 9)
    assert r['observation']['vector'][..., 1].T.tolist() == [[0, 1, 2, 3] * 2 + [0]] * 2
    np.testing.assert_array_equal(r['reward'], r['action'])
    np.testing.assert_array_equal(r['tired'], np.where(r['is_last'], 0, 0.5))
    seen = worlds.make(f'{name}.stairs:Stairs', 1, render=True, size=8)
    seen.reset(jax.random.key(0))
    assert seen.step(np.array([0]))[0]['image'][0].tolist() == [[[10] * 3] * 8] * 8
    hungry = worlds.make(f'{name}.stairs:Stairs', 1, costs='hungry')
    hungry.reset(jax.random.key(0))
    with pytest.raises(ValueError, match="info has no 'hungry' to take as a cost, only tired"):
        hungry.step(np.array([0]))


def test_a_world_that_raises_loses_one_chunk_and_the_same_command_goes_on(folder):
    path, name = folder
    settings = collect.Settings(
        world=f'{name}.stairs:Stairs', options=(), policy=(('random', 1.0),), noise=0.0, steps=8200, validation=3,
        lanes=2, seed=0, split='openings',
    )  # fmt: skip
    assert (settings.chunks, settings.ticks) == (2, 2050)
    data = str(path / 'data')

    def ice(stage, done, total):
        if done == 2 * 2060:  # in the second chunk
            (path / 'ice').touch()

    sentence = (
        rf'{name}.stairs:Stairs raised RuntimeError: slipped, at step \d+ of chunk 1 of train: its \d+ frames are '
        rf'dropped, the chunks finished before \(1\) are kept in {re.escape(data)}.parts; mend the world'
    )
    with pytest.raises(ValueError, match=sentence):
        collect.collect(data, settings, {}, ice)
    assert sorted(p.name for p in (path / 'data.parts').glob('*.npz')) == ['train-00000.npz']
    (path / 'ice').unlink()
    metadata = collect.collect(data, settings, {})
    assert metadata['settings']['split'] == metadata['split']['by'] == 'openings'
    openings = {s: {e['observation']['vector'][0, 0] for e in read(data, s)} for s in ('train', 'validation')}
    assert not openings['train'] & openings['validation']
    assert len(openings['train']) > 40


WRONG = [
    (
        'self.observe(state), outcomes, over, over |',
        'outcomes, over, over |',
        'gives 4 values: give state, observation',
    ),
    (
        "{'place': state['place'].astype(jnp.uint8)",
        "{'place': state['place'].astype(jnp.int32)",
        'gives the observation',
    ),
    (
        "'discount': 1.0 - over}",
        "'discount': 1.0 - over, 'cost': 1.0}",
        'gives the outcomes cost, discount, reward, its',
    ),
    ("over.astype(jnp.float32), 'd", "over, 'd", r'gives reward as bool \(\): give float32'),
    ("+ 2 * action - 1, 's", "+ 2.0 * action - 1, 's", 'gives a state of another form'),
    ('def step(', 'def stop(', 'has no step: a world has spec, reset'),
    ("state['steps'] + 1", "state['stops'] + 1", r"failed under jax.jit with KeyError: 'stops'"),
    ('length=9', 'length', 'whose argument length has no default'),
    ('self.spec = Spec(', 'self.spec = tuple(', r'spec is a tuple|making it failed'),
    ('self.length, self.max_steps =', 'self.length, self.max = length / 0,', 'failed with ZeroDivisionError'),
]


@pytest.mark.parametrize(('right', 'wrong', 'sentence'), WRONG, ids=[s[:24] for *_, s in WRONG])
def test_what_is_wrong_is_said(folder, right, wrong, sentence):
    path, name = folder
    assert right in WALK
    (path / name / 'walks.py').write_text(textwrap.dedent(WALK.replace(right, wrong)))
    with pytest.raises(ValueError, match=sentence):
        worlds.make(f'{name}.walks:Walk', 1)


def test_what_is_not_there_is_said(folder):
    _, name = folder
    for world, sentence in (
        (f'{name}.walks:Wolk', "did you mean 'Walk'"),
        (f'{name}.walk:Walk', f"no module '{name}.walk' is installed or lies in the current folder"),
        (f'{name}.walks:jnp', 'a module: name a class or a function'),
    ):
        with pytest.raises(ValueError, match=sentence):
            worlds.make(world, 1)
    with pytest.raises(ValueError, match="has no option 'lenght': did you mean 'length'"):
        worlds.make(f'{name}.walks:Walk', 1, lenght=3)
