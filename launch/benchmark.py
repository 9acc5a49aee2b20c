"""What world models cost here: to compile, train and dream, and the share of the machine's peak that is reached.

    python launch/benchmark.py tokenizer masked_dynamics             the workloads of experiments/benchmarks.py
    python launch/benchmark.py experiments/doorkey.py:masked         any experiment
    python launch/benchmark.py masked_dreaming --stream              latency of single frames, deadline misses
    python launch/benchmark.py masked_dreaming --curve=10000         cost of a dreamed frame, the 10th to the 10,000th
    python launch/benchmark.py tokenizer --profile                   where the time goes, and what limits it there
    python launch/benchmark.py --read=runs/doorkey/data              segments read a second, against TFDS alone

But for --read, data are random and already on the device. Machines differ, so compare shares of the peak, and times only
side by side.
"""

from __future__ import annotations

import json
import pathlib
import sys

import ml_collections
from absl import app, flags, logging
from rich.console import Console
from rich.table import Table

from launch import command
from worldmodels.training import allocator, experiment

REPEATS = flags.DEFINE_integer('repeats', 10, 'Timed runs of each program; the median counts.', lower_bound=1)
STREAM = flags.DEFINE_bool('stream', False, 'Also dream frame by frame at batch 1, to the host.')
DEADLINE = flags.DEFINE_float('deadline_ms', 100.0, 'A streamed frame that takes longer is a miss.', lower_bound=0.0)
CURVE = flags.DEFINE_integer('curve', 0, 'Also dream this many frames and plot the cost of each.', lower_bound=0)
PROFILE = flags.DEFINE_bool('profile', False, 'Also trace each program and name its slowest instructions.')
READ = flags.DEFINE_string('read', '', 'Also read this dataset, as training does and by TFDS alone.')
READ_BATCH = flags.DEFINE_integer('read_batch', 16, 'Segments of a batch that is read.', lower_bound=1)
READ_LENGTH = flags.DEFINE_integer('read_length', 32, 'Frames of a segment that is read.', lower_bound=1)
WORKDIR = flags.DEFINE_string('workdir', 'runs/benchmark', 'Folder of curves and traces.')
JSON = flags.DEFINE_string('json', '', 'File to write all figures to.')

BOTH = ('train', 'dream')
SHOWN = 15


def main(argv: list[str]) -> None:
    if len(argv) < 2 and not READ.value:
        raise app.UsageError('name at least one workload, or an experiment such as experiments/doorkey.py:masked')
    chosen = {name: find(name) for name in argv[1:]}
    allocator.keep_freed_memory()
    from worldmodels.evaluation import benchmark, machine  # after the flags are read: --help answers at once

    logging.set_verbosity(logging.WARNING)  # jax tells which accelerators it does not find
    console = Console(width=None if sys.stdout.isatty() else 160)
    asked = benchmark.Asked(
        REPEATS.value, STREAM.value, DEADLINE.value, CURVE.value, PROFILE.value, WORKDIR.value
    )  # fmt: skip
    results: dict[str, dict] = {}
    for name, (config, measures) in chosen.items():
        folder = name.replace('/', '_').replace(':', '_').replace('.py', '')
        results[name], profiles = benchmark.measure(folder, config, measures, asked)
        show(console, name, results[name], profiles)
    if READ.value:
        from worldmodels.evaluation import reading

        results['reading'] = reading.measure(READ.value, READ_BATCH.value, READ_LENGTH.value)
        show(console, f'reading {READ.value}', results['reading'], {})
    if JSON.value:
        report = {'machine': machine.machine(), 'workloads': results}
        pathlib.Path(JSON.value).write_text(json.dumps(report, indent=2) + '\n')


def find(name: str) -> tuple[ml_collections.ConfigDict, tuple[str, ...]]:
    """The config of a workload or of an experiment FILE.py:ARGS, and what is measured of it.

    Raises ValueError when there is no such file or workload.
    """
    if not name.partition(':')[0].endswith('.py'):
        from experiments import benchmarks

        workload = name.partition(',')[0]
        if workload not in benchmarks.MEASURES:
            valid = ', '.join(benchmarks.MEASURES)
            raise ValueError(f"'{workload}' is no workload: expected one of {valid}, or an experiment FILE.py:ARGS.")
        return benchmarks.get_config(name), benchmarks.MEASURES[workload]
    config, _ = experiment.load(name)
    return config, BOTH[:1] if tuple(config.train.parts) == ('heart',) else BOTH


def show(console: Console, name: str, result: dict, profiles: dict) -> None:
    """Print the figures of one workload, and the slowest instructions of what was profiled."""
    from worldmodels.evaluation import profile
    from worldmodels.world_model import PARTS

    table = Table(title=name, title_justify='left', show_header=False)
    table.add_column('figure')
    table.add_column('value', justify='right')
    for key, value in result.items():
        shown = (
            f'{value:.1%}'
            if key.endswith(('share_of_peak', 'share'))
            else f'{value:,.4g}'
            if value < 1000
            else f'{value:,.0f}'
        )
        table.add_row(key, shown)
    console.print(table)
    for prefix, costs in profiles.items():
        table = Table('ms', 'share', 'calls', 'instruction', 'from', 'limited by', title=f'{name}: {prefix}')
        for cost in costs[:SHOWN]:
            kind = f'{cost.instruction.kind} {cost.name}'
            scope = '/'.join(cost.instruction.scope.split('/')[-4:])
            table.add_row(f'{1e3 * cost.seconds:.1f}', f'{cost.share:.1%}', str(cost.calls), kind, scope, cost.limit)
        console.print(table)
        shares = profile.by_part(costs, PARTS)
        console.print('  '.join(f'{part} {share:.0%}' for part, share in shares.items()))


if __name__ == '__main__':
    command.run(main, 'measuring', takes_words=True)
