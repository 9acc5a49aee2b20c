"""Runs that go wrong on the way: disks, locks, checkpoints of others. One sentence, and what was saved stays as it was."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import commands
import pytest

EXPERIMENT = """
import training_fake
def get_config(arg):
    return training_fake.config()
"""


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    path = tmp_path_factory.mktemp('experiment') / 'fake.py'
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope='module')
def trained(command, experiment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('runs') / 'trained'
    ended = command(
        'train', f'--config={experiment}', f'--workdir={workdir}', '--config.train.steps=8', before=commands.FAKE
    )
    assert ended.status == 0, ended.stderr
    return workdir


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / 'copy')


@pytest.fixture
def train(command, experiment):
    def run(workdir, *arguments, before=''):
        return command(
            'train', f'--config={experiment}', f'--workdir={workdir}', *arguments, before=commands.FAKE + before
        )

    return run


def refused_unchanged(ended, workdir, before, *says):
    ended.refused(*says)
    assert commands.state_of(workdir) == before


# -- what is in the workdir --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['--config.seed=3'], ['another experiment', 'seed (0 there, 3 here)', 'new --workdir']),
        (['--config.optimizer.b1=0.5'], ['optimizer.b1 (0.9 there, 0.5 here)']),
        (['--config.data.batch_size=4'], ['data.batch_size (8 there, 4 here)']),
    ],
)
def test_a_checkpoint_of_another_config_is_refused(train, trained, arguments, says):
    before = commands.state_of(trained)
    refused_unchanged(train(trained, *arguments), trained, before, *says)


def test_a_checkpoint_of_another_world_is_refused(train, trained):
    before = commands.state_of(trained)
    other = 'import dataclasses; from worldmodels.types import ActionSpace\n'
    other += "training_fake.SPEC = dataclasses.replace(training_fake.SPEC, action=ActionSpace('discrete', 7))\n"
    ended = train(trained, before='import training_fake\n' + other)
    refused_unchanged(ended, trained, before, 'spec.action.size (2 there, 7 here)')


@pytest.mark.parametrize('name', ['fingerprint.json', 'config.json', 'spec.json'])
def test_a_damaged_json_is_named(command, train, copy, name):
    (copy / name).write_text((copy / name).read_text()[:20])
    before = commands.state_of(copy)
    if name == 'fingerprint.json':
        refused_unchanged(train(copy), copy, before, str(copy / name), 'is damaged')
    else:
        refused_unchanged(command('evaluate', f'--workdir={copy}'), copy, before, str(copy / name), 'is damaged')


@pytest.mark.parametrize('damage', ['flipped', 'cut', 'emptied'])
def test_a_damaged_checkpoint_is_refused(train, copy, damage):
    step = copy / 'checkpoints' / '8'
    files = [p for p in sorted((step / 'training').rglob('*')) if p.is_file() and p.stat().st_size > 100]
    content = files[-1].read_bytes()
    if damage == 'emptied':
        for path in [p for p in step.iterdir() if p.is_dir()]:
            shutil.rmtree(path)
    elif damage == 'cut':
        files[-1].write_bytes(content[:-40])
    else:
        files[-1].write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    before = commands.state_of(step)
    train(copy).refused('checkpoints/8 is damaged', 'delete that folder to go on from step 4')
    assert commands.state_of(step) == before
    shutil.rmtree(step)
    ended = train(copy)
    assert ended.status == 0, ended.stderr
    assert 'going on from step 4' in ended.stdout


def test_a_checkpoint_folder_without_checkpoints_is_no_trained_run(command, copy):
    for step in (copy / 'checkpoints').iterdir():
        shutil.rmtree(step)
    before = commands.state_of(copy)
    ended = command('evaluate', f'--workdir={copy}')
    refused_unchanged(ended, copy, before, 'holds no checkpoint', 'train it first')


# -- the disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB; skips where nobody may mount one."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'none', str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip('only root may mount a small disk')
    yield folder
    subprocess.run(['mount', '-o', 'remount,rw', str(folder)], check=True)
    subprocess.run(['umount', '-l', str(folder)], check=True)


def test_a_full_disk_stops_the_run_and_spares_what_is_saved(train, trained, small_disk):
    run = shutil.copytree(trained, small_disk / 'run')
    checkpoints = commands.state_of(run / 'checkpoints')
    filler = small_disk / 'filler'
    with filler.open('wb', buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b'x' * 512)
    os.truncate(filler, filler.stat().st_size - 40_000)  # room for some lines of metrics, and for no checkpoint
    train(run, '--config.train.steps=16').refused('No space left on device', 'free some space')
    after = commands.state_of(run / 'checkpoints')
    assert {k: v for k, v in after.items() if 'orbax-checkpoint-tmp' not in k} == checkpoints
    filler.unlink()
    ended = train(run, '--config.train.steps=16')
    assert ended.status == 0, ended.stdout + ended.stderr
    assert 'going on from step 8' in ended.stdout


def test_files_that_may_not_grow_stop_the_run_with_a_sentence(train, copy):
    """As a full disk, where nobody may mount one: no file over 3,000 bytes, and Orbax writes larger ones."""
    checkpoints = commands.state_of(copy / 'checkpoints')
    limit = 'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))\n'
    train(copy, '--config.train.steps=16', before=limit).refused('File too large', 'ulimit -f')
    after = commands.state_of(copy / 'checkpoints')
    assert {k: v for k, v in after.items() if 'orbax-checkpoint-tmp' not in k} == checkpoints
    assert train(copy, '--config.train.steps=16').status == 0


def test_a_read_only_disk_is_named(train, trained, small_disk):
    run = shutil.copytree(trained, small_disk / 'run')
    subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)
    before = commands.state_of(run)
    refused_unchanged(train(run, '--config.train.steps=16'), run, before, str(run), 'Read-only file system', 'name a')
    train(small_disk / 'new').refused(str(small_disk / 'new'), 'Read-only file system')


def test_a_workdir_that_is_a_file_is_named(train, tmp_path):
    (tmp_path / 'file').write_text('mine')
    train(tmp_path / 'file').refused(str(tmp_path / 'file'))
    assert (tmp_path / 'file').read_text() == 'mine'


# -- the other process -------------------------------------------------------------------------------------------------

HOLD = 'import sys; from worldmodels import lock; lock.hold(sys.argv[1]); print("held", flush=True); sys.stdin.read()'


@pytest.fixture
def hold():
    started = []

    def start(folder):
        """A process that has the folder, as a run has its workdir."""
        process = subprocess.Popen(
            [sys.executable, '-c', HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == 'held\n'
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_the_second_process_on_a_workdir_says_who_the_first_is(train, copy, hold):
    process = hold(copy)
    before = commands.state_of(copy)
    ended = train(copy, '--config.train.steps=16')
    refused_unchanged(ended, copy, before, f'{copy} is in use by process {process.pid} on', 'wait until it ends')
    process.kill()
    process.wait()
    assert train(copy).status == 0


def test_the_second_process_on_a_dataset_says_who_the_first_is(command, tmp_path, hold):
    process = hold(f'{tmp_path}/data.parts')
    before = commands.state_of(tmp_path)
    ended = command(
        'collect', f'--path={tmp_path}/data', '--world=navix/Empty-5x5', '--steps=64', '--lanes=2', '--policy=random'
    )
    refused_unchanged(ended, tmp_path, before, f'data.parts is in use by process {process.pid} on')


# -- the person, and mistakes of ours ----------------------------------------------------------------------------------


def test_a_mistake_of_ours_leaves_its_traceback_beside_the_run(train, copy):
    broken = "def fail(*_): raise KeyError('x')\nloop._Run._compile = fail\n"
    ended = train(copy, '--config.train.steps=16', before=broken)
    ended.refused("unexpected KeyError while training: 'x'", '--debug shows it')
    (file,) = copy.glob('traceback-*.txt')
    assert "KeyError: 'x'" in file.read_text()
    shown = train(copy, '--config.train.steps=16', '--debug', before=broken)
    assert 'Traceback' in shown.stderr
    assert len(list(copy.glob('traceback-*.txt'))) == 1


def test_losses_that_are_not_finite_stop_the_run_with_a_sentence(train, tmp_path):
    ended = train(tmp_path / 'run', '--config.model.bad=(2,3,4)', '--config.train.max_bad_steps=3')
    ended.refused('Step 5: 3 steps in a row were not finite', 'lower config.optimizer.learning_rate')


def test_ctrl_c_before_there_is_anything_to_save(experiment, tmp_path):
    """A real process, stopped while it compiles: a second Ctrl-C does not wait."""
    # Where the tests run in the background, SIGINT comes ignored.
    script = 'import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n' + commands.FAKE
    script += 'import time\ndef slowly(*_):\n    print("slow", flush=True); time.sleep(60)\n'
    script += 'loop._Run._compile = slowly\nimport runpy, sys\nsys.argv = sys.argv[1:]\n'
    script += "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    path = os.pathsep.join([str(commands.ROOT), str(commands.ROOT / 'tests')])
    process = subprocess.Popen(
        [sys.executable, '-c', script, 'launch/train.py', f'--config={experiment}', f'--workdir={tmp_path}/run'],
        cwd=commands.ROOT, env={**os.environ, 'PYTHONPATH': path, 'JAX_PLATFORMS': 'cpu'}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while process.stdout.readline() not in ('slow\n', ''):
        pass
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    out, err = process.communicate(timeout=60)
    commands.Ended(process.returncode, out, err).refused('stopped by Ctrl-C while training', status=130)
    assert json.loads((tmp_path / 'run' / 'config.json').read_text())['seed'] == 0
    assert not (tmp_path / 'run' / 'lock').exists()


FRAIL = """
import os, gymnasium, numpy as np
class World(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)
    def __init__(self, max_steps: int = 60):
        self.max_steps, self.taken = max_steps, 0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now = 0
        return np.full((8, 8, 3), self.now, np.uint8), {}
    def step(self, action):
        self.now += 1
        self.taken += 1
        if self.taken > 400 and os.path.exists(__file__ + '.frail'):
            raise ZeroDivisionError('the floor gave way')
        return np.full((8, 8, 3), self.now, np.uint8), 0.0, False, self.now == self.max_steps, {}
