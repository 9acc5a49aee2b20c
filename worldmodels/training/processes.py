"""More than one process: how they find each other, agree, and end together.

`jax.distributed` connects them. Process 0 serves the address that all are given, or that jax reads from what started
them: SLURM, Open MPI, a TPU pod, an indexed Kubernetes job. Every process runs the same command on the same workdir, a
folder that all of them see. When one ends, the others end too: there is nobody to compute its rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

WAIT_S = 300
"""How long the processes wait for each other at the start."""

HEARTBEAT_S = 60
"""A process not heard of for so long is given up: a machine that is gone closes no connection. jax's own default is 100."""

_STOPPED = 'worldmodels/stopped'
_LOST = re.compile(
    r'gloo|nccl|coordination|heartbeat|barrier|connection (closed|reset)|UNAVAILABLE|DEADLINE_EXCEEDED', re.I
)
_counter = itertools.count()
_reason: list[str] = []  # why another process stopped, in its own words


@dataclasses.dataclass(frozen=True)
class Place:
    """Which process this is. `coordinator` is the HOST:PORT of process 0; None where jax finds it."""

    count: int
    index: int
    coordinator: str | None = None


def place(coordinator: str | None, processes: int | None, process: int | None) -> Place | None:
    """This process's place, from flags or from a cluster jax knows; None where it is alone.

    Args:
      coordinator, processes, process: all three, or none to let jax look; processes=1 alone keeps it from looking.

    Raises:
      ValueError: the flags are incomplete or make no sense.
    """
    given = {'--coordinator': coordinator, '--processes': processes, '--process': process}
    missing = [name for name, value in given.items() if value is None]
    if processes == 1 and process in (None, 0):
        return None
    if len(missing) == 3:
        return _detected()
    if missing:
        raise ValueError(
            f'{" and ".join(missing)} {"is" if len(missing) == 1 else "are"} missing: give --coordinator=HOST:PORT, '
            '--processes=N and --process=I together, or none of them where SLURM, a TPU pod or Kubernetes starts the '
            'processes.'
        )
    host, _, port = coordinator.rpartition(':')
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(
            f'--coordinator is {coordinator!r}, expected HOST:PORT of process 0, such as 10.0.0.1:1234: the same in all.'
        )
    if processes < 1 or not 0 <= process < processes:
        raise ValueError(
            f'--process={process} of --processes={processes}: expected a number from 0 to {max(processes, 1) - 1}, '
            'another in each process.'
        )
    return Place(processes, process, coordinator)


def _detected() -> Place | None:
    """What `jax.distributed.initialize` would find by itself, asked without starting anything."""
    from jax._src.clusters import ClusterEnv  # jax 0.10 and 0.11 have no public way to ask

    for cluster in ClusterEnv._cluster_types:
        # Any pod looks like a cluster; only an indexed job tells its processes apart.
        alone = cluster.__name__ == 'K8sCluster' and 'JOB_COMPLETION_INDEX' not in os.environ
        if not cluster.opt_in_only_method and not alone and cluster.is_env_present():
            count = cluster.get_process_count()
            return Place(count, cluster.get_process_id()) if count > 1 else None
    return None


def join(where: Place, wait_s: float = WAIT_S, heartbeat_s: int = HEARTBEAT_S) -> None:
    """Connect to the other processes. Call before jax looks for devices.

    Ends the process, with a sentence, when the others have not come after `wait_s` seconds.

    Raises:
      ValueError: the port is taken.
    """
    import jax

    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    if where.index == 0 and where.coordinator:
        _check_free(where.coordinator)
    # jax would end the process itself, with a page of C++; so its own patience is longer.
    late = threading.Timer(wait_s, _late, (where, wait_s))
    late.daemon = True
    late.start()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        jax.distributed.initialize(
            where.coordinator,
            None if where.coordinator is None else where.count,
            None if where.coordinator is None else where.index,
            initialization_timeout=int(wait_s) + 60,
            heartbeat_timeout_seconds=heartbeat_s,
        )
    late.cancel()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # jax takes it for itself
    threading.Thread(target=_listen, daemon=True, name='processes').start()


def _check_free(coordinator: str) -> None:
    port = int(coordinator.rpartition(':')[2])
    try:
        ipv6 = socket.has_dualstack_ipv6()
        socket.create_server(
            ('', port), family=socket.AF_INET6 if ipv6 else socket.AF_INET, dualstack_ipv6=ipv6
        ).close()
    except OSError as error:
        raise ValueError(
            f'Process 0 cannot serve port {port} of --coordinator={coordinator} ({os.strerror(error.errno)}): '
            'give another port, the same in all processes.'
        ) from error


def _late(where: Place, wait_s: float) -> None:
    at = f' at {where.coordinator}' if where.coordinator else ''
    _end(
        f'Not all of the {where.count} processes have met{at} within {wait_s:.0f} s: start each with the same '
        f'--coordinator and --processes, and its own --process from 0 to {where.count - 1}, where that address can be '
        'reached.'
    )


# -- agreeing ----------------------------------------------------------------------------------------------------------


