"""The loop in one process: what it writes, refuses, starts from, and when it gives up."""

import json
import pathlib
import time

import jax
import numpy as np
import pytest
import training_fake as fake

from worldmodels.training import checkpoint, loop, metrics, parallel, state
from worldmodels.training import config as config_lib
from worldmodels.training.optimizer import make_optimizer


def lines(workdir):
    return [json.loads(line) for line in (pathlib.Path(workdir) / metrics.FILE).read_text().splitlines()]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('trained')
    assert loop.train(fake.config(**{'train.evaluate_every': 6}), workdir, fake.assemble) == 12
    return workdir


def test_the_loss_falls_and_everything_is_written(trained):
    logged = [x for x in lines(trained) if 'loss' in x]
    assert [x['step'] for x in logged] == [1, 2, 4, 6, 8, 10, 12]
    assert logged[-1]['loss'] < logged[1]['loss']
    judged = [x for x in lines(trained) if 'validation/loss/reward' in x]
    assert [x['step'] for x in judged] == [6, 12]
    assert judged[1]['validation/loss/reconstruction'] < judged[0]['validation/loss/reconstruction']
    assert sorted(p.name for p in (trained / 'checkpoints').iterdir()) == ['12', '8']  # keep = 2
    assert list((trained / 'tensorboard').iterdir())


def test_a_finished_run_has_nothing_to_do(trained, capsys):
    before = (trained / metrics.FILE).read_bytes()
    assert loop.train(fake.config(**{'train.evaluate_every': 6}), trained, fake.assemble) == 12
    assert 'is trained: 12 steps done, 12 asked for' in capsys.readouterr().out
    assert (trained / metrics.FILE).read_bytes() == before


def test_load_prefers_the_slow_parameters(trained):
    config, spec, variables, step = checkpoint.load(trained)
    assert (step, spec) == (12, fake.SPEC)
    assert config.to_dict() == fake.config(**{'train.evaluate_every': 6}).to_dict()
    checkpoints = checkpoint.Checkpoints(trained)
    stored = checkpoints.read_variables(12)
    checkpoints.close()
    b = variables['params']['memory']['b']
    assert np.array_equal(b, stored['slow_params']['memory']['b'])
    assert not np.array_equal(b, stored['params']['memory']['b'])
    assert variables['constants']['heart']['scale'] == 1.0


def test_another_experiment_in_the_workdir_is_refused_by_field(trained):
    with pytest.raises(
        ValueError, match=r'differing in optimizer.b1 \(0.9 there, 0.8 here\), seed \(0 there, 3 here\)'
    ):
        loop.train(fake.config(seed=3, **{'optimizer.b1': 0.8, 'train.steps': 99}), trained, fake.assemble)


def test_parts_can_start_from_another_run(trained, tmp_path):
    fields = {
        'train.init_from.path': str(trained),
        'train.init_from.parts': ('heart',),
        'train.parts': ('memory', 'outcome'),
        'train.steps': 2,
        'data.consecutive': False,
    }
    loop.train(fake.config(**fields), tmp_path, fake.assemble)
    _, _, theirs, _ = checkpoint.load(trained)
    _, _, ours, _ = checkpoint.load(tmp_path)
    assert np.array_equal(ours['params']['heart']['w'], theirs['params']['heart']['w'])
    assert not np.allclose(ours['params']['memory']['w'], theirs['params']['memory']['w'], atol=1e-3)


def test_a_part_that_other_run_lacks_is_refused(trained):
    with pytest.raises(ValueError, match=r'names "filter", but .* has heart, memory, outcome'):
        checkpoint.init_from(fake.init(), trained, ('filter',))


@pytest.mark.parametrize('consecutive', [True, False])
def test_steps_that_are_not_finite_stop_the_run_naming_them(tmp_path, capsys, consecutive):
    fields = {'model.bad': (2, 5, 6, 7), 'train.max_bad_steps': 3, 'data.consecutive': consecutive}
    with pytest.raises(
        FloatingPointError, match=r'Step 8: 3 steps in a row were not finite \(.*loss/reconstruction = nan'
    ):
        loop.train(fake.config(**fields), tmp_path, fake.assemble)
    assert 'step 3 is skipped, it was not finite' in capsys.readouterr().out
    assert [x['skipped'] for x in lines(tmp_path) if x['step'] in (2, 4, 6)] == [0, 1, 2]


class FittedHeart(fake.Heart):
    def fit(self, batches):
        frames = np.concatenate([b['x'] for b in batches])
        assert frames.shape == (loop.FIT_BATCHES * 8 * 4, 3)
        return {'scale': np.asarray(frames.max(), np.float32)}


