"""More than one process: real ones, on the CPU, that find each other, compute what one would, and end together."""

import functools
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import training_runs
from training_runs import assert_same, environment, everything, finish, free_port, run

from worldmodels.training import metrics, processes

FAKE = 'training_fake.py'
start = functools.partial(training_runs.start_together, FAKE)
run_together = functools.partial(training_runs.run_together, FAKE)


def wait_for_lines(workdir, count, together):
    """Until metrics.jsonl has so many lines."""
    file = pathlib.Path(workdir) / metrics.FILE
    for _ in range(3000):
        if file.exists() and file.read_text().count('\n') >= count:
            return
        assert all(p.poll() is None for p in together), finish(together)
        time.sleep(0.05)
    raise AssertionError('nothing was logged')


# -- who is who --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('given', 'sentence'),
    [
        (('10.0.0.1:1234', 2, None), r'--process is missing: give --coordinator=HOST:PORT, --processes=N and'),
        ((None, 4, 1), r'--coordinator is missing'),
        ((None, None, 0), r'--coordinator and --processes are missing'),
        (('10.0.0.1', 2, 0), r"--coordinator is '10.0.0.1', expected HOST:PORT"),
        (('host:99999', 2, 0), r"--coordinator is 'host:99999', expected HOST:PORT"),
        (('host:1234', 2, 2), r'--process=2 of --processes=2: expected a number from 0 to 1'),
        (('host:1234', 0, 0), r'--process=0 of --processes=0'),
    ],
)
def test_flags_that_make_no_sense_are_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        processes.place(*given)


def test_flags_name_a_place_and_one_process_needs_none():
    assert processes.place('host:1234', 2, 1) == processes.Place(2, 1, 'host:1234')
    assert processes.place(None, 1, None) is None
    assert processes.place('host:1234', 1, 0) is None


SLURM = {
    'SLURM_JOB_ID': '77',
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_NTASKS': '2',
    'SLURM_PROCID': '1',
    'SLURM_LOCALID': '1',
}


@pytest.mark.filterwarnings('error')
def test_a_cluster_is_found_by_jax(monkeypatch):
    assert processes.place(None, None, None) is None
    monkeypatch.setenv('KUBERNETES_SERVICE_HOST', '10.0.0.1')  # any pod, which need not be one of many
    assert processes.place(None, None, None) is None
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert processes.place(None, None, None) == processes.Place(2, 1)
    assert processes.place(None, 1, None) is None
    monkeypatch.setenv('SLURM_NTASKS', '1')
    assert processes.place(None, None, None) is None


