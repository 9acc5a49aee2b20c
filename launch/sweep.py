"""Run a table: each row trains and judges a model, and is written into a CSV as soon as it is done.

    python launch/sweep.py --table=experiments/real_worlds.py --workdir=runs/real_worlds
    python launch/sweep.py --table=experiments/real_worlds.py --workdir=runs/real_worlds --only=minatar-masked --again
    python launch/sweep.py --table=experiments/memory_table.py --workdir=runs/memory --picture=memory.png
    python launch/sweep.py --table=experiments/memory_table.py --workdir=runs/memory --summary

Rows that the CSV has are left alone, and stages that were finished are not run again: killed at any time, the same command
goes on. The CSV stands beside the table and belongs into version control: every row names its commit, hardware and seconds.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import pathlib
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from experiments.table import Row, measured
from launch import command, stages
from worldmodels.data import making
from worldmodels.training import experiment

_TABLE = flags.DEFINE_string('table', None, 'File with get_table(workdir).', required=True)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of all that the rows make.', required=True)
_CSV = flags.DEFINE_string('csv', '', 'Where the rows are written; default: beside the table, with its name.')
_ONLY = flags.DEFINE_multi_string('only', [], 'Name of a row to run; repeatable. Default: all that are missing.')
_AGAIN = flags.DEFINE_bool('again', False, 'Run rows that the CSV has already; finished stages run again too.')
_PICTURE = flags.DEFINE_string(
    'picture', '', 'Draw the rows of the CSV here, and run nothing: for tables with draw(rows).'
)
_SUMMARY = flags.DEFINE_bool(
    'summary',
    False,
    'Print the rows of the CSV as a short table in Markdown, and run nothing: for tables with summary(rows).',
)
_LIST = flags.DEFINE_bool('list', False, 'Say which rows there are and which are done, and run nothing.')


def main(argv: list[str]) -> None:
    del argv
    module, rows = load(_TABLE.value, _WORKDIR.value)
    path = pathlib.Path(_CSV.value or pathlib.Path(_TABLE.value).with_suffix('.csv'))
    if _PICTURE.value:
        drawn(module, 'draw', path).savefig(_PICTURE.value, dpi=150)
        print(_PICTURE.value)
        return
    if _SUMMARY.value:
        print(drawn(module, 'summary', path))
        return
    for name in _ONLY.value:
        if name not in rows:
            near = difflib.get_close_matches(name, rows, 1) or rows
            raise ValueError(f'--only={name} is no row of {_TABLE.value}: did you mean {" or ".join(near)}?')
    chosen = [row for name, row in rows.items() if not _ONLY.value or name in _ONLY.value]
    done = read(path)
    if not _AGAIN.value:
        for row in chosen:
            if row.name in done and done[row.name]['commands'] != digest(row):
                raise ValueError(
                    f"The row '{row.name}' in {path} was made by other commands than the table's: give --again to run it "
                    'anew, or take it out of the file.'
                )
        chosen = [row for row in chosen if row.name not in done]
    if _LIST.value:
        for name in rows:
            print(f'{"done" if name in done else "    "}  {name}')
        return
    failed = []
    for number, row in enumerate(chosen, 1):
        try:
            columns = run(row, f'row {number} of {len(chosen)}, {row.name}')
        except ValueError as error:
            print(f'row {row.name} failed: {error}', flush=True)
            failed.append(row.name)
            continue
        write(path, {**read(path), row.name: columns}, list(rows))
    show(Console(), read(path))
    if failed:
        raise ValueError(f'{len(failed)} of {len(chosen)} rows failed ({", ".join(failed)}); the others are in {path}.')
    print(path)


def load(table: str, workdir: str) -> tuple[Any, dict[str, Row]]:
    """The module of a table, and its rows by name."""
    module, rows = experiment.run(
        table, workdir.rstrip('/'), 'table', 'get_table', 'workdir', 'rows', 'experiments/real_worlds.py'
    )
    return module, {row.name: row for row in rows}


def drawn(module: Any, how: str, path: pathlib.Path) -> Any:
    """What a table's `draw` or `summary` makes of its CSV. Raises ValueError for a table without it, and without rows."""
    if not hasattr(module, how):
        raise ValueError(f'{_TABLE.value} has no {how}(rows): only tables that have one can show their rows so.')
    rows = read(path)
    if not rows:
        raise ValueError(
            f'{path} has no rows to show: run the table first, the same command without --picture or --summary.'
        )
    return getattr(module, how)(list(rows.values()))


