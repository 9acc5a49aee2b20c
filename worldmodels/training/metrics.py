"""Metrics of a run: a live table, metrics.jsonl and TensorBoard.

They arrive as pairs (sum, count) and are divided here, once. metrics.jsonl holds what a run computes, no times, and is
cut at the step a run goes on from: an interrupted run leaves the very file an uninterrupted one does. What differs from
run to run, times and memory, is in times.jsonl, a line for each line of the other:

    steps_per_second   since the first step
    rss_mb             resident memory of this process
    data_wait          share of the time since the line before that the loop stood waiting for its next batch
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import rich.console
import rich.live
import rich.table
from tensorboardX import SummaryWriter

FILE = 'metrics.jsonl'
TIMES = 'times.jsonl'


def divide(metrics: dict[str, tuple[Any, Any]]) -> dict[str, float]:
    """Host pairs (sum, count) -> means, without those of which nothing was counted."""
    return {name: float(total) / float(count) for name, (total, count) in sorted(metrics.items()) if count}


def truncate(path: pathlib.Path, step: int) -> None:
    """Keep the lines of a metrics file up to and with `step`; a line that was cut short while written goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)['step'] > step:
                break
        except ValueError:
            break
        kept.append(line + '\n')
    part = path.with_name(path.name + '.part')
    part.write_text(''.join(kept))
    part.replace(path)


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 90 else f'{minutes // 60} h {minutes % 60:02d} min'


def resident_mb() -> float:
    """Resident memory of this process in MB; where the system does not tell (not Linux), the most it has been."""
    try:
        pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except (OSError, IndexError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == 'darwin' else 1024) / 1e6


class Reporter:
    """Where a run's metrics go. Use as a context, so that the live table is closed whatever happens."""

    def __init__(
        self, workdir: str | os.PathLike, steps: int, start: int = 0, console: rich.console.Console | None = None
    ):
        workdir = pathlib.Path(workdir)
        for name in (FILE, TIMES):
            truncate(workdir / name, start)
        self._file, self._times = (workdir / FILE).open('a'), (workdir / TIMES).open('a')
        self._board = SummaryWriter(str(workdir / 'tensorboard'), purge_step=start + 1)
        self._steps, self._start = steps, start
        self._began: tuple[float, int] | None = None
        self._waited, self._lap = 0.0, time.monotonic()
        self._latest: dict[str, float] = {}
        self._console = console or rich.console.Console(file=sys.stdout)
        self._live = rich.live.Live(console=self._console, refresh_per_second=2) if self._console.is_terminal else None

    def __enter__(self) -> Reporter:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()
        self._file.close()
        self._times.close()
        self._board.close()

    def say(self, text: str) -> None:
        """One line of text, above the table where there is one."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        if not self._live:
            self._console.file.flush()

    def tick(self, step: int) -> None:
        """A step is done: speed and expected time are measured from the second on."""
        if self._began is None:
            self._began = (time.monotonic(), step)
        elif step == self._began[1] + 3:
            self.say(f'{1000 * self._pace(step):.0f} ms a step: {self._left(step)} to go')

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the fetching of a batch."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - began

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics of a step, to all three."""
        plain = {k: v if math.isfinite(v) else str(v) for k, v in metrics.items()}
        self._file.write(json.dumps({'step': step, **plain}) + '\n')
        self._file.flush()
        for name, value in metrics.items():
            if math.isfinite(value):  # TensorBoard has nothing to show for the others
                self._board.add_scalar(name, value, step)
        times = self._spent(step)
        self._times.write(json.dumps({'step': step, **times}) + '\n')
        self._times.flush()
        for name, value in times.items():
            self._board.add_scalar(name, value, step)
        metrics = {**metrics, **times}
        self._latest.update(metrics)
        if self._live:
            self._live.update(self._table(step))
        else:
            values = '  '.join(
                f'{k} {v:.4g}' for k, v in metrics.items() if k not in ('skipped', 'skipped_in_a_row') or v
            )
            self.say(f'step {step}/{self._steps}  {values}  {self._left(step)} to go')

    def _spent(self, step: int) -> dict[str, float]:
        """The line of times.jsonl; the next one counts from here."""
        now, pace = time.monotonic(), self._pace(step)
        share = self._waited / max(now - self._lap, 1e-9)
        self._waited, self._lap = 0.0, now
        speed = {'steps_per_second': 1 / pace} if pace else {}
        return {**speed, 'rss_mb': resident_mb(), 'data_wait': min(share, 1.0)}

    def _pace(self, step: int) -> float:
        """Seconds a step, since the first one."""
        if self._began is None or step <= self._began[1]:
            return 0.0
        return (time.monotonic() - self._began[0]) / (step - self._began[1])

    def _left(self, step: int) -> str:
        pace = self._pace(step)
        return duration(pace * (self._steps - step)) if pace else '?'

    def _table(self, step: int) -> rich.table.Table:
        pace = self._pace(step)
        speed = f'{1 / pace:.2f} steps/s, ' if pace else ''
        table = rich.table.Table(
            min_width=60, title=f'step {step} of {self._steps}: {speed}{self._left(step)} to go', title_justify='left'
        )
        table.add_column('metric')
        table.add_column('value', justify='right')
        for name, value in self._latest.items():
            table.add_row(name, f'{value:.5g}')
        return table


class Quiet(Reporter):
    """The reporter of all processes but the first: the same numbers need writing once."""

    def __init__(self) -> None:
        self._waited = 0.0

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def tick(self, step: int) -> None:
        pass

    def write(self, step: int, metrics: dict[str, float]) -> None:
        pass
