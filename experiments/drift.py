r"""How dreams of each transition drift over 200 ticks of DoorKey, with corruption in training and without.

python launch/sweep.py --table=experiments/drift.py --workdir=runs/drift
python launch/sweep.py --table=experiments/drift.py --workdir=runs/drift --only=masked-corrupted

Episodes last 256 ticks under a sticky random policy, so that 200 ticks follow 8 that are watched. A row trains for minutes on
two cores and then dreams 64 held-out trajectories; what is counted are wrong cells a frame (`worldmodels/evaluation/drift.py`).
One row alone:

python launch/collect.py --world=navix/DoorKey-Random-8x8 --option=observation=symbolic --option=max_steps=256 \
    --policy=sticky --steps=60000 --validation=100 --path=runs/drift/data
python launch/train.py --config=experiments/drift.py:masked,corruption=0.1 --workdir=runs/drift/masked-corrupted
python launch/drift.py --workdir=runs/drift/masked-corrupted

Rows are written to drift.csv beside this file; in short, and as a picture, in BUILD_NOTES.md. What they show (one seed, 800
steps of 2 to 4 minutes on one core each; copying the last frame is 2.3 cells wrong after 200 ticks):

- Where dreams drift, training against drift holds them: `categorical`, which draws all cells of a frame independently, is
  22 cells wrong after 200 ticks without it and 2.8 with it; the flow 7.4 and 1.9.
- `masked` and `autoregressive` hardly drift (0.8 and 0.5 cells after 200 ticks), and the remedy costs them: 1.8 cells with it.
  A twentieth of the cells they go on from in training is another tile, on average, and 800 steps may be too few to learn
  the world from so torn frames; longer trainings were not tried.
"""

from __future__ import annotations

import re

import ml_collections
from matplotlib.figure import Figure

from experiments.arguments import parse
from experiments.table import Row, markdown, number
from worldmodels.build import complete
from worldmodels.training.config import default_config

WORLD = {'name': 'navix/DoorKey-Random-8x8', 'observation': 'symbolic', 'max_steps': 256}
SIZES = {'tiny': (2, 8, 5), 'laptop': (8, 16, 800), 'accelerator': (32, 32, 20000)}
"""Rows of a batch, ticks of a segment, steps."""

TRANSFORMER = {'width': 64, 'depth': 2, 'heads': 4, 'hidden': 192}
TRANSITIONS = {
    'categorical': {'hidden': 64, 'layers': 2},
    'masked': {**TRANSFORMER, 'neighbours': True, 'steps': 4},
    'autoregressive': TRANSFORMER,
    'flow': {**TRANSFORMER, 'neighbours': True, 'steps': 4},
}
HEARTS = {
    'palette': {'kind': 'palette', 'codes': 64, 'embedding': 16},
    'continuous': {
        'kind': 'continuous',
        'latents': 0,
        'size': 8,
        'width': 64,
        'hidden': 128,
        'encoder_depth': 0,
        'decoder_depth': 1,
        'hide': 0.1,
    },
}
VARIANTS = (*TRANSITIONS, 'tokenizer')
RATE = 0.1
"""Of the rows that are trained against drift: half of it of the tokens on average, or a deviation up to it of noise."""