def run(row: Row, title: str) -> dict[str, str]:
    """Run what is missing of a row, and return its columns."""
    folder = pathlib.Path(_WORKDIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / 'stages.json'
    seconds = {'seconds': 0.0, 'training_seconds': 0.0}
    for number, (about, stage) in enumerate(row.stages, 1):
        key = ' '.join(stage)
        known = json.loads(log.read_text()) if log.exists() else {}
        if _AGAIN.value or not known.get(key, {}).get('done'):
            spent = 0.0 if _AGAIN.value else known.get(key, {}).get('seconds', 0.0)
            spent += stages.run(stage, f'[{title}: {number}/{len(row.stages)}] {about}')
            known[key] = {'seconds': round(spent, 1), 'done': True}
            with making.whole(str(log)) as temporary:
                pathlib.Path(temporary).write_text(json.dumps(known, indent=1))
        seconds['seconds'] += known[key]['seconds']
        seconds['training_seconds'] += known[key]['seconds'] if stage[0] == 'launch/train.py' else 0.0
    report = json.loads((stages.ROOT / row.report).read_text())
    return {
        'name': row.name,
        **{k: str(v) for k, v in row.about.items()},
        **{k: f'{v:.4g}' if isinstance(v, float) else str(v) for k, v in measured(report, row.measures).items()},
        **{k: f'{v:.0f}' for k, v in seconds.items()},
        'hardware': report['hardware'],
        'jax': report['versions']['jax'],
        'commit': _commit(),
        'commands': digest(row),
    }


def digest(row: Row) -> str:
    """Eight hexadecimal digits that change with what a row runs or measures, and not with the folder it runs in."""
    text = repr((row.stages, row.measures)).replace(_WORKDIR.value.rstrip('/'), 'WORKDIR')
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def read(path: pathlib.Path) -> dict[str, dict[str, str]]:
    """The rows of a CSV by name; none where there is no file."""
    if not path.exists():
        return {}
    with path.open(newline='') as file:
        return {row['name']: {k: v for k, v in row.items() if v != ''} for row in csv.DictReader(file)}


def write(path: pathlib.Path, rows: dict[str, dict[str, str]], order: list[str]) -> None:
    """Write rows in the table's order, those it does not know last; the file appears whole."""
    names = [name for name in order if name in rows] + [name for name in rows if name not in order]
    columns = list(dict.fromkeys(k for name in names for k in rows[name]))
    with making.whole(str(path)) as temporary, open(temporary, 'w', newline='') as file:
        writer = csv.DictWriter(file, columns, restval='', lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows[name] for name in names)


def show(console: Console, rows: dict[str, dict[str, str]]) -> None:
    """What the CSV has, but for where it was made and the bounds of intervals; in a file no column is cut."""
    hidden = ('hardware', 'jax', 'commit', 'commands')
    names = dict.fromkeys(k for row in rows.values() for k in row)
    columns = [k for k in names if k not in hidden and not k.endswith(('_low', '_high'))]
    table = Table(*columns)
    for row in rows.values():
        table.add_row(*(row.get(k, '') for k in columns))
    if not console.is_terminal:
        console.width = max(console.width, console.measure(table, options=console.options.update(width=10_000)).maximum)
    console.print(table)


def _commit() -> str:
    """The commit of this project, '+' behind it where files differ from it."""
    commit = making.git('rev-parse', '--short=10', 'HEAD')
    return (commit + ('+' if making.git('status', '--porcelain', '--untracked-files=no') else '')) or 'unknown'


if __name__ == '__main__':
    command.run(main, 'running a table')
