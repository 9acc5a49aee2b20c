"""Every world there is to play: what it shows, what can be done in it, what it pays, and how fast it runs here.

    python launch/worlds.py
    python launch/worlds.py minatar craftax             only those whose names hold one of the words
    python launch/worlds.py craftax --options           and what can be set about each
    python launch/worlds.py navix/DoorKey --measure     and steps a second, played at random through the loop

A family whose package is missing is named at the end, with how to install it. Times depend on the machine and on what
else runs on it.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
import warnings

from absl import flags, logging

from launch import command
from worldmodels.training import allocator

_MEASURE = flags.DEFINE_bool('measure', False, 'Also compile and play each, and say how fast it is.')
_LANES = flags.DEFINE_integer('lanes', None, 'Worlds measured side by side. Default: 64, outside JAX 8.', lower_bound=1)
_OPTIONS = flags.DEFINE_bool('options', False, 'Also list what can be set about each, with defaults.')
_JSON = flags.DEFINE_string('json', '', 'File to write everything to.')


def main(argv: list[str]) -> None:
    allocator.keep_freed_memory()
    from rich.console import Console
    from rich.progress import Progress

    from worldmodels import worlds
    from worldmodels.evaluation import machine
    from worldmodels.evaluation import worlds as listing

    logging.set_verbosity(logging.WARNING)
    console = Console(width=None if sys.stdout.isatty() else 200)
    found = []
    start = time.time()
    names = listing.find(argv[1:])
    # On stderr, so that the table can be piped.
    with Progress(console=Console(stderr=True), transient=True) as bar, warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)  # Gymnasium's, of old versions that it lists itself
        task = bar.add_task('', total=len(names))
        for name in names:
            bar.update(task, description=name)
            row = listing.describe(name)
            if _MEASURE.value and 'error' not in row:
                row['measured'] = listing.measure(name, _LANES.value)
            found.append(row)
            bar.advance(task)
    show(console, found)
    missing = worlds.missing()
    for sentence in missing.values():
        console.print(sentence, style='yellow', markup=False, highlight=False)
    console.print(f'{len(found)} worlds in {time.time() - start:.0f} s.', highlight=False)
    if _JSON.value:
        report = {'machine': machine.machine(), 'worlds': found, 'missing': missing}
        pathlib.Path(_JSON.value).write_text(json.dumps(report, indent=2) + '\n')


def show(console, found: list[dict]) -> None:
    from rich.table import Table

    from worldmodels.evaluation import worlds as listing
    from worldmodels.types import Spec

    table = Table(box=None, pad_edge=False)
    for title in ('world', 'observation', 'actions', 'outcomes', 'steps'):
        table.add_column(title, justify='right' if title == 'steps' else 'left', no_wrap=title == 'world')
    if _MEASURE.value:
        for title in ('steps/s', 'lanes', 'compiled in', 'an opening'):
            table.add_column(title, justify='right')
    if _OPTIONS.value:
        table.add_column('options')
    for row in found:
        if 'error' in row:
            table.add_row(row['name'], f'[yellow]{row["error"]}')
            continue
        spec = Spec.from_json(row)
        cells = [
            row['name'],
            listing.shown_observation(spec),
            listing.shown_action(spec.action),
            ', '.join(spec.outcomes),
            f'{row["max_steps"]:,}' if row['max_steps'] else '',
        ]
        if _MEASURE.value:
            cells += timed(row['measured'])
        if _OPTIONS.value:
            cells.append(', '.join(f'{key}={value}' for key, value in row['options'].items()))
        table.add_row(*cells)
    console.print(table)


def timed(measured: dict) -> list[str]:
    if 'error' in measured:
        return [measured['error'], '', '', '']
    opening = measured['opening_ms']
    return [
        f'{measured["steps_per_second"]:,.0f}',
        str(measured['lanes']),
        f'{measured["compile_seconds"]:.1f} s' if opening is not None else '',
        f'{opening:.2g} ms' if opening is not None else '',
    ]


if __name__ == '__main__':
    command.run(main, 'listing worlds', takes_words=True)
