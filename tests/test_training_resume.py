"""Killed runs, signals and numbers of devices: each run is a process of its own."""

import functools
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import training_runs
from training_runs import assert_same, environment, everything

from worldmodels.training import metrics

start = functools.partial(training_runs.start, 'training_fake.py')
run = functools.partial(training_runs.run, 'training_fake.py')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Workdirs of runs that never stopped, by number of devices."""
    made = {}

    def get(devices):
        if devices not in made:
            made[devices] = tmp_path_factory.mktemp(f'whole{devices}')
            run(made[devices], devices=devices)
        return made[devices]

    return get


@pytest.mark.parametrize('devices', [1, 4])
def test_killed_while_saving_and_resumed_is_never_stopped_to_the_bit(tmp_path, whole, devices):
    run(tmp_path, devices=devices, kill_at=8, expect=-signal.SIGKILL)
    folders = [p.name for p in (tmp_path / 'checkpoints').iterdir()]
    assert '4' in folders
    assert '8' not in folders  # only its unfinished folder is there
    assert any(name.startswith('8.orbax-checkpoint-tmp') for name in folders)
    assert 'going on from step 4' in run(tmp_path, devices=devices)
    assert_same(tmp_path, whole(devices))


def test_four_devices_compute_what_one_does(whole):
    assert_same(whole(4), whole(1), exactly=False)


@pytest.mark.parametrize(('first', 'then'), [(4, 2), (1, 4)])
def test_a_run_goes_on_with_another_number_of_devices(tmp_path, whole, first, then):
    run(tmp_path, devices=first, **{'train.steps': 8})
    assert 'going on from step 8' in run(tmp_path, devices=then)
    assert_same(tmp_path, whole(1), exactly=False)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_says_how_to_go_on_and_exits_well(tmp_path, number):
    process = start(tmp_path / 'stopped', **{'train.steps': 10**6, 'train.checkpoint_every': 10**6})
    file = tmp_path / 'stopped' / metrics.FILE
    for _ in range(6000):
        if file.exists() and file.read_text().count('\n') > 5:
            break
        time.sleep(0.1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    step, arrays, _ = everything(tmp_path / 'stopped')
    assert f'Stopped by {number.name} after step {step}. Everything is saved; to go on: python' in out
    assert 'training_fake.py' in out
    if number == signal.SIGTERM:
        run(tmp_path / 'straight', **{'train.steps': step, 'train.checkpoint_every': 10**6})
        _, straight, _ = everything(tmp_path / 'straight')
        assert all(np.array_equal(straight[k], x) for k, x in arrays.items())


REPLICAS = """
import functools, jax, numpy as np, training_fake as fake
from worldmodels.training import config as config_lib, parallel, state, step
from worldmodels.training.optimizer import make_optimizer

config = fake.config()
chosen = config_lib.step_config(config)
optimizer = make_optimizer(config.optimizer, 20)
variables = fake.init()
now = state.create(variables, optimizer, chosen.parts, 0.9, fake.MODEL.apply(variables, 8, method='initial'))
devices, batches = parallel.Devices(), fake.Batches(8, 4, True, bad=(7,))
now = devices.place(now)
bound = dict(model=fake.MODEL, config=chosen, losses=fake.losses, optimizer=optimizer, axis_name=parallel.AXIS)
train = parallel.train(functools.partial(step.train_step, **bound), devices)
train.compile(now, devices.abstract(fake.Batches(8, 4, True).__next__()))
for _ in range(20):
    now, metrics = train(now, devices.shard(next(batches)))
assert len(jax.devices()) == 4 and int(now.skipped) == 1, now.skipped
compared = 0
for x in jax.tree.leaves((now.replace(belief=None), metrics)):
    shards = [np.asarray(s.data) for s in x.addressable_shards]
    assert len(shards) == 4 and all(np.array_equal(shards[0], s) for s in shards)
    compared += 1
assert compared > 20
assert now.belief.h.shape == (8, fake.WIDTH)
assert len({np.asarray(s.data).tobytes() for s in now.belief.h.addressable_shards}) == 4
print('same')
"""


def test_replicas_are_the_same_to_the_bit_after_twenty_steps_one_of_them_skipped():
    done = subprocess.run(
        [sys.executable, '-c', REPLICAS], env=environment(4), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout.strip() == 'same', done.stderr
