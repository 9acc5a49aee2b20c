"""Planning in the dream: the best action is found, the belief is that of `observe`, and a checkpoint plays."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import models
import numpy as np
import optax
import pytest

from worldmodels import interaction, rng, rollout, worlds
from worldmodels.build import abstract_variables, build_model
from worldmodels.control.planner import Planner
from worldmodels.data import collect, episodes
from worldmodels.evaluation.examine import Trained
from worldmodels.training import checkpoint, parallel
from worldmodels.training import config as configs
from worldmodels.training.state import create
from worldmodels.types import ActionSpace, Belief, Latent, Modality, Spec, Ticks, select

VERTICALS = {
    'window': ('tokens', 'masked', 'window', 'frame', ('transition', 'outcome'), 'departure'),
    'recurrent': (
        'categorical',
        'categorical',
        'recurrent',
        'prediction',
        ('transition', 'outcome', 'decoder'),
        'arrival',
    ),
}


@dataclasses.dataclass(frozen=True)
class Known:
    """A model one can compute by hand, with the surface of a WorldModel: the latent is the action taken last.

    take     pays 1 and ends the episode; what it would pay after that must not count
    invest   pays nothing, and 3 with whatever comes next
    idle     pays nothing
    """

    spec = Spec((('vector', Modality('vector', (1,))),), ActionSpace('discrete', 3, ('take', 'invest', 'idle')))
    actions = spec.action

    def initial(self, batch):
        return Belief(Latent(None, jnp.zeros((batch, 1, 3))), (), jnp.zeros((batch, 0, 1)))

    def apply(self, variables, belief, action_BA, keys_B, observation=None, is_first_B=None, *, method):
        assert method == 'tick'
        if is_first_B is not None:
            belief = select(is_first_B, self.initial(len(keys_B)), belief)
            action_BA = jnp.where(is_first_B[:, None], 0.0, action_BA)
        before_B3 = belief.z.embedding_BNE[:, 0]
        outcomes = {
            'reward': variables['scale'] * (action_BA[:, 0] + 3 * before_B3[:, 1]),
            'discount': 1 - action_BA[:, 0],
        }
        return belief.replace(z=Latent(None, action_BA[:, None])), SimpleNamespace(outcomes=outcomes)


TAKE, INVEST = 0, 1


@pytest.mark.parametrize(
    ('horizon', 'discount', 'best', 'pays'),
    [
        (1, 1.0, TAKE, 1.0),  # nothing beyond the first action is seen
        (2, 1.0, INVEST, 3 + 1.0),  # 0, then 3 for having invested and 1 for taking: above 1, then nothing more
        (2, 0.2, TAKE, 1.0),  # the same 4, a tick later, are worth 0.8
    ],
)
def test_the_best_first_action_is_found(horizon, discount, best, pays):
    planner = Planner(Known(), horizon, candidates=64, discount=discount)
    # A belief in which nothing was invested. Of 64 random pairs all miss one of the 9 with probability 5e-4.
    belief, keys = Known().initial(4), rng.per_example(jax.random.key(0), 0, jnp.arange(4))
    action_B, state, extras = planner({'scale': 1.0}, belief, 'left alone', keys)
    assert action_B.tolist() == [best] * 4
    assert state == 'left alone'
    np.testing.assert_allclose(extras['planned_return'], pays, rtol=1e-6)


def test_returns_by_hand():
    planner = Planner(Known(), discount=0.5)
    action_BT = jnp.array([[1, 0, 1, 2], [2, 1, 2, 0], [0, 1, 2, 2]])
    keys_BT = rng.per_tick(rng.per_example(jax.random.key(0), 0, jnp.arange(3)), 4)
    returns_B = planner.returns({'scale': 1.0}, Known().initial(3), action_BT, keys_BT)
    # invest, take: 0 + (3 + 1) / 2. idle, invest, idle, take: 3 / 4 + 1 / 8. take: 1, and the 3 of tick 2 are past the end.
    np.testing.assert_allclose(returns_B, [2.0, 0.875, 1.0], rtol=1e-6)


def test_ties_are_broken_at_random():
    planner = Planner(Known(), horizon=1, candidates=8)
    keys = rng.per_example(jax.random.key(0), 0, jnp.arange(600))
    action_B, _, _ = planner({'scale': 0.0}, Known().initial(600), None, keys)
    # A third each: 200, with a standard deviation of 11.5.
    assert np.abs(np.bincount(action_B, minlength=3) - 200).max() < 50


def test_a_row_does_not_know_its_neighbours():
    planner = Planner(Known(), horizon=3, candidates=2)
    keys = rng.per_example(jax.random.key(1), 0, jnp.arange(32))
    action_B, _, _ = planner({'scale': 1.0}, Known().initial(32), None, keys)
    assert len(set(action_B.tolist())) > 1
    alone, _, _ = planner({'scale': 1.0}, Known().initial(5), None, keys[20:25])
    assert alone.tolist() == action_B[20:25].tolist()


def test_an_opening_forgets_what_was_believed():
    planner = Planner(Known(), horizon=1, candidates=2)
    false_B = jnp.zeros(2, bool)
    moment = interaction.Moment(
        observation={'vector': jnp.zeros((2, 1))},
        action=jnp.array([INVEST, INVEST]),
        outcomes={},
        is_first=jnp.array([True, False]),
        is_last=false_B,
        is_terminal=false_B,
        truth={},
    )
    keys = rng.per_example(jax.random.key(1), 0, jnp.arange(2))
    _, state, _ = planner({'scale': 1.0}, moment, planner.initial(2), keys)
    assert state.z.embedding_BNE[:, 0].tolist() == [[0, 0, 0], [0, 1, 0]]


def test_a_plan_of_nothing_is_refused():
    for field in ('horizon', 'candidates'):
        with pytest.raises(ValueError, match=f'{field}=0'):
            Planner(Known(), **{field: 0})


# -- with models -------------------------------------------------------------------------------------------------------


class Screen:
    """Shows a noise of its own for every (start, actions so far); ends after 2 actions, or 3 from even starts."""

    spec = models.SPEC

    def reset(self, key):
        state = {'start': jax.random.randint(key, (), 0, 100), 'count': jnp.int32(0), 'sum': jnp.int32(0)}
        return state, self.observe(state)

    def step(self, state, action, key):
        state = {'start': state['start'], 'count': state['count'] + 1, 'sum': 5 * state['sum'] + action + 1}
        is_last = state['count'] >= 3 - state['start'] % 2
        outcomes = {'reward': 1.0 * action, 'discount': jnp.float32(1)}
        return state, self.observe(state), outcomes, jnp.bool_(False), is_last

    def observe(self, state):
        key = jax.random.fold_in(jax.random.key(state['start']), state['sum'])
        return {'image': jax.random.bits(key, (16, 16, 3), jnp.uint8)}

    def truth(self, state):
        return {}


def some_variables(model):
    """Any values of the right shapes: what a real initialisation would be takes longer to compile than all the rest."""
    shapes = abstract_variables(model)
    draw = np.random.default_rng(0).normal
    return jax.tree.map(lambda x: jnp.asarray(0.3 * draw(size=x.shape), x.dtype), shapes)


@functools.cache
def vertical(name):
    model = models.model(*VERTICALS[name])
    return model, some_variables(model)


@pytest.mark.parametrize('name', VERTICALS)
def test_the_belief_it_carries_is_that_of_observe(name):
    model, variables = vertical(name)
    world, key, T = worlds.lift(Screen(), 4), jax.random.key(2), 8
    planner = Planner(model, horizon=2, candidates=3)
    pool = interaction.prepare(world, jax.random.key(0), 8)
    playing, records = interaction.interact(world, planner, variables, key, T, pool)
    r = rollout.swap({k: v for k, v in records.items() if k != 'extras'})
    assert r['is_first'][:, 1:].any()
    assert not r['is_first'][:, -1].all()
    null_B1 = jnp.full((4, 1), -1)
    led_BT = jnp.where(r['is_first'], -1, jnp.concatenate([null_B1, r['action'][:, :-1]], 1))
    zeros_BT = jnp.zeros((4, T))
    ticks = Ticks(
        r['observation'], led_BT, {'reward': zeros_BT, 'discount': zeros_BT}, r['is_first'], r['is_last'],
        r['is_terminal'], jnp.zeros(4, bool), jnp.arange(4),
    )  # fmt: skip
    # The draws of the filter are those the planner makes: first of two, of each lane's key of each tick.
    act_key = rng.split(key, 3)[0]
    keys_TB = jnp.stack([rng.per_example(act_key, t, jnp.arange(4)) for t in range(T)])
    belief, _ = rollout.observe(model, variables, ticks, rng.split(keys_TB.T, 2)[0], execution='scan')
    here = playing.policy_state
    if belief.z.index_BN is not None:
        np.testing.assert_array_equal(here.z.index_BN, belief.z.index_BN)
    np.testing.assert_allclose(here.context_BMD, belief.context_BMD, rtol=1e-4, atol=1e-5)


def test_it_plans_in_a_dream_as_from_its_belief():
    model, variables = vertical('recurrent')
    planner = Planner(model, horizon=2, candidates=4)
    keys = rng.per_tick(rng.per_example(jax.random.key(5), 0, jnp.arange(3)), 4)
    belief = model.initial(3)
    _, dream = rollout.imagine(model, variables, belief, keys, policy=planner, policy_params=variables)
    assert dream.action.shape == dream.extras['planned_return'].shape == (3, 4)
    act_B = rng.split(keys[:, 0], 2)[0]
    first_B, _, _ = planner(variables, belief, None, act_B)
    np.testing.assert_array_equal(dream.action[:, 0], first_B)


# -- collecting with a checkpoint --------------------------------------------------------------------------------------

SETTINGS = collect.Settings(
    world='navix/Empty-Random-5x5',
    options=(('max_steps', 8),),
    policy=(('checkpoint', 0.5), ('random', 0.5)),
    noise=0.0,
    steps=40,
    validation=2,
    lanes=2,
    seed=0,
    checkpoint=collect.Checkpoint('experiment', 3, 'weights', horizon=2, candidates=2),
)


def config():
    c = configs.default_config()
    c.model = models.config('palette', 'masked', 'none', 'frame', ('transition',), 'departure')
    c.train.weights = {'reconstruction': 1.0, 'transition': 1.0, 'reward': 1.0, 'discount': 1.0}
    c.evaluate = {'dials': {'steps': 1}}
    return c


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A model of Empty-Random-5x5, as training would leave it."""
    path = tmp_path_factory.mktemp('run') / 'tiny'
    spec = SETTINGS.make(1).spec
    c = config()
    variables = some_variables(build_model(c.model.to_dict(), spec, 'float32'))
    checkpoint.write_config(path, c, spec, configs.fingerprint(c, spec.to_json(), 'none'))
    devices, checkpoints = parallel.Devices(), checkpoint.Checkpoints(path)
    state = create(variables, optax.identity(), ('transition', 'outcome'))
    checkpoints.save(devices.place(state.replace(step=jnp.int32(3))), {}, {})
    checkpoints.wait()
    checkpoints.close()
    return path


