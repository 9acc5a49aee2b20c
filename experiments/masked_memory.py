"""The masked paradigm from end to end: the masked transition with the masked memory, and what each half of the memory's own
training is worth.

python launch/sweep.py --table=experiments/masked_memory.py --workdir=runs/memory
python launch/sweep.py --table=experiments/masked_memory.py --workdir=runs/memory --only=cue-nested

One row alone:

python launch/collect.py --world=recall/Cue --policy=random --steps=200000 --path=runs/memory/cue/data
python launch/train.py --config=experiments/masked_memory.py:nested,world=cue --workdir=runs/memory/cue/nested
python launch/recall.py --workdir=runs/memory/cue/nested

Variants: `nested`, as the memory is meant; `whole`, asked about the past with all of its slots in sight; `unasked`, trained by
the transition alone, its own loss weighing nothing. The data are those of `memory_table.py`: delays from 4 to 64 frames, and
asked at 4 to 1,024.

Rows are written to masked_memory.csv beside this file, in short in BUILD_NOTES.md. What they show (one seed, 1,500 steps of 2
to 3 minutes on one core each, 200 episodes a delay):

- With the masked transition this memory answers Cue up to the longest delay of training, 64 frames, and partly at 256.
- Hiding slots costs memory: `whole` answers 86% after 256 frames, `nested` 56%. What it buys, a memory that can be cut
  afterwards, is not measured here. Its own loss brings nothing on Cue: `unasked` does as well as `nested`.
- On Place none learns much (15 to 24% after 4 frames, guessing gets 2), though the same memory with the categorical transition
  answers 9 of 10. A likely reason, not examined: in most of its training examples some of the answer's cells are shown.
  On List none learns anything in 1,500 steps; with the categorical transition it does not either.

Sizes: tiny (a few steps), laptop (two cores, minutes), accelerator (16 slots of 256, one GPU, hours; not run).
"""

from __future__ import annotations

import ml_collections

from experiments import memory_table
from experiments.arguments import parse
from experiments.table import Row, markdown, number

VARIANTS = {
    'nested': {},
    'whole': {'model.memory.hide': 0.0},
    'unasked': {'train.weights.recall': 0.0},
}
"""What differs from `nested`."""
WORLDS = ('cue', 'place', 'list')
SIZES = {
    'tiny': {'slots': 2, 'width': 8, 'heads': 2, 'hidden': 8},
    'laptop': {},
    'accelerator': {'slots': 16, 'width': 256, 'heads': 8, 'hidden': 1024, 'depth': 2},
}
"""Fields of the memory, and but for the slots of the transition, where they are not those of `memory_table`."""


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: nested, whole, unasked. Options: world (cue, place, list), size (tiny, laptop, accelerator)."""
    variant, options = parse(arg, tuple(VARIANTS), world='cue', size='laptop')
    for name, known in (('world', WORLDS), ('size', SIZES)):
        if options[name] not in known:
            raise ValueError(f"{name} '{options[name]}' is not one of {', '.join(known)}.")
    config = memory_table.get_config(f'masked,world={options["world"]},transition=masked,size={options["size"]}')
    memory = SIZES[options['size']]
    config.model.memory.update(memory)
    config.model.transition.update({name: value for name, value in memory.items() if name != 'slots'})
    if options['size'] == 'accelerator':
        config.optimizer.learning_rate = 1e-3
    config.update_from_flattened_dict(VARIANTS[variant])
    return config


def get_table(workdir: str) -> list[Row]:
    """Rows cue-nested, cue-whole, ..., list-unasked."""
    return [_row(workdir, world, variant) for world in WORLDS for variant in VARIANTS]


def summary(rows: list[dict[str, str]]) -> str:
    """Percent of right answers by world, variant and delay."""
    found = {row['name']: row for row in rows}
    delays = (4, 16, 64, 256, 1024)

    def line(world: str, variant: str):
        row = found.get(f'{world}-{variant}', {})
        yield from (world.capitalize(), variant)
        yield from (number(row, f'recall_{delay}', '.0f', 100) for delay in delays)

    columns = ('world', 'variant', *(f'{delay:,}' for delay in delays))
    return markdown(columns, (line(world, variant) for world in WORLDS for variant in VARIANTS))


def _row(workdir: str, world: str, variant: str) -> Row:
    play, _ = memory_table.prepared(workdir, world, 'masked')
    run, config = f'{workdir}/{world}/{variant}', f'--config=experiments/masked_memory.py:{variant},world={world}'
    train = ('launch/train.py', config, f'--workdir={run}', f'--config.data.path={workdir}/{world}/data')
    stages = (play, ('train', train), ('ask', ('launch/recall.py', f'--workdir={run}')))
    about = {
        'world': memory_table.WORLDS[world]['name'],
        'variant': variant,
        'seed': 0,
        'chance': memory_table.CHANCE[world],
    }
    return Row(f'{world}-{variant}', about, stages, f'{run}/recall/report.json', ())