"""


def test_a_world_that_raises_in_the_middle_of_an_episode_costs_no_finished_chunk(command, tmp_path):
    (tmp_path / 'frail.py').write_text(FRAIL)
    (tmp_path / 'frail.py.frail').write_text('')
    here = f'import sys; sys.path.insert(0, {str(tmp_path)!r})'
    arguments = ['--world=frail:World', f'--path={tmp_path}/data', '--steps=1100', '--lanes=2', '--policy=random']
    arguments += ['--validation=2', '--split=episodes', '--option=max_steps=60']
    ended = command('collect', *arguments, before=here)
    ended.refused('frail:World raised ZeroDivisionError: the floor gave way', 'of chunk 1 of train')
    first = tmp_path / 'data.parts' / 'train-00000.npz'
    assert 'kept' in ended.stderr
    assert first.stat().st_size > 1000
    assert not (tmp_path / 'data').exists()
    (tmp_path / 'frail.py.frail').unlink()
    told = """
from worldmodels.data import collect
(player,) = [c for c in vars(collect).values() if hasattr(c, '_played')]
was = player._played
def played(self, split, chunk):
    print('plays', split, chunk)
    return was(self, split, chunk)
player._played = played
"""
    ended = command('collect', *arguments, before=here + told)
    assert ended.status == 0, ended.stderr
    assert 'plays train 1' in ended.stdout
    assert 'plays train 0' not in ended.stdout
    assert (tmp_path / 'data' / 'dataset_info.json').exists()
