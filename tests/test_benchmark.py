"""The benchmark's figures: which there are, and that they count what they say. Never how fast."""

import collections
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from experiments import benchmarks
from worldmodels.evaluation import benchmark, profile
from worldmodels.training import flops
from worldmodels.types import ActionSpace, Modality, Spec, check_ticks

ROOT = pathlib.Path(__file__).parent.parent


def test_random_ticks_fit_every_kind_of_observation_and_action():
    observation = (
        ('image', Modality('image', (8, 8, 3))),
        ('grid', Modality('grid', (2, 2, 2), (3, 5))),
        ('vector', Modality('vector', (4,))),
    )
    for action in (ActionSpace('discrete', 3), ActionSpace('continuous', 2)):
        spec = Spec(observation, action)
        ticks = benchmark.random_ticks(spec, 2, 5, seed=0)
        check_ticks(ticks, spec)
        np.testing.assert_array_equal(ticks.action[:, 0], action.null((2,)))
        assert (ticks.observation['grid'].max((0, 1, 2, 3)) < (3, 5)).all()
        assert ticks.reset_BT.sum() == 2


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('benchmark'))
    asked = benchmark.Asked(repeats=2, stream=True, deadline_ms=0.0, curve=25, profile=True, workdir=folder)
    config = benchmarks.get_config('masked_dynamics,tiny')
    return config, asked, *benchmark.measure('tiny', config, ('train', 'dream'), asked)


def test_figures_of_a_workload(measured):
    config, _, result, _ = measured
    for prefix in ('train', 'dream'):
        for figure in ('compile_s', 'ms', 'ms_min', 'frames_per_s', 'gflop', 'compiled_mb', 'share_of_peak'):
            assert result[f'{prefix}_{figure}'] > 0, figure
        assert result[f'{prefix}_ms_min'] <= result[f'{prefix}_ms']
        rate = result[f'{prefix}_gflop'] / result[f'{prefix}_ms'] * 1e3
        assert result[f'{prefix}_gflop_per_s'] == pytest.approx(rate)
        assert result[f'{prefix}_share_of_peak'] == pytest.approx(rate / result['matmul_gflop_per_s'])
    frames = config.data.batch_size * config.data.segment_length
    assert result['train_frames_per_s'] == pytest.approx(1e3 * frames / result['train_ms'])
    assert 0 < result['trained_parameters'] < result['parameters']
    assert result['rss_peak_mb'] > 10


def test_what_a_step_keeps_is_counted_and_follows_the_policy(measured):
    config, _, result, _ = measured
    other = ml_collections.ConfigDict(config.to_dict())
    other.train.remat = 'all'
    parameters = 4 * result['trained_parameters']
    kept, least = 1e6 * result['train_kept_mb'], benchmark.kept_bytes(benchmark.subject(other))
    assert kept - parameters > 5 * (least - parameters) > 0


def test_every_streamed_frame_misses_a_deadline_of_nothing(measured):
    result = measured[2]
    assert result['stream_misses'] == result['stream_frames'] == 200
    assert result['stream_p50_ms'] <= result['stream_p95_ms'] <= result['stream_p99_ms']


def test_curve_is_kept_as_numbers_and_as_a_picture(measured):
    _, asked, result, _ = measured
    folder = pathlib.Path(asked.workdir) / 'tiny'
    lines = (folder / 'curve.csv').read_text().splitlines()
    assert lines[0] == 'frame,ms_per_frame,rss_mb'
    assert [int(line.split(',')[0]) for line in lines[1:]] == [10, 20, 30]
    assert result['curve_frames'] == 30
    assert all(float(line.split(',')[2]) > 50 for line in lines[1:]), 'a process holds megabytes'
    assert abs(result['curve_rss_growth_mb']) < 500
    assert (folder / 'curve.png').read_bytes().startswith(b'\x89PNG')