def test_a_port_in_use_is_refused():
    with socket.create_server(('', 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match=rf'cannot serve port {port} .* \(Address already in use\): give another'):
            processes.join(processes.Place(2, 0, f'localhost:{port}'))


@pytest.mark.parametrize('index', [0, 1])
def test_others_that_do_not_come_are_not_waited_for_for_ever(index):
    code = f"""
from worldmodels.training import processes
processes.join(processes.Place(2, {index}, 'localhost:{free_port()}'), wait_s=3)
"""
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment(1), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('error: Not all of the 2 processes have met at localhost:')
    assert 'within 3 s: start each with the same --coordinator' in done.stderr


def test_a_workdir_that_is_not_shared_is_noticed(tmp_path):
    (tmp_path / 'there').write_text('1')
    processes.see(tmp_path / 'there', '1')
    for name, text in (('there', '2'), ('not there', '1')):
        with pytest.raises(
            ValueError, match='that process 0 wrote: give a --workdir on a disk that all processes share'
        ):
            processes.see(tmp_path / name, text, wait_s=0.1)


# -- training together -------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The workdir of one process with two devices."""
    workdir = tmp_path_factory.mktemp('one process')
    run(FAKE, workdir, devices=2, **{'train.evaluate_every': 6})
    return workdir


def test_two_processes_compute_what_one_with_two_devices_does_to_the_bit(tmp_path, whole):
    out = run_together(tmp_path, **{'train.evaluate_every': 6})
    assert 'on 2 × cpu in 2 processes' in out
    assert_same(tmp_path, whole)
    assert len(list((tmp_path / 'tensorboard').iterdir())) == 1  # the first process writes, the other does not


def test_a_checkpoint_of_two_processes_goes_on_in_one_to_the_bit(tmp_path, whole):
    """The carried belief with it: a row is the same row whoever computes it."""
    run_together(tmp_path, **{'train.evaluate_every': 6, 'train.steps': 8})
    assert 'going on from step 8' in run(FAKE, tmp_path, devices=2, **{'train.evaluate_every': 6})
    assert_same(tmp_path, whole)


def test_processes_that_were_started_differently_say_where(tmp_path):
    ended = finish(start(tmp_path, each={1: {'train.log_every': 3}}))
    assert [status for status, _ in ended] == [1, 1]
    sentence = 'differ in their config, data or versions: train.log_every (2 in process 0, 3 in process 1)'
    assert f'error: The processes {sentence}. Start all with the same command' in ended[1][1]
    assert f'error: Process 1 ended: The processes {sentence}' in ended[0][1]


def test_a_signal_to_one_stops_all_at_the_same_step(tmp_path):
    together = start(tmp_path / 'stopped', **{'train.steps': 10**6, 'train.checkpoint_every': 10**6})
    wait_for_lines(tmp_path / 'stopped', 5, together)
    together[1].terminate()
    (status, out), (other, _) = finish(together)
    assert (status, other) == (0, 0), out
    step, arrays, _ = everything(tmp_path / 'stopped')
    assert f'Stopped by SIGTERM after step {step}. Everything is saved; to go on: python' in out
    run(FAKE, tmp_path / 'straight', devices=2, **{'train.steps': step, 'train.checkpoint_every': 10**6})
    straight = everything(tmp_path / 'straight')[1]
    assert all(np.array_equal(straight[k], x) for k, x in arrays.items())


# -- ending together ---------------------------------------------------------------------------------------------------


def child_of(process):
    """The process that trains, under the one that watches it."""
    return int(pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()[0])


KILLS = int(os.environ.get('KILLS', '3'))


@pytest.mark.slow
def test_one_of_two_killed_at_random_loses_nothing(tmp_path):
    """As often as KILLS says, 3 times unless told; each time the same commands go on."""
    steps = 120 * KILLS
    fields = {'train.log_every': 5, 'train.checkpoint_every': 40, 'train.evaluate_every': 40, 'train.steps': steps}
    draw, workdir = random.Random(0), tmp_path / 'killed'
    # Compiling the same programs every time would be most of the test.
    fields['extra'] = {
        'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'compiled'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    }
    for kill in range(KILLS):
        began = time.time()
        together = start(workdir, **fields)
        if kill % 3 == 2:  # before the first step: they compile, or take up the checkpoint
            while not (workdir / 'config.json').stat().st_mtime > began:
                time.sleep(0.05)
            time.sleep(draw.uniform(0, 3))
        else:
            wait_for_lines(workdir, draw.randint(24 * kill + 1, 24 * kill + 24), together)
        victim, survivor = draw.sample(together, 2)
        if draw.random() < 0.5:
            os.kill(child_of(victim), signal.SIGKILL)  # as the system does when there is no memory
        else:
            victim.kill()
        struck = time.monotonic()
        (status, out), (other, words) = finish([survivor, victim])
        print(f'{survivor.pid} ended {time.monotonic() - struck:.1f} s later: {out.splitlines()[-1]}')
        assert status in (1, 128 + signal.SIGABRT), out
        assert other in (-signal.SIGKILL, 128 + signal.SIGKILL), words
        assert re.match(r'error: .*to go on, start both processes again', out.splitlines()[-1]), out
        if other > 0:
            assert 'was ended by SIGKILL (is there memory enough?)' in words
    assert f'Done: {steps} steps' in run_together(workdir, **fields)
    run(FAKE, tmp_path / 'whole', devices=2, **fields)
    assert_same(workdir, tmp_path / 'whole')
