"""Is the memory believed? Predictions with it intact, reset, and another episode's, for every memory and transition.

python launch/sweep.py --table=experiments/memory_anchoring.py --workdir=runs/memory

In the same folder as `memory_table.py` its trainings are found done. Rows are written to memory_anchoring.csv beside this file.

What it shows, at delay 16 in 200 episodes (the numbers are in BUILD_NOTES.md, from this file's `summary`):

- Every memory that answers is believed: intact < reset < another's, with every bound of the differences above 0; on Cue 0.02,
  2.1 and 6 nats, guessing among eight costing 2.08. So it is with the masked transition.
- `retrieval` must have seen an empty bank before a question: trained with beliefs forgotten in a tenth of the segments, not
  three tenths, it took one on List for an opening, and was more surprised by it (5.2 nats) than by another episode's (4.0).
- What does not reach back 16 ticks, or has not learned to (`none`, `raw_1`, `raw_5`; most on List), gains nothing by its own
  past. It can be surprised all the same: by no past at all (on List up to 3.8 nats), or by another's (`window` on Place, 9.2).
"""

from __future__ import annotations

from experiments import memory_table
from experiments.table import Row, markdown

WORLDS = ('cue', 'place', 'list')
PAIRS = (
    *((memory, 'categorical') for memory in memory_table.variants()),
    *((memory, 'masked') for memory in ('none', 'recurrent')),
)
"""Every memory with the categorical transition, the masked transition with two memories."""


def get_table(workdir: str) -> list[Row]:
    """Rows cue-none-categorical, ..., list-recurrent-masked."""
    return [_row(workdir, world, *pair) for world in WORLDS for pair in PAIRS]


def summary(rows: list[dict[str, str]]) -> str:
    """Nats a frame at the answer with the memory intact, reset and another's, by world; – where no row is."""
    found = {(row['world'], row['memory'], row['transition']): row for row in rows}
    names = {world: memory_table.WORLDS[world]['name'] for world in WORLDS}

    def cell(*which: str) -> str:
        row = found.get(which)
        if not row:
            return '–'
        return ', '.join(f'{float(row[f"nll_{how}_answer"]):.2f}' for how in ('intact', 'reset', 'swapped'))

    return markdown(
        ('memory', 'transition', *(world.capitalize() for world in WORLDS)),
        ((f'`{pair[0]}`', pair[1], *(cell(name, *pair) for name in names.values())) for pair in PAIRS),
    )


def _row(workdir: str, world: str, memory: str, transition: str) -> Row:
    stages = memory_table.prepared(workdir, world, memory, transition)
    run = next(word for word in stages[-1][1] if word.startswith('--workdir='))
    about = {'world': memory_table.WORLDS[world]['name'], 'memory': memory, 'transition': transition, 'seed': 0}
    stages = (*stages, ('compare', ('launch/recall.py', run, '--anchoring')))
    report = f'{run.removeprefix("--workdir=")}/anchoring/report.json'
    return Row(f'{world}-{memory}-{transition}', about, stages, report, ())