def test_a_heart_that_is_fitted_is_fitted_before_the_first_step_and_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, 'FIT_BATCHES', 3)
    monkeypatch.setattr(fake.Model, 'heart', FittedHeart())
    loop.train(fake.config(**{'train.steps': 1}), tmp_path, fake.assemble)
    scale = checkpoint.load(tmp_path)[2]['constants']['heart']['scale']
    assert scale > 1.5
    assert capsys.readouterr().out.count('fitting the heart') == 1
    loop.train(fake.config(**{'train.steps': 2}), tmp_path, fake.assemble)
    assert checkpoint.load(tmp_path)[2]['constants']['heart']['scale'] == scale
    assert 'fitting the heart' not in capsys.readouterr().out


def test_a_missing_dataset_gets_its_sentence(tmp_path):
    with pytest.raises(ValueError, match="There is no dataset at '/nowhere'"):
        loop.train(fake.config(**{'data.path': '/nowhere'}), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_save_holds_the_arrays_of_its_moment(tmp_path):
    """The step after a save reuses the memory of the state being written."""
    config = fake.config()
    devices = parallel.Devices(jax.local_devices()[:1])
    optimizer = make_optimizer(config.optimizer, 10)
    variables = fake.init()
    like = state.create(variables, optimizer, config.train.parts, 0.9, fake.MODEL.apply(variables, 8, method='initial'))
    placed = devices.place(like)
    grow = parallel.train(lambda s, _: (s.replace(params=jax.tree.map(lambda x: x + 1, s.params)), {}), devices)
    dummy = np.zeros((8, 1), np.float32)
    grow.compile(placed, devices.abstract(dummy))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    expected = np.array(placed.params['heart']['w'], copy=True)
    checkpoints.save(placed, {'position': 3}, {})
    for _ in range(5):
        placed, _ = grow(placed, devices.shard(dummy))
    checkpoints.wait()
    restored, position, _ = checkpoints.restore(0, like, devices)
    checkpoints.close()
    assert np.array_equal(restored.params['heart']['w'], expected)
    assert position == {'position': 3}
    assert restored.belief.context_BMD.shape == (8, 0, 1)  # no elements, so not stored


def test_a_damaged_checkpoint_is_one_sentence(tmp_path):
    loop.train(fake.config(**{'train.steps': 8}), tmp_path, fake.assemble)
    for path in (tmp_path / 'checkpoints' / '8').rglob('*'):
        if path.is_file() and 'd' in path.parent.name:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        ValueError, match=r'checkpoints/8 is damaged: delete that folder to go on from step 4'
    ) as raised:
        loop.train(fake.config(), tmp_path, fake.assemble)
    assert '\n' not in str(raised.value)


def test_another_model_under_the_same_config_is_refused(tmp_path, monkeypatch):
    loop.train(fake.config(**{'train.steps': 1}), tmp_path, fake.assemble)
    bigger = fake.init()
    bigger['params']['heart']['extra'] = np.zeros(2, np.float32)
    monkeypatch.setattr(fake, 'init', lambda: bigger)
    with pytest.raises(ValueError, match=r'does not fit this model in 2 arrays: params.heart.extra is absent there'):
        loop.train(fake.config(**{'train.steps': 2}), tmp_path, fake.assemble)


def test_positions_of_any_make_survive():
    position = {'a': b'\x00\xff', 'b': [np.int64(3), {'c': 1.5}], 'd': None}
    stored = json.loads(json.dumps(checkpoint._encode(position)))
    assert checkpoint._decode(stored) == {'a': b'\x00\xff', 'b': [3, {'c': 1.5}], 'd': None}


def test_a_metrics_file_is_cut_at_the_step_gone_on_from(tmp_path):
    path = tmp_path / metrics.FILE
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"st')
    metrics.truncate(path, 4)
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'


def test_times_tell_what_the_loop_waited_for(tmp_path, monkeypatch):
    class Slow(fake.Batches):
        def __next__(self):
            time.sleep(0.05)
            return super().__next__()

    monkeypatch.setattr(fake, 'Batches', Slow)
    loop.train(fake.config(**{'train.steps': 8}), tmp_path, fake.assemble)
    times = [json.loads(line) for line in (tmp_path / metrics.TIMES).read_text().splitlines()]
    assert [x['step'] for x in times] == [x['step'] for x in lines(tmp_path)]
    assert all(0 <= line['data_wait'] <= 1 and line['rss_mb'] > 50 for line in times)
    assert times[-1]['data_wait'] > 0.5  # steps of this model take a few ms


def test_metrics_are_divided_once():
    out = metrics.divide({'a': (np.float32(6), np.float32(4)), 'none': (np.float32(0), np.float32(0))})
    assert out == {'a': 1.5}


def test_the_default_config_needs_weights_only():
    config = config_lib.default_config()
    with pytest.raises(ValueError, match=r'config\.train\.weights is empty'):
        config_lib.validate(config)
    config.train.weights = {'reconstruction': 1.0}
    config_lib.validate(config)
    assert config_lib.step_config(config).weights == (('reconstruction', 1.0),)
