"""Every experiment and option of it: a valid config, a model, losses that are all weighed; and the demo's whole road."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import jax
import pytest
from models import experience

from experiments import (
    atari,
    benchmarks,
    craftax,
    doorkey,
    dreamer4,
    dreamer_v3,
    drift,
    genie,
    masked_memory,
    memory_anchoring,
    memory_table,
    minatar,
    real_worlds,
)
from worldmodels import transition as transitions
from worldmodels.build import abstract_variables, build_model, complete
from worldmodels.evaluation.benchmark import spec_of
from worldmodels.evaluation.settings import Settings
from worldmodels.sizes import DREAMER
from worldmodels.training.config import validate
from worldmodels.training.losses import losses
from worldmodels.training.optimizer import make_optimizer

ROOT = pathlib.Path(__file__).parent.parent
DOORKEY = [
    '',
    'tokenizer',
    'tokenizer,tiny',
    'masked',
    'masked,memory=recurrent',
    'masked,memory=none',
    'masked,memory=masked',
    'recurrent,tiny',
]
DOORKEY += [f'recurrent,size={size}' for size in DREAMER]
MINATAR = ['masked', 'masked,memory=none', 'recurrent', 'recurrent,tiny']
MEMORY = [f'{m},size=tiny' for m in memory_table.variants()]
MEMORY += [f'recurrent,world={w}' for w in memory_table.WORLDS] + ['recurrent,transition=masked']
ALL = (
    [(doorkey, arg) for arg in DOORKEY]
    + [(minatar, arg) for arg in MINATAR]
    + [(craftax, arg) for arg in ('masked', 'recurrent')]
    + [(dreamer_v3, f'{v},size={s}') for v in dreamer_v3.WORLDS for s in dreamer_v3.SIZES]
    + [(dreamer4, f'{v},size={s}') for v in dreamer4.VARIANTS for s in dreamer4.SIZES]
    + [(atari, arg) for arg in ('tokenizer', 'masked', 'recurrent,tiny')]
    + [(genie, f'{v},size={size}') for v in genie.VARIANTS for size in genie.SIZES]
    + [(benchmarks, name) for name in benchmarks.MEASURES]
    + [(memory_table, arg) for arg in MEMORY]
    + [(masked_memory, f'{v},size={s}') for v in masked_memory.VARIANTS for s in ('tiny', 'laptop')]
    + [(masked_memory, 'nested,world=list,size=accelerator')]
    + [(drift, f'{v},size=tiny,corruption=0.1') for v in drift.VARIANTS]
)


@pytest.mark.parametrize(('experiment', 'arg'), ALL, ids=lambda x: x if isinstance(x, str) else x.__name__[12:])
def test_a_config_is_whole(experiment, arg):
    config = experiment.get_config(arg)
    validate(config)
    spec = spec_of(config.world)
    m = build_model(config.model.to_dict(), spec, 'float32')
    make_optimizer(config.optimizer, config.train.steps)
    Settings.of(config.evaluate)
    ticks = experience(2, 3, spec=spec)
    keys_B = jax.random.split(jax.random.key(0), 2)
    loss = lambda v: losses(m, v, ticks, None, keys_B, tuple(config.train.parts))[0]
    terms = jax.eval_shape(loss, abstract_variables(m))
    assert set(terms) == set(config.train.weights)


def test_a_table_names_experiments_and_reports_that_its_stages_make():
    rows = real_worlds.get_table('somewhere')
    assert [row.name for row in rows] == [
        f'{w}-{v}' for w in ('atari', 'craftax', 'minatar') for v in ('masked', 'recurrent')
    ]
    for row in rows:
        collected = [word for word in row.stages[0][1] if word.startswith('--path=')]
        for _, stage in row.stages[1:-1]:
            name, _, arg = next(w for w in stage if w.startswith('--config=')).removeprefix('--config=').partition(':')
            config = {'atari': atari, 'craftax': craftax, 'minatar': minatar}[pathlib.Path(name).stem].get_config(arg)
            assert f'--config.data.path={collected[0].removeprefix("--path=")}' in stage
            assert config.world.name == row.about['world']
        assert row.report == row.stages[-1][1][1].removeprefix('--workdir=') + '/evaluation/report.json'


def test_the_tables_of_memories_share_their_trainings():
    table = {row.name: row for row in memory_table.get_table('somewhere')}
    assert {'cue-none', 'place-raw_20', 'list-recurrent', 'chain-window'} <= set(table)
    assert '--policy=scripted' in table['corridor-stack'].stages[0][1]
    for row in memory_anchoring.get_table('somewhere'):
        world, memory, transition = row.name.split('-')
        train = row.stages[1][1]
        config = memory_table.get_config(train[1].partition(':')[2])
        assert config.world.name == row.about['world']
        assert config.model.transition.kind == transition
        assert f'{train[2].removeprefix("--workdir=")}/anchoring/report.json' == row.report
        if transition == 'categorical':
            assert row.stages[:2] == table[f'{world}-{memory}'].stages[:2]


def test_the_rows_of_the_masked_memory_differ_in_what_their_names_say():
    rows = {row.name: row for row in masked_memory.get_table('somewhere')}
    assert len(rows) == 9
    table = {row.name: row for row in memory_table.get_table('somewhere')}
    plain = masked_memory.get_config('nested').to_dict()
    for name, row in rows.items():
        assert row.stages[0] == table[f'{name.partition("-")[0]}-masked'].stages[0]
        _, (_, train), (_, ask) = row.stages
        config = masked_memory.get_config(train[1].partition(':')[2])
        assert config.world.name == row.about['world']
        assert train[2] == ask[1]
        assert row.report == ask[1].removeprefix('--workdir=') + '/recall/report.json'
        hidden, weight = config.model.memory.hide > 0, config.train.weights.recall > 0
        assert (hidden, weight) == {'nested': (1, 1), 'whole': (0, 1), 'unasked': (1, 0)}[row.about['variant']]
        config.model.memory.hide, config.train.weights.recall = plain['model']['memory']['hide'], 0.3
        assert config.model.to_dict() == plain['model']


def test_the_table_of_drift_has_each_transition_with_the_remedy_and_without():
    rows = {row.name: row for row in drift.get_table('somewhere')}
    assert list(rows) == [name + more for name in transitions.KINDS for more in ('', '-corrupted')]
    for name, row in rows.items():
        (_, play), *_, (_, train), (_, ask) = row.stages
        config = drift.get_config(train[1].partition(':')[2])
        assert config.model.transition.kind == row.about['transition']
        assert config.train.corruption == row.about['corruption'] == (0.1 if name.endswith('corrupted') else 0)
        assert config.world.name == row.about['world']
        assert f'--path={train[3].removeprefix("--config.data.path=")}' in play
        assert row.report == ask[1].removeprefix('--workdir=') + '/drift/report.json'
        assert config.evaluate.context + config.evaluate.horizon <= config.world.max_steps


def test_every_field_of_a_model_can_be_set():
    config = doorkey.get_config('masked')
    assert complete(config.model.to_dict()) == config.model.to_dict()
    config.update_from_flattened_dict({'model.transition.mask': 'upper_half', 'model.memory.length': 4})
    m = build_model(config.model.to_dict(), spec_of(config.world), 'float32')
    assert (m.transition.mask, m.memory.length) == ('upper_half', 4)


def test_options_that_do_not_exist_are_refused():
    for arg, says in (
        ('maskd', "did you mean 'masked'"),
        ('masked,memry=none', "did you mean 'memory'"),
        ('masked,memory=nothing', 'is not one of window, recurrent, none'),
        ('recurrent,size=13m', 'choose one of 1m'),
    ):
        with pytest.raises(ValueError, match=says):
            doorkey.get_config(arg)
    for arg, says in (('windw', "did you mean 'window'"), ('none,world=clue', "world 'clue' is not one of cue, place")):
        with pytest.raises(ValueError, match=says):
            memory_table.get_config(arg)


@pytest.mark.slow
def test_the_demos_whole_road(tmp_path):
    """Collect, three trainings, evaluation, as processes; run again, it finds everything done."""
    command = [sys.executable, 'launch/demo.py', '--tiny', f'--workdir={tmp_path}/demo']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith('report.html')
    report = json.loads((tmp_path / 'demo' / 'report.json').read_text())
    roles = [world['role'] for world in report['worlds']]
    assert roles == ['model', 'copy', 'redrawn', 'baseline']
    assert report['setup']['horizons'] == list(range(1, 16))
    assert (tmp_path / 'demo' / 'dream.png').stat().st_size > 1000
    steps = [
        json.loads(line)['step'] for line in (tmp_path / 'demo' / 'window' / 'metrics.jsonl').read_text().splitlines()
    ]
    assert steps[-1] == 20
