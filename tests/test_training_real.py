"""Exact resume of the real models on real datasets, belief and data position included."""

import functools
import signal

import pytest
import training_real
import training_runs

from worldmodels.training import checkpoint

run = functools.partial(training_runs.run, 'training_real.py')
run_together = functools.partial(training_runs.run_together, 'training_real.py')


@pytest.fixture(scope='module', autouse=True)
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    training_real.write_data(folder / 'noise')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TRAINING_DATA', str(folder / 'noise'))
        patch.setenv('JAX_COMPILATION_CACHE_DIR', str(folder / 'compiled'))  # every program is run three times
        yield folder / 'noise'


@pytest.mark.slow
@pytest.mark.parametrize(('vertical', 'devices'), [('masked', 1), ('masked', 4), ('recurrent', 1), ('recurrent', 4)])
def test_killed_while_saving_and_resumed_is_never_stopped_to_the_bit(tmp_path, vertical, devices):
    run(tmp_path / 'whole', devices=devices, vertical=vertical)
    run(tmp_path / 'cut', devices=devices, kill_at=30, expect=-signal.SIGKILL, vertical=vertical)
    assert 'going on from step 15' in run(tmp_path / 'cut', devices=devices, vertical=vertical)
    training_runs.assert_same(tmp_path / 'cut', tmp_path / 'whole')
    config, spec, variables, step = checkpoint.load(tmp_path / 'cut')
    assert (step, spec) == (60, training_real.SPEC)
    assert {'heart', 'transition', 'memory', 'outcome'} <= set(variables['params'])
    assert config.model.memory.kind == {'masked': 'window', 'recurrent': 'recurrent'}[vertical]


@pytest.mark.slow
def test_two_processes_train_what_one_with_two_devices_does_to_the_bit(tmp_path):
    """Both read their rows of the same data, and parts of another run."""
    run(tmp_path / 'before', vertical='masked', **{'train.steps': 1})
    fields = {'train.steps': 21, 'train.init_from.path': str(tmp_path / 'before'), 'train.init_from.parts': ('heart',)}
    out = run_together(tmp_path / 'shared', vertical='masked', **fields)
    assert f'heart from {tmp_path / "before"}' in out
    run(tmp_path / 'alone', devices=2, vertical='masked', **fields)
    training_runs.assert_same(tmp_path / 'shared', tmp_path / 'alone')
