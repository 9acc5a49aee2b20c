"""Commands run as users run them, each in a process of its own that is forked from one which has imported everything.

As a script it is that process: a request a line on stdin, an answer a line on stdout.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent

FAKE = """
import functools, training_fake
from worldmodels.training import loop
loop.train = functools.partial(loop.train, assemble=training_fake.assemble)
"""
"""Said before a command, it trains the model of `training_fake`."""


class Ended(typing.NamedTuple):
    """What is left of a command."""

    status: int
    stdout: str
    stderr: str

    def refused(self, *says, status=1):
        """Assert that it ended with one sentence that says all of this, and showed no traceback."""
        everything = self.stdout + self.stderr
        assert self.status == status, everything
        errors = [line for line in everything.splitlines() if line.startswith('error: ')]
        assert len(errors) == 1, everything
        for words in says:
            assert words in errors[0], f'{words!r} is not in: {errors[0]}'
        assert 'Traceback' not in everything, everything
        assert self.stderr.rstrip().splitlines()[-1] == errors[0], self.stderr


class Commands:
    """The process that commands are forked from."""

    def __init__(self):
        path = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
        environment = {**os.environ, 'PYTHONPATH': path, 'JAX_PLATFORMS': 'cpu', 'COLUMNS': '200'}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, script, *arguments, before='', **environment):
        """Run launch/SCRIPT.py to its end, after the Python of `before`."""
        with tempfile.TemporaryDirectory() as folder:
            request = {'script': script, 'arguments': [str(a) for a in arguments], 'before': before}
            request |= {'environment': environment, 'folder': folder}
            self._process.stdin.write(json.dumps(request) + '\n')
            self._process.stdin.flush()
            status = json.loads(self._process.stdout.readline())
            return Ended(status, *(pathlib.Path(folder, name).read_text() for name in ('stdout', 'stderr')))

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def kill_once_begun(words, path, environment, seconds=120):
    """Start a program that makes a dataset at `path`, and kill it as soon as it has finished the first part of it."""
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    first = pathlib.Path(f'{path}.parts', 'train-00000.npz')
    deadline = time.monotonic() + seconds
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.exists()
    assert not pathlib.Path(path).exists()


def state_of(folder):
    """Everything below a folder, to compare with later: names and digests."""
    return {
        str(p.relative_to(folder)): hashlib.blake2b(p.read_bytes()).hexdigest() if p.is_file() else ''
        for p in sorted(pathlib.Path(folder).rglob('*'))
    }


def _serve():
    # Nothing here may start threads or look for devices: they do not survive a fork.
    import flax, grain, optax, orbax.checkpoint, tensorboardX, tensorflow_datasets  # noqa: E401, F401, I001

    from worldmodels import build  # noqa: F401
    from worldmodels.data import collect, pipeline  # noqa: F401
    from worldmodels.evaluation import examine  # noqa: F401
    from worldmodels.training import loop, losses  # noqa: F401

    answers = os.fdopen(os.dup(1), 'w')
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            answers.close()
            return request
        _, status = os.waitpid(pid, 0)
        answers.write(json.dumps(os.waitstatus_to_exitcode(status)) + '\n')
        answers.flush()
    return None


def _become(request):
    for number, name in ((1, 'stdout'), (2, 'stderr')):
        file = os.open(os.path.join(request['folder'], name), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(ROOT)
    os.environ.update(request['environment'])
    script = str(ROOT / 'launch' / f'{request["script"]}.py')
    sys.argv = [script, *request['arguments']]
    sys.orig_argv = [sys.executable, *sys.argv]
    exec(request['before'], {})
    runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    with contextlib.suppress(KeyboardInterrupt):
        asked = _serve()
        if asked:
            _become(asked)
