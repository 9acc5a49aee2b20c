"""Two processes never share a folder; what a process held is free when it is gone, however it went."""

import os
import re
import signal
import subprocess
import sys

import pytest

from worldmodels import lock

HOLD = 'import sys; from worldmodels import lock; lock.hold(sys.argv[1]); print("held", flush=True); sys.stdin.read()'


@pytest.fixture
def other(tmp_path):
    """A process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'held\n'
    yield process
    process.kill()
    process.wait()


def test_the_second_says_who_the_first_is(other, tmp_path):
    with pytest.raises(ValueError, match=f'{tmp_path} is in use by process {other.pid} on .* since 20') as raised:
        lock.hold(tmp_path)
    assert re.search(r'since [\d: -]+: wait until it ends', str(raised.value))
    assert [p.name for p in tmp_path.iterdir()] == [lock.FILE]


@pytest.mark.parametrize('way', [signal.SIGKILL, signal.SIGTERM, None])
def test_it_is_free_when_the_process_is_gone(other, tmp_path, way):
    if way:
        os.kill(other.pid, way)
    else:
        other.stdin.close()
    other.wait()
    with lock.alone(tmp_path):
        assert f'process {os.getpid()} ' in (tmp_path / lock.FILE).read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_process_may_take_again_what_it_holds(tmp_path):
    folder = tmp_path / 'new'
    with lock.alone(folder):
        lock.hold(f'{tmp_path}/./new')
        (folder / lock.FILE).unlink()  # somebody cleans up
        lock.hold(folder)
        assert (folder / lock.FILE).exists()
    lock.release(folder)


def test_where_nothing_can_be_written_it_says_so(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='Not a directory'):
        lock.hold(tmp_path / 'file' / 'folder')
