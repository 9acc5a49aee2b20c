"""What a dataset holds: episodes, lengths, actions, rewards and pictures, as a page and a short table.

    python launch/dataset.py --path=runs/doorkey/data [--out=page.html] [--most=1000]

Reads the episodes one by one, so memory does not grow with the dataset.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import sys

from absl import flags, logging

from launch import command

PATH = flags.DEFINE_string('path', None, 'Folder of the dataset.', required=True)
OUT = flags.DEFINE_string('out', '', 'File of the page; default PATH.html, beside the dataset.')
MOST = flags.DEFINE_integer('most', 0, 'Episodes read of each split at most, evenly spaced; 0 for all.', lower_bound=0)
FILMS = flags.DEFINE_integer('films', 6, 'Episodes of which frames are shown.', lower_bound=0)


def main(argv: list[str]) -> None:
    del argv
    from rich.console import Console
    from rich.progress import Progress

    from worldmodels.data import statistics
    from worldmodels.evaluation import dataset

    logging.set_verbosity(logging.WARNING)
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160)
    path = os.path.abspath(os.path.expanduser(PATH.value)).rstrip('/')
    # Its import puts another in the place of Python's for a while, which the bar's thread must not meet.
    import tensorflow_datasets  # noqa: F401

    with Progress(console=console) as bar:
        task = bar.add_task('reading episodes', total=None)
        numbers, shown = statistics.gather(
            path, MOST.value, FILMS.value, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    out = pathlib.Path(OUT.value or f'{path}.html')
    page = dataset.write(out, numbers, shown, os.path.basename(path), shlex.join(['python', *sys.argv]))
    console.print(dataset.table(numbers))
    console.print(f'{dataset.amount(numbers["bytes"])} on disk. {page}', soft_wrap=True)


if __name__ == '__main__':
    command.run(main, 'reading the dataset')
