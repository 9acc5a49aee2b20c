"""Parts of one's own, named by import path: what is found, what is refused, and in which words."""

from __future__ import annotations

import itertools
import sys

import pytest
from models import SPEC, config

from worldmodels import imports
from worldmodels.build import KINDS, build_model, complete

CHOICE = ('tokens', 'masked', 'recurrent', 'frame', ('transition', 'outcome'), 'departure')
NUMBER = itertools.count()
MEMORY = """
import flax.linen as nn
from worldmodels.heart.palette import Palette
from worldmodels.memory.base import Memory

class Last(Memory):
    dtype: str
    length: int = 4
    slots = 1
    width = 3
    def initial(self, batch): ...
    def step(self, h, z, action_BA): ...
    def sequence(self, h, z, action_BTA, reset_BT): ...

class Stepless(Memory):
    slots = 1
    def initial(self, batch): ...
    def sequence(self, h, z, action_BTA, reset_BT): ...

class Small(Palette):
    codes: int = 5

class Bare(nn.Module):
    pass

class Vague(Memory):
    size: int
    slots = 1
    width = 3
    initial = step = sequence = Last.step

class Likely(nn.Module):
    likelihood = True
    def predict(self, z, action_BA, context_BMD): ...
    def loss(self, prediction, posterior, keys_B): ...
    def sample(self, prediction, keys_B, **dials): ...

NUMBER = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a new name in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    name = f'own_parts_{next(NUMBER)}'
    (tmp_path / f'{name}.py').write_text(MEMORY)
    yield name
    sys.modules.pop(name, None)


def chosen(part: str, kind: str, **fields) -> dict:
    return {**config(*CHOICE), part: {'kind': kind, **fields}}


def test_a_part_in_the_current_folder_is_built_with_its_fields_and_what_is_wired(module):
    m = build_model(chosen('memory', f'{module}:Last', length=7), SPEC, 'float32')
    assert (type(m.memory).__name__, m.memory.length, m.memory.dtype) == ('Last', 7, 'float32')
    again = build_model(chosen('memory', f'{module}:Last', length=7), SPEC, 'float32')
    assert (m, hash(m)) == (again, hash(again)), 'a step compiled for one is the step of the other'


def test_a_heart_of_ones_own_wires_the_other_parts(module):
    m = build_model(chosen('heart', f'{module}:Small'), SPEC, 'float32')
    assert (m.heart.codes, m.transition.classes, m.memory.dtype) == (5, 5, 'float32')
    assert type(m.filter).__name__ == 'Tokenized'
    with pytest.raises(ValueError, match=f"heart '{module}:Small' is a tokenizer"):
        build_model({**chosen('heart', f'{module}:Small'), 'filter': {'reads': 'memory'}}, SPEC, 'float32')


@pytest.mark.parametrize(('part', 'kind'), [(part, kind) for part in KINDS for kind in KINDS[part]])
def test_our_own_parts_keep_the_contract_that_is_asked_of_others(part, kind):
    cls = KINDS[part][kind]
    assert (
        complete(chosen(part, f'{cls.__module__}:{cls.__name__}'))[part].keys()
        == complete(chosen(part, kind))[part].keys()
    )


def test_its_fields_are_all_in_a_completed_config(module):
    assert complete(chosen('memory', f'{module}:Last'))['memory'] == {'kind': f'{module}:Last', 'length': 4}


@pytest.mark.parametrize(
    ('part', 'kind', 'fields', 'says'),
    [
        ('memory', '{}:Last', {'lenght': 3}, "model.memory.lenght is no field of memory 'Last'; did you mean 'length'"),
        ('memory', '{}:Last', {'length': '3'}, "model.memory.length is '3', a str; it takes a int"),
        ('memory', '{}:Lost', {}, "has no 'Lost'; did you mean 'Last'"),
        ('memory', '{}x:Last', {}, "no module '{}x' is installed or lies in the current folder .*; did you mean '{}'"),
        ('memory', 'no_such.part:Last', {}, "no module 'no_such' is installed"),
        ('memory', '{}:Stepless', {}, 'which lacks step, width; a memory has initial, step, sequence, slots, width'),
        ('memory', '{}:Bare', {}, r'which is derived from Module; a memory is .* worldmodels.memory.base.Memory'),
        ('memory', '{}:NUMBER', {}, 'which is a int; a memory is a class derived from'),
        ('memory', '{}:Vague', {}, "whose field 'size' has no default"),
        ('memory', '{}:', {}, "is '{}:'; code of your own is named as 'package.module:Name'"),
        ('memory', 'own parts:Last', {}, "code of your own is named as 'package.module:Name'"),
        ('memory', './{}.py:Last', {}, "code of your own is named as 'package.module:Name'"),
        ('memory', 'recurent', {}, "did you mean 'recurrent'.*of your own is named 'package.module:Name'"),
        ('transition', '{}:Bare', {}, 'which lacks predict, loss, sample, likelihood; a transition has'),
        ('transition', '{}:Likely', {}, 'which lacks log_prob; a transition has'),
        ('heart', '{}:Bare', {}, 'which lacks layout, classes, embedding_size, tokenizer, encode'),
        ('transition', 'os:system', {}, 'which is a builtin_function_or_method; a transition is a class derived'),
    ],
)
def test_refused_in_one_sentence(module, part, kind, fields, says):
    with pytest.raises(ValueError, match=says.replace('{}', module)) as error:
        build_model(chosen(part, kind.format(module), **fields), SPEC, 'float32')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('import no_such_package', "failed with ModuleNotFoundError: No module named 'no_such_package'"),
        ('def f(:', r'failed with SyntaxError: invalid syntax .*py, line 1'),
        ('1 / 0', 'failed with ZeroDivisionError: division by zero'),
    ],
)
def test_a_module_that_fails_says_how(module, tmp_path, text, says):
    (tmp_path / f'{module}_bad.py').write_text(text)
    with pytest.raises(ValueError, match=says) as error:
        imports.load(f'{module}_bad:Part', 'model.memory.kind')
    assert error.value.__cause__ is not None, 'the traceback leads into the module'


def test_the_current_folder_stands_in_for_nothing_that_is_installed(module, tmp_path):
    (tmp_path / 'chex.py').write_text('raise SystemExit("shadowed")')
    import chex

    sys.modules.pop('chex')
    try:
        assert imports.load('chex:assert_shape', 'x').__module__.startswith('chex.')
    finally:
        sys.modules['chex'] = chex


def test_a_run_whose_part_is_not_here_is_refused(module, tmp_path, monkeypatch):
    """Elsewhere, where the module is not importable: nothing is run that came with the config."""
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    with pytest.raises(ValueError, match=f"no module '{module}' is installed"):
        build_model(chosen('memory', f'{module}:Last'), SPEC, 'float32')
