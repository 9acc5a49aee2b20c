"""Turns foreign data into a dataset of episodes, once.

    python launch/convert.py --source=npz:data/replay --describe > mapping.json
    python launch/convert.py --source=npz:data/replay --path=data/mine [--mapping=mapping.json] [--set=action.size=6 ...]
    python launch/train.py --config=experiments/doorkey.py:recurrent --config.data.path=data/mine --workdir=runs/mine

Kinds of source: tfds (any TFDS or RLDS directory), npz (a folder of episodes), minari (a dataset's folder), video (a folder of
videos, with what was done beside them or without). --describe shows what a source holds and prints the mapping that would
be used, ready to be changed. See worldmodels/data/mapping.py for its fields.

Killed at any time, the same command goes on; finished, it says so.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import Any

from absl import flags, logging

from launch import command, progress

SOURCE = flags.DEFINE_string('source', None, 'KIND:PATH; kinds tfds, npz, minari, video.', required=True)
PATH = flags.DEFINE_string('path', '', 'Folder of the dataset to write.')
MAPPING = flags.DEFINE_string('mapping', '', 'JSON file with any part of a mapping; the rest is inferred.')
SET = flags.DEFINE_multi_string(
    'set', [], 'A field of the mapping, as in observation.image.resize=[64,64]; repeatable.'
)
DESCRIBE = flags.DEFINE_bool('describe', False, 'Print what the source holds and the mapping, and convert nothing.')
ON_BAD = flags.DEFINE_enum('on_bad', 'refuse', ['refuse', 'drop'], 'At an episode that is bad: stop, or leave it out.')

PACKAGES = {'minari': ('minari', 'h5py'), 'video': ('av',)}  # whose versions are kept with the data


def given(path: str, settings: list[str]) -> dict[str, Any]:
    """What a file and single settings say of a mapping. Raises ValueError where they say nothing that can be read."""
    mapping: dict[str, Any] = {}
    if path:
        try:
            with open(path, encoding='utf-8') as file:
                mapping = json.load(file)
        except (OSError, ValueError) as error:
            raise ValueError(f'--mapping={path} is no JSON file that can be read ({error}).') from None
        if not isinstance(mapping, dict):
            raise ValueError(
                f'--mapping={path} holds {type(mapping).__name__}, expected a table, as --describe prints it.'
            )
    for setting in settings:
        name, equals, text = setting.partition('=')
        *tables, field = name.split('.')
        if not equals or not field or not all(tables):
            raise ValueError(f'--set={setting}: give NAME=VALUE, as in --set=action.size=6.')
        try:
            value = json.loads(text)
        except ValueError:
            value = text  # a name need not be quoted
        place = mapping
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise ValueError(f'--set={setting}: {table} is no table, it is {place!r}.')
        place[field] = value
    return mapping


def describe(plan: Any, seen: Any) -> None:
    """The mapping as JSON to stdout, for a file, and a table of the source's fields to stderr, for the eye."""
    from rich.console import Console
    from rich.table import Table

    from worldmodels.data import infer

    table = Table('field', 'dtype', 'a row', 'least', 'most', title=f'{plan.source.kind}: {plan.source.path}')
    for name, dtype, shape, least, most in infer.fields(seen):
        table.add_row(name, dtype, str(shape), least, most)
    console = Console(file=sys.stderr, soft_wrap=True)
    console.print(table)
    splits = ', '.join(f'{name} {count:,}' for name, count in plan.source.splits.items())
    console.print(f'{seen.items} items looked at; splits: {splits}. The mapping that would be used:')
    text = json.dumps(plan.mapping.to_json(), indent=1)
    # Lists of numbers or names on one line.
    print(re.sub(r'\[\s+([^][{}]*?)\s+\]', lambda found: f'[{" ".join(found[1].split())}]', text))


def main(argv: list[str]) -> None:
    del argv
    from rich.console import Console

    from worldmodels.data import convert, episodes, making, sources

    logging.set_verbosity(logging.WARNING)
    console = Console(file=sys.stdout, soft_wrap=True)
    plan, seen = convert.prepare(*sources.parse(SOURCE.value), given(MAPPING.value, SET.value))
    if DESCRIBE.value:
        describe(plan, seen)
        return
    if not PATH.value:
        raise ValueError('--path is missing: give the folder of the dataset to write, or --describe to look first.')
    path = os.path.abspath(os.path.expanduser(PATH.value)).rstrip('/')
    if making.is_complete(path, plan.settings, 'converted'):
        console.print(f'{path} is complete: nothing to do.')
        return
    size = plan.frames * episodes.frame_bytes(plan.mapping.spec) / 1e6
    console.print(
        f'{plan.source.kind}: {sum(map(len, plan.items.values())):,} items, {plan.source.nbytes / 1e6:,.1f} MB on disk; '
        f'{"about" if plan.exact else "at least"} {plan.frames:,} frames, {size:,.1f} MB before compression, as much in '
        f'{path}.parts while it runs.'
    )
    # Its import puts another in the place of Python's for a while, which the bar's thread must not meet.
    import tensorflow_datasets  # noqa: F401

    start = time.time()
    with progress.bar(console) as bar:
        tasks = {stage: bar.add_task(stage, total=None) for stage in ('converting', 'writing')}
        packages = ('numpy', 'tensorflow-datasets', 'array_record', 'pillow', *PACKAGES.get(plan.source.kind, ()))
        written = convert.convert(
            path,
            plan,
            making.provenance(packages),
            ON_BAD.value,
            lambda stage, done, total: bar.update(tasks[stage], completed=done, total=total),
        )
    for split, lengths in written['lengths'].items():
        console.print(f'{split}: {len(lengths):,} episodes, {sum(lengths):,} frames')
    for reason, count in written['dropped'].items():
        if count:
            console.print(f'dropped, {reason.replace("_", " ")}: {count:,}')
    console.print(f'{path} written in {time.time() - start:.0f} s.')


if __name__ == '__main__':
    command.run(main, 'converting')
