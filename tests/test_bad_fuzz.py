"""Random overrides and random damage: either all is well, or one sentence says what is not. Nothing is computed.

300 examples of each; ten thousand, as figures in BUILD_NOTES.md were made: HYPOTHESIS_PROFILE=thorough.
"""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import traceback

import jax
import numpy as np
import pytest
import training_real as real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worldmodels import build
from worldmodels.data import episodes, pipeline, records
from worldmodels.evaluation.settings import Settings
from worldmodels.training import config as config_lib
from worldmodels.training import experiment, loop
from worldmodels.training.optimizer import make_optimizer

EXAMPLES = 10_000 if os.environ.get('HYPOTHESIS_PROFILE') == 'thorough' else 300
FUZZ = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


def sentence_of(run):
    """The sentence of a ValueError, '' when nothing is wrong; any other exception is the test's failure."""
    try:
        run()
        return ''
    except ValueError as error:
        refusal = error
    said = ' '.join(str(refusal).split())
    assert len(said) > 10
    assert 'Traceback' not in said
    assert 'worldmodels' in traceback.extract_tb(refusal.__traceback__)[-1].filename, said
    return said


# -- configs -----------------------------------------------------------------------------------------------------------


def whole(vertical):
    config = real.config(vertical, 'nowhere')
    config.model = build.complete(config.model.to_dict())
    return config


CONFIGS = {vertical: whole(vertical) for vertical in ('masked', 'recurrent')}
FIELDS = sorted({name for config in CONFIGS.values() for name in experiment._names(config)})
ODD = (
    '',
    'nan',
    'inf',
    '-inf',
    '-1',
    '0',
    '1',
    '2',
    '3',
    '1e400',
    '1.5',
    'None',
    'true',
    'False',
    '()',
    '(1,)',
    '(1, 2)',
    '[[]]',
)
ODD += (
    '{}',
    "{'a': 1}",
    "{'kind': 'none'}",
    "'",
    '(' * 50,
    'tokens',
    'window',
    'none',
    'frame',
    'memory',
    'heart',
    'é漢🎲',
    '\x00',
)
ODD += ("{'kind': ['tokens']}", "('heart', 3)", "{'a': {'b': float}}", '9' * 30, '-' + '9' * 5000, '999999999', '65536')
VALUES = st.one_of(
    st.sampled_from(ODD), st.integers(-(10**12), 10**12).map(str), st.integers(0, 40).map(str), st.floats().map(str),
    st.text(max_size=20), st.lists(st.integers(-3, 70_000), max_size=4).map(lambda x: str(tuple(x))),
)  # fmt: skip
OVERRIDE = st.tuples(st.one_of(st.sampled_from(FIELDS), st.text(max_size=12)), VALUES)


def prepare(vertical, overrides):
    """What `launch/train.py` does before anything is computed, short of tracing the losses."""
    words = [f'--config.{name}={text}' for name, text in overrides]
    rest, taken = experiment.take(['train.py', *words])
    assert len(rest) + len(taken) == 1 + len(words)
    config = experiment.override(CONFIGS[vertical], taken)
    config_lib.validate(config)
    Settings.of(config.get('evaluate', {}))
    make_optimizer(config.optimizer, config.train.steps)
    config_lib.from_json(config_lib.to_json(config))
    model = build.build_model(config.model.to_dict(), real.SPEC, 'float32')
    loop.traced(lambda: build.abstract_variables(model))


@FUZZ
@given(st.sampled_from(sorted(CONFIGS)), st.lists(OVERRIDE, min_size=1, max_size=3))
def test_overrides_are_taken_or_refused_with_a_sentence(vertical, overrides):
    sentence_of(lambda: prepare(vertical, overrides))


def test_the_configs_themselves_are_good():
    for vertical in CONFIGS:
        assert sentence_of(lambda vertical=vertical: prepare(vertical, [('train.steps', '3')])) == ''


# -- records -----------------------------------------------------------------------------------------------------------


