"""Training in processes of their own, which tests kill, stop, give more devices, and compare to the bit."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import numpy as np

from launch import command
from worldmodels.training import checkpoint, loop, metrics, processes, supervisor

HERE = pathlib.Path(__file__).parent


def environment(devices):
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    flags = f'--xla_force_host_platform_device_count={devices}'
    as_users = {'JAX_DISABLE_MOST_OPTIMIZATIONS': '0'}
    return {**os.environ, **as_users, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': path}


def start(script, workdir, devices=1, kill_at=None, place=None, extra=None, **fields):
    """A process that trains in `workdir`, fields by dotted name; it kills itself while saving step `kill_at`.

    `place` is (processes, process, coordinator) where it is one of several.
    """
    watched = [str(HERE / 'training_watched.py')] if place else []
    command = [sys.executable, *watched, str(HERE / script), str(workdir), json.dumps(fields)]
    command += [str(kill_at)] if kill_at else []
    env = {**environment(devices), **(extra or {}), **({'TRAINING_PLACE': json.dumps(place)} if place else {})}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(*args, expect=0, **kwargs):
    process = start(*args, **kwargs)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == expect, out
    return out


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


def start_together(script, workdir, count=2, each=None, **fields):
    """Processes that train together in `workdir`; `each` holds fields of single ones."""
    coordinator = f'127.0.0.1:{free_port()}'
    return [
        start(script, workdir, place=(count, i, coordinator), **{**fields, **(each or {}).get(i, {})})
        for i in range(count)
    ]


def finish(together):
    """(status, output) of each."""
    outputs = [p.communicate(timeout=300)[0] for p in together]
    return [(p.returncode, out) for p, out in zip(together, outputs)]


def run_together(script, workdir, **kwargs):
    """What the first of them says."""
    ended = finish(start_together(script, workdir, **kwargs))
    assert all(status == 0 for status, _ in ended), ended
    return ended[0][1]


def everything(workdir):
    """All arrays of the last checkpoint by name, and the rest of it."""
    checkpoints = checkpoint.Checkpoints(workdir)
    step = checkpoints.latest()
    arrays = {}
    for item in ('variables', 'training'):
        shapes = checkpoint._flat_shapes(checkpoints._metadata(step, item))
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        arrays |= checkpoints._read(step, item, shapes, dict.fromkeys(shapes, here))
    data = checkpoints._json(step, 'data')
    checkpoints.close()
    return step, {k: np.asarray(v) for k, v in arrays.items()}, data


def assert_same(one, other, exactly=True):
    (step, arrays, data), (other_step, other_arrays, other_data) = everything(one), everything(other)
    assert (step, data, set(arrays)) == (other_step, other_data, set(other_arrays))
    assert {k.split('.')[0] for k in arrays} >= {'params', 'slow_params', 'opt_state', 'belief', 'step'}
    for name, x in arrays.items():
        if exactly:
            assert np.array_equal(x, other_arrays[name]), name
        else:
            np.testing.assert_allclose(x, other_arrays[name], rtol=2e-4, atol=2e-5, err_msg=name)
    texts = [(pathlib.Path(w) / metrics.FILE).read_text() for w in (one, other)]
    if exactly:
        assert texts[0] == texts[1]
        return
    for a, b in zip(*([json.loads(line) for line in t.splitlines()] for t in texts), strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-4)


def kill_while_saving(step):
    """SIGKILL to this process at the moment the checkpoint of `step` would become complete."""
    for name in ('rename', 'replace'):
        for owner in (os, pathlib.Path):
            original = getattr(owner, name)

            def strike(source, *args, original=original, **kwargs):
                if f'/{step}.orbax-checkpoint-tmp' in str(source):
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(source, *args, **kwargs)

            setattr(owner, name, strike)


def main(config, assemble):
    """What such a process does: SCRIPT WORKDIR FIELDS_JSON [KILL_AT]."""
    if len(sys.argv) > 3:
        kill_while_saving(int(sys.argv[3]))

    def train():
        loop.train(config(**json.loads(sys.argv[2])), sys.argv[1], assemble)

    if 'TRAINING_PLACE' not in os.environ:
        train()
        return
    place = processes.Place(*json.loads(os.environ['TRAINING_PLACE']))
    supervisor.run(place, sys.argv[1], train, lambda error: command.tell(error, 'training'))
