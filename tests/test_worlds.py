"""Worlds by name: what is there, what can be set, what is said where something is missing."""

import re
import sys
import types

import pytest

from worldmodels import worlds
from worldmodels.types import ActionSpace, Modality, Spec
from worldmodels.worlds.options import Option, choose, parse

KNOWN = {
    'view': Option('full', ('full', 'partial')),
    'max_steps': Option(128, minimum=1),
    'chance': Option(0.25, minimum=0),
    'bright': Option(False),
    'size': Option(None, kind=int),
}


class Still:
    """A world in which nothing happens."""

    spec = Spec((('vector', Modality('vector', (1,))),), ActionSpace('discrete', 2))

    def __init__(self, **chosen):
        self.chosen = chosen


@pytest.fixture
def family(monkeypatch):
    """A family 'toy' of one world; what it needs can be changed."""
    module = types.ModuleType('toy_worlds')
    module.PACKAGES = {'jax': 'pip install jax'}
    module.names = lambda: ['Still']
    module.options = lambda name: KNOWN
    module.load = lambda name, **chosen: Still(**chosen)
    monkeypatch.setitem(sys.modules, 'toy_worlds', module)
    monkeypatch.setitem(worlds.FAMILIES, 'toy', 'toy_worlds')
    worlds._missing.cache_clear()
    yield module
    worlds._missing.cache_clear()
    worlds._made.cache_clear()


def test_options_are_filled_in_and_read():
    defaults = {'view': 'full', 'max_steps': 128, 'chance': 0.25, 'bright': False, 'size': None}
    assert choose('toy/Still', KNOWN, {}) == defaults
    typed = parse(['view=partial', 'max_steps=7', 'chance=1', 'bright=true', 'size=3'])
    assert choose('toy/Still', KNOWN, typed) == {
        'view': 'partial',
        'max_steps': 7,
        'chance': 1.0,
        'bright': True,
        'size': 3,
    }


@pytest.mark.parametrize(
    ('given', 'sentence'),
    [
        ({'veiw': 'full'}, "toy/Still has no option 'veiw': did you mean 'view'?"),
        ({'zzz': 1}, "no option 'zzz': it has view, max_steps, chance, bright, size."),
        ({'view': 'side'}, "view='side' is not one of full | partial."),
        ({'max_steps': 0}, 'max_steps=0: give a whole number of at least 1.'),
        ({'max_steps': True}, 'max_steps=True: give a whole number.'),
        ({'max_steps': 1.5}, 'max_steps=1.5: give a whole number.'),
        ({'max_steps': 'ten'}, "max_steps='ten': give a whole number."),
        ({'max_steps': None}, 'max_steps=None: give a whole number.'),
        ({'chance': float('nan')}, 'chance=nan: give a number of at least 0.'),
        ({'bright': 'maybe'}, "bright='maybe': give true or false."),
    ],
)
def test_options_refused(given, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        choose('toy/Still', KNOWN, given)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [(['view'], 'give name=value'), (['=full'], 'give name=value'), (['view=a', 'view=b'], 'is given twice')],
)
def test_settings_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse(settings)


def test_a_family_is_known_by_its_module(family):
    assert 'toy/Still' in worlds.names()
    assert worlds.names('toy') == ['toy/Still']
    assert worlds.options('toy/Still') is KNOWN
    world = worlds.make('toy/Still', 3, view='partial')
    assert world.single.chosen['view'] == 'partial'
    assert world.single.chosen['max_steps'] == 128
    assert world is worlds.make('toy/Still', 3, max_steps=128, view='partial'), 'the same settings, the same world'
    with pytest.raises(ValueError, match="did you mean 'toy/Still'"):
        worlds.make('toy/Stil', 1)


def test_a_missing_package_is_said_once_and_breaks_no_other_family(family):
    family.PACKAGES = {'no_such_package': 'pip install no-such-package'}
    family.names = lambda: pytest.fail('the package is not there to be asked')
    sentence = 'toy worlds need no_such_package: pip install no-such-package.'
    assert worlds.missing()['toy'] == sentence
    assert 'navix/Empty-5x5' in worlds.names()
    for ask in (lambda: worlds.make('toy/Still', 1), lambda: worlds.names('toy'), lambda: worlds.options('toy/Still')):
        with pytest.raises(ValueError, match=f'^{sentence}$'):
            ask()


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match=r"no family 'nowhere' of worlds: .*navix.* are known"):
        worlds.names('nowhere')
    with pytest.raises(ValueError, match=r"There is no world 'qqqq/zzzz': give 'family/name'; families are .*navix"):
        worlds.make('qqqq/zzzz', 1)