KEYS = ('action', 'reward', 'discount', 'is_first', 'is_last', 'is_terminal', 'image')
CHANGES = st.tuples(
    st.sampled_from(('drop', 'dtype', 'length', 'shape', 'value', 'rename', 'nothing')), st.sampled_from(KEYS),
    st.sampled_from(('float16', 'float64', 'int8', 'int64', 'uint8', 'bool', 'complex64', 'U3', 'object')),
    st.integers(0, 9), st.sampled_from((np.nan, np.inf, -np.inf, -1, 0, 1, 2, 3, 255, 1e30, -1e30)),
)  # fmt: skip


def changed(rows, change):
    kind, key, dtype, place, value = change
    holder = rows['observation'] if key == 'image' else rows
    array = holder[key] if key in holder else np.zeros(3)
    if kind == 'drop':
        holder.pop(key, None)
    elif kind == 'rename':
        holder[key + '_'] = holder.pop(key, array)
    elif kind == 'dtype':
        with contextlib.suppress(TypeError, ValueError):  # 'Tru' is no number
            holder[key] = array.astype(dtype)
    elif kind == 'length':
        holder[key] = array[:place]
    elif kind == 'shape':
        holder[key] = array[None] if place % 2 else array.reshape(-1)[:place]
    elif kind == 'value' and array.size and array.dtype.kind in 'biuf':
        with np.errstate(all='ignore'):
            array = array.copy()
            array.reshape(-1)[place % array.size] = np.asarray(value).astype(array.dtype)
            holder[key] = array


@FUZZ
@given(st.lists(CHANGES, min_size=1, max_size=3))
def test_a_record_that_passes_can_be_learned_from(changes):
    rows = real.episode(np.random.default_rng(0), 7)
    for change in changes:
        changed(rows, change)
    if records.fault(rows, real.SPEC) is None:
        ticks = episodes.to_ticks(rows, real.SPEC)
        length = len(ticks['is_first'])
        assert ticks['observation']['image'].shape == (length, 16, 16, 3)
        assert ((ticks['action'][1:] >= 0) & (ticks['action'][1:] < 3)).all()
        assert all(np.isfinite(x).all() and x.shape == (length,) for x in ticks['outcomes'].values())
        assert (ticks['outcomes']['discount'] <= 1).all()


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp('fuzz') / 'data'
    real.write_data(path)
    return path


def drawn(path):
    batches = pipeline.segments(str(path), 'train', real.SPEC, 4, 4, seed=0, consecutive=True)
    return [next(batches) for _ in range(12)]


@FUZZ
@given(st.integers(0, 3), st.floats(0, 1, exclude_max=True), st.integers(0, 7), st.booleans())
def test_a_damaged_file_is_read_as_it_was_or_refused(data, which, place, bit, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(shutil.copytree(data, pathlib.Path(folder) / 'data'))
        file = sorted(path.iterdir(), key=lambda p: ('train' not in p.name, p.name))[which]
        content = bytearray(file.read_bytes())
        place = int(place * len(content))
        if cut:
            del content[place:]
        else:
            content[place] ^= 1 << bit
        file.write_bytes(content)
        got = []
        said = sentence_of(lambda: got.extend(drawn(path)))
        if not said and 'array_record' in file.name:
            for a, b in zip(got, drawn(data), strict=True):
                jax.tree.map(np.testing.assert_array_equal, a, b)
        assert not said or str(path) in said or file.name == 'metadata.json', said


def test_a_refusal_names_the_file_and_what_to_do(data, tmp_path):
    path = shutil.copytree(data, tmp_path / 'data')
    metadata = json.loads((path / 'metadata.json').read_text())
    metadata['spec']['action']['size'] = 0
    (path / 'metadata.json').write_text(json.dumps(metadata))
    assert 'the action space is' in sentence_of(lambda: drawn(path))


def test_a_damaged_template_of_file_names_is_refused(data, tmp_path):
    path = shutil.copytree(data, tmp_path / 'data')
    info = (path / 'dataset_info.json').read_text()
    (path / 'dataset_info.json').write_text(info.replace('{SPLIT}', '{SPLIU}'))
    assert '{SPLIT}' in info
    assert f"The dataset at '{path}' cannot be opened" in sentence_of(lambda: drawn(path))