def test_profile_finds_the_model_in_the_program(measured):
    costs = measured[3]['train']
    assert sum(cost.share for cost in costs) == pytest.approx(1, abs=0.01)
    assert all(cost.limit and cost.calls for cost in costs)
    known = sum(cost.share for cost in costs if cost.instruction.kind != 'unknown')
    assert known > 0.9
    shares = profile.by_part(costs, ('heart', 'filter', 'transition', 'memory', 'outcome'))
    assert shares['transition'] > 0
    assert shares['memory'] > 0
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)


def test_operations_read_from_the_program_are_those_of_the_jaxpr():
    def f(x, w, k):
        y = jax.lax.conv_general_dilated(x, k, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        return jnp.tanh(y.reshape(2, -1) @ w)

    args = jnp.ones((2, 8, 8, 3)), jnp.ones((6 * 6 * 5, 7)), jnp.ones((3, 3, 3, 5))
    program = profile.read_program(jax.jit(f).lower(*args).compile().as_text())
    entry = [i for i in program.values() if i.scope.startswith('jit(')]
    dots = {i.operations for i in entry if i.scope.endswith('dot_general')}
    convolutions = {i.operations for i in entry if i.scope.endswith('conv_general_dilated')}
    # 2 x 7 results of 180 products; 2 x 6 x 6 x 5 results of 27 products.
    assert 2 * 2 * 7 * 180 in dots
    assert 2 * 2 * 6 * 6 * 5 * 27 in convolutions
    assert flops.count(jax.make_jaxpr(f)(*args)) == 2 * 2 * 7 * 180 + 2 * 2 * 6 * 6 * 5 * 27


def test_self_time_leaves_out_what_runs_inside():
    class Event:
        def __init__(self, name, start_ns, duration_ns):
            self.start_ns, self.duration_ns, self.stats = start_ns, duration_ns, [('hlo_op', name)]

    events = [Event('loop', 0, 100), Event('dot', 10, 30), Event('dot', 50, 20), Event('add', 55, 5)]
    spent = collections.defaultdict(lambda: [0, 0.0])
    profile._add_self_times(events, spent)
    assert {name: (calls, round(seconds * 1e9)) for name, (calls, seconds) in spent.items()} == {
        'loop': (1, 50),
        'dot': (2, 45),
        'add': (1, 5),
    }


@pytest.mark.parametrize('name', list(benchmarks.MEASURES))
def test_workloads_have_the_published_shapes(name):
    config = benchmarks.get_config(name)
    model = benchmark.build_model(config.model, benchmark.spec_of(config.world), 'float32')
    expected = {'dreamer_1m': (16, 65, 17)}.get(name, (4, 16, 6))
    assert (config.data.batch_size, config.data.segment_length, model.spec.action.size) == expected
    assert model.spec.modalities['image'].shape == (64, 64, 3)
    tokens = {'mae_tokenizer': (16, None), 'shortcut_dynamics': (8, None), 'dreamer_1m': (32, 4)}
    tokens |= dict.fromkeys(('flow_dynamics', 'flow_dreaming', 'flow_dreaming_4'), (64, None))
    assert (model.heart.layout.tokens, model.heart.classes) == tokens.get(name, (64, 1024))
    if 'dream' in benchmarks.MEASURES[name]:
        assert config.evaluate.starts >= 1


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['tokeniser'], "'tokeniser' is no workload: expected one of tokenizer, "),
        (['experiments/none.py:x'], "There is no experiment 'experiments/none.py'"),
    ],
)
def test_what_does_not_exist_is_one_sentence(arguments, sentence):
    command = [sys.executable, 'launch/benchmark.py', *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.slow
def test_command_writes_json(tmp_path):
    path = tmp_path / 'figures.json'
    command = [sys.executable, 'launch/benchmark.py', 'tokenizer,tiny', '--repeats=1', f'--json={path}']
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    assert report['machine']['jax'] == jax.__version__
    assert report['workloads']['tokenizer,tiny']['train_gflop'] > 0
    assert 'train_share_of_peak' in done.stdout
