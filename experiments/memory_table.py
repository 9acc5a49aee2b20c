"""Which memory remembers how long, and at what price: one training for each memory and each world that asks.

python launch/sweep.py --table=experiments/memory_table.py --workdir=runs/memory
python launch/sweep.py --table=experiments/memory_table.py --workdir=runs/memory --only=cue-recurrent

Every row trains on delays drawn log-uniformly from 4 to 64 frames and is then asked at 4 to 1,024; MiniGrid's corridor is
trained on at 16 cells and asked at 8 to 128. One row alone:

python launch/collect.py --world=recall/Cue --policy=random --steps=200000 --path=runs/memory/cue/data
python launch/train.py --config=experiments/memory_table.py:recurrent,world=cue --workdir=runs/memory/cue/recurrent
python launch/recall.py --workdir=runs/memory/cue/recurrent

Rows are written to memory_table.csv beside this file; a summary is in README.md. One seed, 1,500 steps (`retrieval` 4,500, and
`FORGET`) of 1 to 7 minutes on one core each, 200 episodes a delay. What the table shows:

- `none` and `raw_1` guess everywhere. `window` and raw frames are right up to their reach (20 frames raw, 31 through two layers
  of 16) and guess beyond it, where they learned at all.
- The delta rule is best: after 1,024 frames, 16 times the longest delay of training, it always answers Cue and Place, and List
  73 times of 100; of a corridor of 128 cells it misses nothing. The diagonal `state_space` holds Cue so long (89 of 100), Place
  to 256 frames.
- `retrieval` always answers Cue after 1,024 frames, List 84 and Place 50 times of 100, hardly less than after 16 (88 and 51).
  With beliefs forgotten as seldom as in the other rows, List was 57 and Place 42. Chains it answers to 32 ticks, corridors
  never: what matters there is one of very many frames, which it did not learn to look up.
- `recurrent`, `masked` and `stack` (whose far part is recurrent) lose a cue or a place between 64 and 256 frames;
  `compressive`, whose pooled frames blur, a cue after 128.
- On List the diagonal state space learns half of what the delta rule does, an associative table by construction; the others
  nothing in so many steps.
- Chains hold to 64 ticks and to about 100, and no longer with any memory: a longer one's clock, 1 / length before its end,
  is read as run out, by a palette that knows no such value. It is not the bit that is lost.
"""

from __future__ import annotations

import dataclasses
import re

import ml_collections
import numpy as np
from matplotlib.figure import Figure

from experiments.arguments import parse
from experiments.table import Row, markdown, number
from worldmodels import memory as memories
from worldmodels.build import complete
from worldmodels.training.config import default_config

WORLDS = {
    'cue': {'name': 'recall/Cue', 'low': 4, 'high': 64},
    'place': {'name': 'recall/Place', 'low': 4, 'high': 64},
    'list': {'name': 'recall/List', 'low': 4, 'high': 64},
    'chain': {'name': 'gymnax/MemoryChain-bsuite', 'memory_length': 64, 'shortest': 4},
    'corridor': {'name': 'xminigrid/MiniGrid-MemoryS16', 'max_steps': 96},
}
CHANCE = {'cue': 1 / 8, 'place': 1 / 64, 'list': 1 / 8, 'chain': 1 / 2, 'corridor': 1 / 2}
"""What guessing gets."""
PLAYERS = {'corridor': ('--policy=scripted', '--noise=0.1')}
"""Who plays, where it is not chance: few random walks see both ends of a corridor."""
SUMMARY = {'cue': (16, 64, 256, 1024), 'place': (64, 1024), 'list': (64, 1024), 'chain': (64,), 'corridor': (16, 128)}
"""Which delays the summary has of each world."""
PAID = ('chain', 'corridor')
"""Worlds that answer with a reward; the others with a frame."""