def _client() -> Any:
    from jax._src import distributed  # the key-value store has no public name; Orbax takes it from here too

    return distributed.global_state.client


def count() -> int:
    import jax

    return jax.process_count()


def index() -> int:
    import jax

    return jax.process_index()


def of_first(value: Any, wait_s: float = WAIT_S) -> Any:
    """Process 0's value, in all of them. Every process calls it the same number of times, in the same order."""
    if count() == 1:
        return value
    key = f'worldmodels/{next(_counter)}'
    if index() == 0:
        _client().key_value_set(key, json.dumps(value))
        return value
    return json.loads(_client().blocking_key_value_get(key, int(1000 * wait_s)))


def agree(what: str, mine: dict[str, Any]) -> None:
    """Raise ValueError, naming the fields, where this process has others than process 0."""
    mine = json.loads(json.dumps(mine))
    first = of_first(mine)
    differ = sorted(k for k in {*mine, *first} if mine.get(k) != first.get(k))
    if differ:
        fields = ', '.join(
            f'{k} ({first.get(k, "absent")} in process 0, {mine.get(k, "absent")} in process {index()})'
            for k in differ[:6]
        )
        raise ValueError(
            f'The processes differ in their {what}: {fields}. Start all with the same command and the same versions.'
        )


def see(path: pathlib.Path, text: str, wait_s: float = 30) -> None:
    """Wait until this process sees what process 0 wrote.

    Raises:
      ValueError: it does not.
    """
    deadline = time.monotonic() + wait_s  # shared disks may show a new file late
    while True:
        with contextlib.suppress(OSError):
            os.listdir(path.parent)
            if path.read_text() == text:
                return
        if time.monotonic() > deadline:
            raise ValueError(
                f'Process {index()} does not see the {path} that process 0 wrote: give a --workdir on a disk that all '
                'processes share.'
            )
        time.sleep(0.2)


# -- ending together ---------------------------------------------------------------------------------------------------


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone, and nothing about this one or its files."""
    from jax.errors import JaxRuntimeError

    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        by_jax = isinstance(error, JaxRuntimeError) or re.match(r'[A-Z_]+: ', str(error))  # gloo's come as ValueError
        if by_jax and _LOST.search(str(error)):
            return count() > 1
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def together(workdir: str | os.PathLike, tell: Callable[[BaseException], int]) -> Iterator[None]:
    """Around all that joined processes do. Whatever ends one of them is told to the others, and ends them.

    Args:
      workdir: where they save.
      tell: prints what an error of this process's own says, and returns the status to exit with.
    """
    try:
        yield
    except BaseException as error:
        if is_lost(error):
            for _ in range(20):  # its own words, if it had time for any, are on their way
                if _reason:
                    break
                time.sleep(0.1)
            _end(lost_sentence(workdir, count(), str(error).splitlines()[0], _reason))
        status = tell(error)
        said = ' '.join(str(error).split())[:500] or type(error).__name__
        with contextlib.suppress(Exception):
            _client().key_value_set(_STOPPED, f'Process {index()} ended: {said}')
            if index() == 0:
                time.sleep(1.0)  # it takes the store with it
        _leave(status or 1)
    import jax

    jax.distributed.shutdown()


def lost_sentence(workdir: str | os.PathLike, processes: int, detail: str, reason: list[str] | tuple = ()) -> str:
    """What to say when another process is gone."""
    who = 'The other process' if processes == 2 else f'Another of the {processes} processes'
    detail = re.sub(r'\[\S+\] ', '', detail, count=1)[:200]  # where in gloo's source
    said = reason[0] if reason else f'{who} ended or cannot be reached any more ({detail})'
    return f'{said.rstrip(".")}. {how_to_go_on(workdir, processes)}'


def how_to_go_on(workdir: str | os.PathLike, processes: int) -> str:
    """The last sentence of whatever ends a run of several processes."""
    command = shlex.join([pathlib.Path(sys.executable).name, *sys.orig_argv[1:]])
    folder = pathlib.Path(workdir) / 'checkpoints'
    steps = [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
    saved = f'Saved up to step {max(steps)}' if steps else 'Nothing was saved yet'
    each = 'both' if processes == 2 else f'all {processes}'
    return f'{saved}; to go on, start {each} processes again as before, this one with: {command}'


def _listen() -> None:
    """Wait for another process to say why it stops, then give this one some seconds to notice by itself."""
    try:
        _reason.append(_client().blocking_key_value_get(_STOPPED, 1 << 40))
    except Exception:  # the end of the run, or of process 0
        return
    if _reason[0].startswith(f'Process {index()} '):
        return
    time.sleep(5.0)
    _end(f'{_reason[0].rstrip(".")}. Start all {count()} processes again to go on.')


def _end(sentence: str) -> None:
    print(f'error: {sentence}', file=sys.stderr)
    _leave(1)


def _leave(status: int) -> None:
    """Exit at once: at a usual exit jax and Orbax would wait for processes that are gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            if stream.isatty():
                stream.write('\x1b[?25h')  # the cursor that a live table hides
            stream.flush()
    os._exit(status)
