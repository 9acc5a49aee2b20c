"""Is the memory believed? Predictions with it intact, reset, and another episode's, for every memory and transition.

python launch/sweep.py --table=experiments/memory_anchoring.py --workdir=runs/memory

In the same folder as `memory_table.py` its trainings are found done. Rows are written to memory_anchoring.csv beside this file.

Not measured as a whole yet. The recurrent memory on Cue, delay 16, 200 episodes (`launch/recall.py --anchoring` on the row of
`memory_table.py`): nats a frame at the answer 0.03 intact, 2.42 reset, 5.88 swapped; over all ticks 2.30, 2.58, 2.62.
"""

from __future__ import annotations

from experiments import memory_table
from experiments.table import Row

WORLDS = ('cue', 'place', 'list')
TRANSITIONS = ('categorical', 'masked')


def get_table(workdir: str) -> list[Row]:
    """Rows cue-none-categorical, ...: every memory with the categorical transition, every transition with two memories."""
    pairs = [(memory, 'categorical') for memory in memory_table.variants()]
    pairs += [(memory, transition) for transition in TRANSITIONS[1:] for memory in ('none', 'recurrent')]
    return [_row(workdir, world, *pair) for world in WORLDS for pair in pairs]


def _row(workdir: str, world: str, memory: str, transition: str) -> Row:
    stages = memory_table.prepared(workdir, world, memory, transition)
    run = next(word for word in stages[-1][1] if word.startswith('--workdir='))
    about = {'world': memory_table.WORLDS[world]['name'], 'memory': memory, 'transition': transition, 'seed': 0}
    stages = (*stages, ('compare', ('launch/recall.py', run, '--anchoring')))
    report = f'{run.removeprefix("--workdir=")}/anchoring/report.json'
    return Row(f'{world}-{memory}-{transition}', about, stages, report, ())
