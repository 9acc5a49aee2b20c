"""Two world models on three worlds made by others: how much better than copying are their dreams where something changes?

python launch/sweep.py --table=experiments/real_worlds.py --workdir=runs/real_worlds

Every row collects, trains, and dreams 10 ticks from 200 held-out starts; the rows are in experiments/real_worlds.csv.
"""

from __future__ import annotations

from experiments.table import Row

HORIZONS = (1, 2, 5, 10)
PIXELS = (('image', 'changed_psnr', HORIZONS), ('image', 'changed_pixels', HORIZONS))
CELLS = (('grid', 'changed', HORIZONS), ('grid', 'exact', HORIZONS))
WORLDS = {
    'atari': (('--world=atari/Breakout', '--policy=sticky', '--steps=40000', '--validation=40'), PIXELS, True),
    'craftax': (('--world=craftax/Classic-Pixels', '--policy=sticky', '--steps=40000'), PIXELS, False),
    'minatar': (
        ('--world=gymnax/Breakout-MinAtar', '--policy=random:0.3,scripted:0.7', '--noise=0.1', '--steps=40000'),
        CELLS,
        False,
    ),
}
"""What is collected, what is measured, and whether the masked variant needs a tokenizer trained before it."""
MORE = {'craftax-recurrent': ('many', '--steps=300000')}
"""Rows that are trained on more than their world's: of 295 episodes this one learns by heart what it should understand."""


def get_table(workdir: str) -> list[Row]:
    """Rows atari-masked, atari-recurrent, craftax-masked, ..."""
    return [_row(workdir, name, variant) for name in WORLDS for variant in ('masked', 'recurrent')]


def _row(workdir: str, name: str, variant: str) -> Row:
    collecting, measures, tokenizer = WORLDS[name]
    folder = f'{workdir}/{name}'
    data = f'{folder}/data'
    if f'{name}-{variant}' in MORE:
        called, steps = MORE[f'{name}-{variant}']
        data = f'{folder}/{called}'
        collecting = tuple(steps if word.startswith('--steps=') else word for word in collecting)

    def train(what: str, *more: str) -> tuple[str, ...]:
        config = (f'--config=experiments/{name}.py:{what}', f'--workdir={folder}/{what}')
        return ('launch/train.py', *config, f'--config.data.path={data}', *more)

    stages = [('play', ('launch/collect.py', *collecting, f'--path={data}'))]
    if variant == 'masked' and tokenizer:
        stages.append(('train a tokenizer', train('tokenizer')))
        stages.append(('train', train('masked', f'--config.train.init_from.path={folder}/tokenizer')))
    else:
        stages.append(('train', train(variant)))
    stages.append(('dream and judge', ('launch/evaluate.py', f'--workdir={folder}/{variant}')))
    about = {'world': collecting[0].removeprefix('--world='), 'model': variant, 'seed': 0}
    return Row(f'{name}-{variant}', about, tuple(stages), f'{folder}/{variant}/evaluation/report.json', measures)
