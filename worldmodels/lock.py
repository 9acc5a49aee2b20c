"""One process at a time in a folder: a file that the system locks for as long as the process lives."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

FILE = 'lock'

_held: dict[str, int] = {}


def hold(folder: str | os.PathLike) -> None:
    """Take a folder, which is made if need be, until `release` or the end of the process, however it ends.

    A process may take a folder again that it holds. Where the file system knows no locks, nothing is locked.

    Raises:
      ValueError: another process holds it; the message says which.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    folder = os.path.realpath(folder)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, FILE)
    while folder not in _held or not _is(path, _held[folder]):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 1000, 0).decode(errors='replace').strip() or 'another process'
            os.close(file)
            raise ValueError(
                f'{folder} is in use by {holder}: wait until it ends or stop it, or name another folder.'
            ) from None
        except OSError:
            os.close(file)
            return
        if not _is(path, file):  # deleted by its last holder after we had opened it
            os.close(file)
            continue
        os.ftruncate(file, 0)
        since = time.strftime('%Y-%m-%d %H:%M:%S')
        os.pwrite(file, f'process {os.getpid()} on {socket.gethostname()} since {since}'.encode(), 0)
        if folder in _held:
            os.close(_held[folder])
        _held[folder] = file


def release(folder: str | os.PathLike) -> None:
    """Give a folder back; nothing happens when it is not held."""
    folder = os.path.realpath(folder)
    file = _held.pop(folder, None)
    if file is None:
        return
    path = os.path.join(folder, FILE)
    if _is(path, file):
        with contextlib.suppress(OSError):
            os.unlink(path)
    os.close(file)


@contextlib.contextmanager
def alone(folder: str | os.PathLike) -> Iterator[None]:
    """A block during which a folder is held. Raises ValueError when another process holds it."""
    hold(folder)
    try:
        yield
    finally:
        release(folder)


def _is(path: str, file: int) -> bool:
    try:
        there, ours = os.stat(path), os.fstat(file)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