def test_the_command_plays_a_checkpoint(workdir, tmp_path):
    script = Path(__file__).parent.parent / 'launch' / 'collect.py'
    command = [
        sys.executable, str(script), f'--path={tmp_path / "data"}', f'--checkpoint={workdir}', '--plan_horizon=2',
        '--plan_candidates=2', '--policy=checkpoint:0.5,random:0.5', '--world=navix/Empty-Random-5x5', '--lanes=2',
        '--steps=40', '--option=max_steps=8', '--validation=2',
    ]  # fmt: skip
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    metadata = episodes.read_metadata(str(tmp_path / 'data'))
    assert sum(metadata['lengths']['train']) >= 40 - 2
    recorded = metadata['settings']['checkpoint']
    assert (recorded['step'], recorded['horizon'], recorded['candidates']) == (3, 2, 2)
    assert recorded['dials'] == [['steps', 1]]
    assert len(recorded['weights']) == len(recorded['fingerprint']) == 16
    assert metadata['checkpoint']['name'] == 'tiny'
    assert metadata['checkpoint']['fingerprint'] == json.loads((workdir / 'fingerprint.json').read_text())
    assert str(workdir.parent) not in json.dumps(metadata)


def test_killed_and_started_again_it_ends_with_the_same_bytes(workdir, tmp_path):
    loaded = Trained.load(str(workdir))
    trained = (loaded.model, loaded.variables)

    class Killed(Exception):
        pass

    def stop(stage, done, total):
        raise Killed

    one, two = tmp_path / 'one', tmp_path / 'two'
    collect.collect(str(one), SETTINGS, {}, trained=trained)
    with pytest.raises(Killed):
        collect.collect(str(two), SETTINGS, {}, stop, trained)
    assert Path(f'{two}.parts').exists()
    collect.collect(str(two), SETTINGS, {}, trained=trained)
    assert {f.name: f.read_bytes() for f in one.iterdir()} == {f.name: f.read_bytes() for f in two.iterdir()}

    assert collect.is_complete(str(one), SETTINGS)
    further = dataclasses.replace(SETTINGS, checkpoint=dataclasses.replace(SETTINGS.checkpoint, step=4))
    with pytest.raises(ValueError, match=r"checkpoint is .*'step': 3.* there, .*'step': 4.* here"):
        collect.is_complete(str(one), further)


def test_a_model_of_another_world_is_refused(tmp_path):
    model = models.model(*VERTICALS['window'])
    path = tmp_path / 'data'
    with pytest.raises(
        ValueError, match=r'another world than navix/Empty-Random-5x5 \(observation is .*16.*40.*action'
    ):
        collect.collect(str(path), SETTINGS, {}, trained=(model, {}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('change', [{'checkpoint': None}, {'policy': (('random', 1.0),)}])
def test_the_kind_and_the_workdir_go_together(change):
    with pytest.raises(ValueError, match='go together'):
        dataclasses.replace(SETTINGS, **change)


def test_digests_tell_variables_apart():
    x = {'a': jnp.arange(3.0), 'b': jnp.zeros((0, 2))}
    assert collect.digest(x) == collect.digest(dict(reversed(x.items())))
    others = ({**x, 'a': jnp.arange(3)}, {'c': x['a'], 'b': x['b']}, {**x, 'a': x['a'].at[1].add(1e-6)})
    assert len({collect.digest(y) for y in (x, *others)}) == 4
