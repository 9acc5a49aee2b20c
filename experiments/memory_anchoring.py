"""Is the memory believed? Predictions with it intact, reset, and another episode's, for every memory and transition.

python launch/sweep.py --table=experiments/memory_anchoring.py --workdir=runs/memory

In the same folder as `memory_table.py` its trainings are found done. Rows are written to memory_anchoring.csv beside this file.

On Cue, delay 16, 200 episodes, nats a frame at the answer; guessing among eight costs 2.08:

| memory | intact | reset | another's |
|---|---|---|---|
| none | 2.10 | 2.10 | 2.10 |
| raw_1 | 2.10 | 2.10 | 2.10 |
| raw_5 | 2.11 | 2.11 | 2.11 |
| raw_20 | 0.03 | 2.12 | 5.92 |
| window | 0.03 | 2.10 | 5.99 |
| recurrent | 0.03 | 2.12 | 6.02 |
| state_space | 0.02 | 2.10 | 6.19 |
| state_space_delta | 0.02 | 2.10 | 6.20 |
| compressive | 0.02 | 2.10 | 6.13 |
| masked | 0.02 | 2.14 | 6.07 |
| retrieval | 0.02 | 2.10 | 6.12 |
| stack | 0.02 | 2.14 | 6.14 |

So every memory that reaches 16 ticks is believed: intact < reset < another's, over all ticks too (2.30, 2.40, 2.63 for
`recurrent`), with every bound of the differences above 0. On List only the state spaces
learned to answer, and are believed: 0.04, 2.24, 4.47 by the delta rule. The rest is not measured yet.
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
