"""A parent for each of several processes, that outlives it and can say what ended it.

jax ends a process from C++, with a page of its own and no chance for Python to speak, when the process that serves the
others is gone or one has not been heard of for too long. So does the system when memory runs out. The parent does
nothing but pass signals on, wait, and put one sentence at the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from worldmodels.training import processes

_WATCHED = 'WORLDMODELS_WATCHED_BY'
_PR_SET_PDEATHSIG = 1  # of prctl(2)
_LAST_WORDS = re.compile(rb'[WEF]\d{4} .*(coordination_service|preemption_sync|client\.h:)')


def run(
    place: processes.Place, workdir: str | os.PathLike, body: Callable[[], object], tell: Callable[[BaseException], int]
) -> None:
    """Do one process's share of what several do: watched, joined, and ending with the others.

    Args:
      body: what all of them do, once they have met.
      workdir, tell: see `processes.together`.

    Raises:
      ValueError: the processes cannot meet as they were told.
    """
    watch(place, workdir)
    processes.join(place)
    with processes.together(workdir, tell):
        body()


def watch(place: processes.Place, workdir: str | os.PathLike) -> None:
    """Run this very command in a child. Returns in the child alone; the parent exits with the child's status."""
    if os.environ.get(_WATCHED) == str(os.getppid()):
        _die_with_parent()
        return
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env={**os.environ, _WATCHED: str(os.getpid())},
        stderr=subprocess.PIPE,
        process_group=0,  # Ctrl-C comes from here, once
    )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: child.send_signal(number))
    held = []  # what jax says before it ends the child: shown only if it does not
    for line in child.stderr:
        if held or _LAST_WORDS.match(line):
            held.append(line)
        else:
            _show(line)
    status = child.wait()
    if status >= 0 or '--debug' in sys.argv:
        for line in held:
            _show(line)
    if status < 0:
        said = _sentence(place, workdir, -status, b''.join(held).decode(errors='replace'))
        if sys.stdout.isatty():
            os.write(1, b'\x1b[?25h')  # the cursor that a live table hides
        _show(f'error: {said}\n'.encode())
    os._exit(status if status >= 0 else 128 - status)


def _sentence(place: processes.Place, workdir: str | os.PathLike, number: int, said: str) -> str:
    name = signal.Signals(number).name
    if 'distributed service detected fatal errors' in said:
        detail = re.search(r'heartbeat|Failed to send RPC to coordination service|[A-Z_]{6,}: [^\n]*', said)
        return processes.lost_sentence(workdir, place.count, f'jax ended this one: {detail[0] if detail else name}')
    hint = ' (is there memory enough?)' if number == signal.SIGKILL else ''
    return (
        f'Process {place.index} of {place.count} was ended by {name}{hint}. '
        f'{processes.how_to_go_on(workdir, place.count)}'
    )


def _show(line: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(2, line)


def _die_with_parent() -> None:
    parent = os.getppid()
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):  # not Linux
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)
