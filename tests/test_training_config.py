"""Configs: what is refused, and in which words; and that a config survives its file."""

import json

import models
import pytest
import training_fake as fake

from worldmodels import build
from worldmodels.training import checkpoint
from worldmodels.training import config as config_lib


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'train.stepz': 3}, 'Unknown field "train.stepz" in the config: did you mean "steps"?'),
        ({'sead': 3}, 'Unknown field "sead" in the config: did you mean "seed"?'),
        ({'train.init_from.pth': 'x'}, 'Unknown field "train.init_from.pth" in the config: did you mean "path"?'),
        ({'data.batch_size': 0}, 'config.data.batch_size is 0, expected 1 or more.'),
        ({'data.forget': 1.0}, 'config.data.forget is 1.0, expected a share'),
        ({'data.forget': 0.1, 'data.consecutive': False}, 'and 0 without data.consecutive'),
        ({'data.cache_mb': -1}, 'config.data.cache_mb is -1, expected 0 or more.'),
        ({'train.parts': ('hart',)}, 'config.train.parts names "hart", expected names among heart, action, filter'),
        ({'train.parts': ()}, 'config.train.parts is empty'),
        ({'train.weights': {}}, 'config.train.weights is empty'),
        ({'train.ema': 1.0}, 'config.train.ema is 1.0'),
        ({'train.dtype': 'float16'}, 'config.train.dtype is "float16"'),
        ({'train.init_from.parts': ('heart',)}, 'without init_from.path'),
    ],
)
def test_a_wrong_field_gets_its_sentence(fields, says):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        config_lib.validate(fake.config(**fields))
    assert says in str(raised.value)


def test_a_field_of_another_type_is_refused():
    config = fake.config()
    with config.ignore_type():
        config.train.steps = '60'
    with pytest.raises(ValueError, match=r"config.train.steps is '60', expected a value of type int"):
        config_lib.validate(config)


def test_open_sections_are_left_to_their_components():
    config = fake.config(**{'model.heart.anything': 1, 'world.size': 8, 'evaluate.seeds': 3})
    before = config.to_dict()
    config_lib.validate(config)
    assert config.to_dict() == before
    with pytest.raises(ValueError, match=r'Unknown field "data\.anything"'):
        config_lib.validate(fake.config(**{'data.anything': 1}))


def test_a_config_survives_its_file():
    config = fake.config(**{'model.context_to': ('transition', 'outcome')})
    again = config_lib.from_json(config_lib.to_json(config))
    assert again.to_dict() == config.to_dict()
    config_lib.validate(again)


def test_the_fingerprint_sees_what_is_learned_and_nothing_else():
    spec = fake.SPEC.to_json()
    before = config_lib.fingerprint(fake.config(), spec, 'data')
    for fields in (
        {'train.steps': 99},
        {'train.log_every': 7},
        {'train.checkpoint_every': 7},
        {'data.path': '/elsewhere'},
        {'data.cache_mb': 7},
        {'train.init_from.path': '/elsewhere'},
        {'evaluate.starts': 3},
    ):
        assert config_lib.fingerprint(fake.config(**fields), spec, 'data') == before, fields
    assert config_lib.fingerprint(fake.config(), spec, 'other') != before
    for fields in (
        {'seed': 1},
        {'data.segment_length': 5},
        {'data.forget': 0.5},
        {'model.heart.kind': 'other'},
        {'optimizer.b1': 0.8},
        {'train.weights.reward': 2.0},
        {'train.ema': 0.5},
    ):
        assert config_lib.fingerprint(fake.config(**fields), spec, 'data') != before, fields


def test_the_length_of_a_run_counts_where_the_learning_rate_follows_it():
    a, b = (
        config_lib.fingerprint(fake.config(**{'optimizer.schedule': 'cosine', 'train.steps': n}), {}, 'data')
        for n in (10, 20)
    )
    assert {k for k in a if a[k] != b[k]} == {'train.steps'}


def test_a_workdir_goes_on_where_its_parts_have_gained_fields_that_nobody_turned(tmp_path):
    config, spec = fake.config(), models.SPEC
    config.model = build.complete(models.config('tokens', 'masked', 'stack', 'frame', ('transition',), 'departure'))

    def go_on(**fields):
        config.model.transition.update(fields)
        checkpoint.write_config(tmp_path, config, spec, config_lib.fingerprint(config, spec.to_json(), 'data'))

    go_on()
    path = tmp_path / 'fingerprint.json'
    whole = json.loads(path.read_text())
    missing = ('model.transition.drop_action', 'model.transition.order', 'model.memory.parts.near.neighbours')
    path.write_text(json.dumps({k: v for k, v in whole.items() if k not in missing}))
    go_on()
    assert json.loads(path.read_text()) == whole
    path.write_text(json.dumps({k: v for k, v in whole.items() if k not in missing}))
    with pytest.raises(ValueError, match=r'model.transition.drop_action \(0.0 there, 0.5 here\)'):
        go_on(drop_action=0.5)
