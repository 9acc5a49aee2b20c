"""Training in processes of their own, which tests kill, stop, give more devices, and compare to the bit."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np

from worldmodels.training import checkpoint, loop, metrics

HERE = pathlib.Path(__file__).parent


def environment(devices):
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    flags = f'--xla_force_host_platform_device_count={devices}'
    return {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': path}


def start(script, workdir, devices=1, kill_at=None, **fields):
    """A process that trains in `workdir`, fields by dotted name; it kills itself while saving step `kill_at`."""
    command = [sys.executable, str(HERE / script), str(workdir), json.dumps(fields)]
    command += [str(kill_at)] if kill_at else []
    return subprocess.Popen(
        command, env=environment(devices), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(*args, expect=0, **kwargs):
    process = start(*args, **kwargs)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == expect, out
    return out


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
    loop.train(config(**json.loads(sys.argv[2])), sys.argv[1], assemble)
