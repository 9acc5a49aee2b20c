"""How an evaluation turns the dials of a transition: read from text, checked as fields are, each model its own."""

from __future__ import annotations

import pytest
from ml_collections import ConfigDict
from models import SPEC, TRANSITIONS, config

from worldmodels import transition as transitions
from worldmodels.build import complete, dials_of, read_dials
from worldmodels.evaluation.examine import Trained
from worldmodels.evaluation.settings import Settings, parse_dials


def of(transition: str) -> ConfigDict:
    heart = 'continuous' if transition == 'flow' else 'tokens'
    return ConfigDict(complete(config(heart, transition, 'window', 'frame', ('transition',), 'departure')))


@pytest.mark.parametrize('kind', TRANSITIONS)
def test_every_dial_is_a_field_that_the_docstring_tells_of(kind):
    cls = transitions.KINDS[kind]
    dials = dials_of(of(kind))
    assert tuple(dials) == cls.DIALS
    for name, value in dials.items():
        assert value == of(kind).transition[name]
        assert f'{name}:' in cls.__doc__


def test_text_is_read_by_the_type_of_the_dial():
    given = parse_dials(['steps=4', 'temperature=0.5', 'schedule=linear', 'order=halton', 'choice=2'])
    dials = read_dials(of('masked'), SPEC, given)
    assert dials == {'steps': 4, 'temperature': 0.5, 'schedule': 'linear', 'order': 'halton', 'choice': 2.0}
    assert read_dials(of('flow'), SPEC, {'steps': 64}) == {'steps': 64}
    assert parse_dials([]) is None


@pytest.mark.parametrize(
    ('kind', 'name', 'value', 'says'),
    [
        ('masked', 'step', '4', "'step' is no dial of transition 'masked'; did you mean 'steps'"),
        ('categorical', 'steps', '4', "'steps' is no dial of transition 'categorical'; Valid: temperature"),
        ('masked', 'steps', 'four', "the dial 'steps' was given 'four'; it takes a value of type int, such as 2"),
        ('masked', 'steps', 2.5, 'transition.steps is 2.5, a float; it takes a int'),
        ('masked', 'steps', '0', 'transition.steps is 0; it takes a whole number from 1'),
        ('masked', 'schedule', 'cosin', "the schedule 'cosin'; take one of cosine"),
        ('masked', 'temperature', '-1', 'transition.temperature is -1.0'),
        ('flow', 'steps', '65', 'it takes 1 to 64'),
        ('autoregressive', 'guidance', '1', 'train with drop_action'),
    ],
)
def test_what_cannot_be_turned_is_refused_in_a_sentence(kind, name, value, says):
    with pytest.raises(ValueError, match=says):
        read_dials(of(kind), SPEC, {name: value})


def test_a_dial_without_a_value_is_refused():
    with pytest.raises(ValueError, match='write --dial=NAME=VALUE'):
        parse_dials(['steps'])


def test_a_baseline_turns_the_dials_that_it_has():
    settings = Settings(dials={'steps': 4, 'temperature': 0.5})
    trained = lambda kind: Trained(kind, None, {}, ConfigDict({'model': of(kind)}), 0)
    assert trained('masked').dials(settings) == {'steps': 4, 'temperature': 0.5}
    assert trained('autoregressive').dials(settings) == {'temperature': 0.5}