TRANSFORMER = {'width': 32, 'heads': 4, 'hidden': 96}
SMALL = {'width': 64, 'heads': 4, 'hidden': 128, 'depth': 1}
RECIPES = {
    'none': {'kind': 'none'},
    'raw_1': {'kind': 'window', 'length': 1, 'depth': 1, **TRANSFORMER},
    'raw_5': {'kind': 'window', 'length': 5, 'depth': 1, **TRANSFORMER},
    'raw_20': {'kind': 'window', 'length': 20, 'depth': 1, **TRANSFORMER},
    'window': {'kind': 'window', 'length': 16, 'depth': 2, **TRANSFORMER},
    'recurrent': {'kind': 'recurrent', 'deter': 128, 'hidden': 64},
    'masked': {'kind': 'masked', 'slots': 4, 'depth': 1, **TRANSFORMER},
    'state_space_delta': {'kind': 'state_space', 'rule': 'delta', **SMALL},
    'stack': {
        'kind': 'stack',
        'width': 32,
        'parts': {
            'recent': {'kind': 'window', 'length': 8, 'depth': 1, **TRANSFORMER},
            'far': {'kind': 'recurrent', 'deter': 128, 'hidden': 64},
        },
    },
}
"""Memories with fields chosen here. Every other kind that there is has its own, but for those in SMALL."""

OWN = {'masked': {'recall': 0.3}}
"""Weights of the losses that a memory has of its own."""

SIZES = {'tiny': (2, 16, 20), 'laptop': (16, 96, 1500), 'accelerator': (64, 96, 20000)}
"""Rows of a batch, frames of a segment, steps."""
LONGER = {'retrieval': 3}
"""Times as many steps: it must meet the right entry before it can learn to ask for it."""
FORGET = {'retrieval': 0.3}
"""Share of the segments that begin with nothing remembered, 0.1 for the others: in a short bank the right entry is met more
often, and an empty one is seen before a question."""


def variants() -> tuple[str, ...]:
    """The memories of the table: RECIPES, then every kind that none of them is."""
    return (*RECIPES, *(kind for kind in memories.KINDS if kind not in RECIPES))


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: the memories (`variants()`).

    Options: world (cue, place, list, chain, corridor), transition (categorical or masked), size (tiny, laptop, accelerator).
    """
    variant, options = parse(arg, variants(), world='cue', transition='categorical', size='laptop')
    for name, known in (('world', WORLDS), ('transition', ('categorical', 'masked')), ('size', SIZES)):
        if options[name] not in known:
            raise ValueError(f"{name} '{options[name]}' is not one of {', '.join(known)}.")
    world = options['world']
    batch, length, steps = SIZES[options['size']]
    if options['size'] != 'tiny':
        steps *= LONGER.get(variant, 1)
    config = default_config()
    config.world = dict(WORLDS[world])
    config.data.update({'path': f'runs/memory/{world}/data', 'batch_size': batch, 'segment_length': length})
    # Whole streams, the belief carried from segment to segment: delays cross the cuts.
    # Some begin in the middle, with nothing remembered.
    config.data.update({'consecutive': True, 'forget': FORGET.get(variant, 0.1)})
    transitions = {
        'categorical': {'kind': 'categorical', 'hidden': 64, 'layers': 1},
        'masked': {'kind': 'masked', 'depth': 1, 'steps': 2, **TRANSFORMER},
    }
    config.model = complete(
        {
            'heart': {'kind': 'palette', 'codes': 128 if world == 'chain' else 16, 'embedding': 16},
            'filter': {'reads': 'frame'},
            'transition': transitions[options['transition']],
            'memory': RECIPES.get(variant) or small(variant),
            'outcome': {'reads': 'departure', 'units': 32},
            'context_to': ('transition', 'outcome'),
        }
    )
    config.optimizer.update(
        {'learning_rate': 3e-3, 'warmup': min(50, steps // 4), 'schedule': 'cosine', 'weight_decay': 1e-3, 'b2': 0.99}
    )
    paid = 1.0 if world in PAID else 0.1
    config.train.update(
        {
            'steps': steps,
            'log_every': max(1, steps // 15),
            'checkpoint_every': max(20, steps // 2),
            'parts': ('heart', 'filter', 'transition', 'memory', 'outcome'),
            'weights': {'transition': 1.0, 'reward': paid, 'discount': 0.1, **OWN.get(variant, {})},
        }
    )
    config.evaluate = {'starts': 200, 'context': 8, 'horizon': 8}
    return config


def draw(rows: list[dict[str, str]]) -> Figure:
    """Bytes carried against recall, one panel a world, recall averaged over all delays asked for."""
    worlds = [world for world in WORLDS if any(row['world'] == WORLDS[world]['name'] for row in rows)]
    columns = min(3, len(worlds) + 1)  # and a cell for the legend
    lines = -(-(len(worlds) + 1) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.0 * lines), layout='constrained')
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    largest = max(float(row['bytes']) for row in rows)
    names = dict.fromkeys([*variants(), *(row['memory'] for row in rows)])
    styles = {memory: {'color': f'C{i % 10}', 'marker': 'osD^vP'[i % 6]} for i, memory in enumerate(names)}
    found = {}
    for world, axes in zip(worlds, panels, strict=False):
        for row in (row for row in rows if row['world'] == WORLDS[world]['name']):
            recall = np.mean([float(v) for k, v in row.items() if re.fullmatch(r'recall_\d+', k)])
            style = {'linestyle': '', 'alpha': 0.85, 'markersize': 7, **styles[row['memory']]}
            (found[row['memory']],) = axes.plot(float(row['bytes']), recall, **style)
        axes.axhline(CHANCE[world], color='0.6', linestyle='--', linewidth=1)
        axes.set(title=WORLDS[world]['name'], ylim=(0, 1.05))
        axes.set_xlabel('bytes carried', fontsize=8)
        axes.set_xscale('symlog', linthresh=128)
        axes.set_xlim(-64, 3 * largest)
        axes.grid(alpha=0.3)
    for axes in panels[len(worlds) :]:
        axes.axis('off')
    names = [name for name in names if name in found]
    panels[len(worlds)].legend([found[name] for name in names], names, loc='center', ncols=1, frameon=False)
    for axes in panels[::columns]:
        axes.set_ylabel('right answers,\nmean over delays', fontsize=8)
    return figure


def summary(rows: list[dict[str, str]]) -> str:
    """Percent of right answers by memory, world and delay, and what each memory costs on Cue; – where no row is."""
    found = {(row['world'], row['memory']): row for row in rows}
    asked = [(world, delay) for world, delays in SUMMARY.items() for delay in delays]
    costs = {
        'bytes': ('bytes', ',.0f'),
        'ms a tick': ('ms_per_tick', '.3f'),
        'ms a step': ('ms_per_trained_step', '.0f'),
    }

    def cells(memory: str):
        for world, delay in asked:
            yield number(found.get((WORLDS[world]['name'], memory), {}), f'recall_{delay}', '.0f', 100)
        cost = found.get((WORLDS['cue']['name'], memory), {})
        yield from (number(cost, *how) for how in costs.values())

    columns = ('memory', *(f'{world.capitalize()} {delay:,}' for world, delay in asked), *costs)
    return markdown(columns, ((f'`{memory}`', *cells(memory)) for memory in variants()))


def small(kind: str) -> dict:
    """A kind's own fields, but for those in SMALL."""
    declared = {field.name for field in dataclasses.fields(memories.KINDS[kind])}
    return {'kind': kind, **{name: value for name, value in SMALL.items() if name in declared}}


