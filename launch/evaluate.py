"""Dreams of a trained world model on held-out starts, and a report on them.

    python launch/evaluate.py --workdir=runs/demo [--baseline=runs/other ...] [--starts=200 --horizon=15 --seeds=3]
    python launch/evaluate.py --workdir=runs/demo --dial=steps=4 --dial=temperature=0.8

A dial says how the transition samples, otherwise than its config does. Writes WORKDIR/evaluation/report.html and
report.json, prints a table, and ends with the path of the report.
"""

import shlex
import sys

from absl import flags, logging
from rich.console import Console

from launch import command
from worldmodels.training import allocator

WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of the run to examine.', required=True)
BASELINE = flags.DEFINE_multi_string('baseline', [], 'Workdir of a run to compare with on the same starts; repeatable.')
OUT = flags.DEFINE_string('out', '', 'Folder of the report; default WORKDIR/evaluation.')
DATA = flags.DEFINE_string('data', '', 'Dataset; default: the one the run was trained on.')
STARTS = flags.DEFINE_integer('starts', None, 'Held-out starts; default config.evaluate.starts.')
CONTEXT = flags.DEFINE_integer('context', None, 'Ticks watched before dreaming.')
HORIZON = flags.DEFINE_integer('horizon', None, 'Ticks dreamed.')
DIAL = flags.DEFINE_multi_string('dial', [], 'NAME=VALUE: how the transition samples, as steps=4; repeatable.')
SEEDS = flags.DEFINE_integer('seeds', None, 'Dreams of each start.')


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells every read in a dozen lines
    allocator.keep_freed_memory()
    from worldmodels.evaluation import examine, settings  # after the flags are read: --help answers at once

    plan = examine.prepare(
        WORKDIR.value,
        BASELINE.value,
        data=DATA.value,
        starts=STARTS.value,
        context=CONTEXT.value,
        horizon=HORIZON.value,
        seeds=SEEDS.value,
        dials=settings.parse_dials(DIAL.value),
    )
    page, results = examine.run(plan, out=OUT.value, command=shlex.join(['python', *sys.argv]))
    Console().print(examine.table(results))
    print(page)


if __name__ == '__main__':
    command.run(main, 'evaluating')