def get_config(arg: str = '') -> ml_collections.ConfigDict:
    """Variants: the transitions, and the tokenizer that the flow needs.

    Options: corruption (a rate, 0 for none), size (tiny, laptop, accelerator).
    """
    variant, options = parse(arg, VARIANTS, corruption=0.0, size='laptop')
    if options['size'] not in SIZES:
        raise ValueError(f"size '{options['size']}' is not one of {', '.join(SIZES)}.")
    batch, length, steps = SIZES[options['size']]
    numbers = variant in ('flow', 'tokenizer')
    kind = 'flow' if numbers else variant
    config = default_config()
    config.world = dict(WORLD)
    config.data.update({'path': 'runs/drift/data', 'batch_size': batch, 'segment_length': length})
    config.model = complete(
        {
            'heart': HEARTS['continuous' if numbers else 'palette'],
            'filter': {'reads': 'frame'},
            'transition': {'kind': kind, **TRANSITIONS[kind]},
            'memory': {'kind': 'window', 'length': 8, **TRANSFORMER, 'neighbours': True},
            'outcome': {'reads': 'departure', 'units': 32},
            'context_to': ('transition', 'outcome'),
        }
    )
    config.optimizer.update(
        {'learning_rate': 3e-3, 'warmup': min(50, steps // 4), 'schedule': 'cosine', 'weight_decay': 1e-2, 'b2': 0.99}
    )
    config.train.update({'steps': steps, 'log_every': max(1, steps // 20), 'corruption': options['corruption']})
    config.evaluate = {'starts': 64, 'context': 8, 'horizon': 200}
    if variant == 'tokenizer':
        config.data.update({'batch_size': 2 * batch, 'segment_length': 1})
        config.train.update({'parts': ('heart',), 'weights': {'reconstruction': 1.0}})
        return config
    # The flow's squared errors are of latents within (-1, 1), far smaller than the nats of the others.
    config.train.weights = {'transition': 10.0 if numbers else 1.0, 'reward': 0.1, 'discount': 0.1}
    config.train.parts = ('filter', 'transition', 'memory', 'outcome')
    if numbers:
        config.train.init_from = {'path': 'runs/drift/tokenizer', 'parts': ('heart',)}
    else:
        config.train.parts = ('heart', *config.train.parts)  # embeddings of its codes; the codes are fitted
    return config


def get_table(workdir: str, size: str = 'laptop') -> list[Row]:
    """Rows categorical, categorical-corrupted, masked, ..."""
    return [_row(workdir, transition, rate, size) for transition in TRANSITIONS for rate in (0.0, RATE)]


def draw(rows: list[dict[str, str]]) -> Figure:
    """Wrong cells a frame by horizon: lines of the transitions, dashed where nothing was done against drift."""
    figure = Figure(figsize=(8.0, 3.8), layout='constrained')
    axes, horizons = figure.subplots(), _horizons(rows)
    for row in rows:
        corrupted = float(row['corruption']) > 0
        wrong = [float(row[f'wrong_{k}']) for k in horizons]
        label = row['transition'] + (', trained against drift' if corrupted else '')
        colour = f'C{tuple(TRANSITIONS).index(row["transition"])}'
        axes.plot(horizons, wrong, label=label, color=colour, linestyle='-' if corrupted else '--', marker='o')
    axes.axhline(
        float(rows[0][f'copy_wrong_{horizons[-1]}']), color='0.6', linewidth=1, label=f'copying, after {horizons[-1]}'
    )
    axes.set(xlabel='ticks dreamed', ylabel='wrong cells of 64', xscale='log', xticks=horizons, xticklabels=horizons)
    axes.set_yscale('symlog', linthresh=0.1)
    axes.set_ylim(0, None)
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, frameon=False, loc='outside right upper')
    return figure


def _horizons(rows: list[dict[str, str]]) -> list[int]:
    """The horizons that rows tell of, which `evaluation/drift.py` chose."""
    return [int(name.removeprefix('wrong_')) for name in rows[0] if re.fullmatch(r'wrong_\d+', name)]


def summary(rows: list[dict[str, str]]) -> str:
    """Wrong cells a frame by horizon, where their mean passes one, and their growth."""
    found = {(row['transition'], float(row['corruption'])): row for row in rows}
    horizons = _horizons(rows)

    def line(transition: str, rate: float):
        row = found.get((transition, rate), {})
        yield from (f'`{transition}`', f'{rate:g}')
        yield from (number(row, f'wrong_{k}') for k in horizons)
        yield row.get('horizon_at_threshold', '–')
        yield number(row, 'slope')

    columns = (
        'transition',
        'corruption',
        *(f'{k} ahead' for k in horizons),
        'past one wrong cell',
        'more in 100 ticks',
    )
    return markdown(columns, (line(transition, rate) for transition in TRANSITIONS for rate in (0.0, RATE)))


def _row(workdir: str, transition: str, rate: float, size: str) -> Row:
    data, name = f'{workdir}/data', transition + ('-corrupted' if rate else '')
    words = [word for key, value in WORLD.items() if key != 'name' for word in ('--option', f'{key}={value}')]
    amount = ('--policy=sticky', '--steps=60000', '--validation=100')

    def train(config: str, folder: str, *more: str) -> tuple[str, ...]:
        config = f'--config=experiments/drift.py:{config},size={size}'
        return ('launch/train.py', config, f'--workdir={workdir}/{folder}', f'--config.data.path={data}', *more)

    stages = [('play', ('launch/collect.py', f'--world={WORLD["name"]}', *words, *amount, f'--path={data}'))]
    more = ()
    if transition == 'flow':
        stages.append(('train a tokenizer', train('tokenizer', 'tokenizer')))
        more = (f'--config.train.init_from.path={workdir}/tokenizer',)
    stages.append(('train', train(f'{transition},corruption={rate}', name, *more)))
    stages.append(('dream and judge', ('launch/drift.py', f'--workdir={workdir}/{name}')))
    about = {'world': WORLD['name'], 'transition': transition, 'corruption': rate, 'seed': 0}
    return Row(name, about, tuple(stages), f'{workdir}/{name}/drift/report.json', ())