def get_table(workdir: str) -> list[Row]:
    """Rows cue-none, cue-raw_1, ..., corridor-stack."""
    return [row(workdir, world, memory) for world in WORLDS for memory in variants()]


def row(workdir: str, world: str, memory: str) -> Row:
    """Play, train, ask at every delay."""
    stages = (*prepared(workdir, world, memory), ('ask', ('launch/recall.py', f'--workdir={workdir}/{world}/{memory}')))
    about = {'world': WORLDS[world]['name'], 'memory': memory, 'seed': 0, 'chance': CHANCE[world]}
    return Row(f'{world}-{memory}', about, stages, f'{workdir}/{world}/{memory}/recall/report.json', ())


def prepared(workdir: str, world: str, memory: str, transition: str = 'categorical') -> tuple:
    """The stages before the asking, the same for every table: what one has done another finds done."""
    name, *given = WORLDS[world].items()
    options = [word for key, value in given for word in ('--option', f'{key}={value}')]
    data, run = f'{workdir}/{world}/data', memory if transition == 'categorical' else f'{memory}-{transition}'
    policy = PLAYERS.get(world, ('--policy=random',))
    play = ('launch/collect.py', f'--world={name[1]}', *options, *policy, '--steps=200000', f'--path={data}')
    config = f'--config=experiments/memory_table.py:{memory},world={world},transition={transition}'
    train = ('launch/train.py', config, f'--workdir={workdir}/{world}/{run}', f'--config.data.path={data}')
    return (('play', play), ('train', train))
