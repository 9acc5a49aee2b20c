"""The list of all worlds, and the command that prints it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from worldmodels import worlds
from worldmodels.evaluation import worlds as listing
from worldmodels.types import ActionSpace, Modality, Spec

ROOT = pathlib.Path(__file__).parent.parent


def test_words_choose_worlds():
    assert listing.find(['craftax']) == ['craftax/Classic-Pixels', 'craftax/Classic-Symbolic']
    assert listing.find(['gymnax/break', 'CATCH']) == ['gymnax/Breakout-MinAtar', 'gymnax/Catch-bsuite']
    every = listing.find([])
    assert {name.partition('/')[0] for name in every} == set(worlds.FAMILIES)
    assert len(every) == len(set(every))
    assert 'atari/Combat' not in every, 'a console given a game for two ends the process'


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['gymnax/Brekout-MinAtar'], "'gymnax/Brekout-MinAtar': did you mean 'gymnax/Breakout-MinAtar'?"),
        (['craftax', 'qqqqqqqq'], "'qqqqqqqq': families are"),
    ],
)
def test_words_that_choose_nothing_are_refused(words, sentence):
    with pytest.raises(ValueError, match=sentence.replace('?', r'\?')):
        listing.find(words)


def test_a_word_that_names_a_family_without_its_package(monkeypatch):
    monkeypatch.setattr('worldmodels.worlds.gymnax.PACKAGES', {'no_such_package': 'pip install no-such-package'})
    worlds._missing.cache_clear()
    try:
        with pytest.raises(ValueError, match='gymnax worlds need no_such_package: pip install no-such-package'):
            listing.find(['gymnax'])
        assert 'navix/Empty-5x5' in listing.find(['Empty-5x5'])
    finally:
        worlds._missing.cache_clear()


def test_a_world_is_described_as_it_is():
    row = listing.describe('gymnax/MemoryChain-bsuite')
    world = worlds.make('gymnax/MemoryChain-bsuite', 1)
    assert Spec.from_json(row) == world.spec
    assert row['max_steps'] == 1000
    assert row['options'] == {'max_steps': None, 'num_bits': 1, 'memory_length': 5, 'shortest': 0}
    assert 'did you mean' in listing.describe('gymnax/MemoryChian-bsuite')['error']
    json.dumps(row)


def test_speeds_are_measured():
    measured = listing.measure('gymnax/Catch-bsuite', 4)
    assert measured['lanes'] == 4
    assert measured['steps_per_second'] > 100
    assert 0 < measured['compile_seconds'] < 120
    assert measured['opening_ms'] > 0


def test_what_is_shown_is_short():
    spec = Spec(
        (('image', Modality('image', (63, 63, 3))), ('vector', Modality('vector', (22,)))), ActionSpace('discrete', 2)
    )
    assert listing.shown_observation(spec) == 'image 63x63x3 + vector 22'
    assert listing.shown_action(ActionSpace('discrete', 2)) == '2'
    assert listing.shown_action(ActionSpace('discrete', 2, ('left', 'right'))) == '2: left, right'
    assert listing.shown_action(ActionSpace('continuous', 3, (), -2, 2)) == '3 in -2..2'
    many = ActionSpace('discrete', 30, tuple(f'action_{i}' for i in range(30)))
    assert listing.shown_action(many, 30) == '30: action_0, action_1, ...'


def launched(*arguments):
    return subprocess.run(
        [sys.executable, 'launch/worlds.py', *arguments],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_a_table_and_writes_what_is_in_it(tmp_path):
    done = launched('gymnax/Catch', 'gymnax/DeepSea', '--options', f'--json={tmp_path / "worlds.json"}')
    assert done.returncode == 0, done.stderr
    assert 'gymnax/Catch-bsuite' in done.stdout
    assert '10x5x1' in done.stdout
    assert 'sample_action_map=False' in done.stdout
    report = json.loads((tmp_path / 'worlds.json').read_text())
    assert [row['name'] for row in report['worlds']] == ['gymnax/Catch-bsuite', 'gymnax/DeepSea-bsuite']
    assert report['machine']['cores'] > 0


def test_the_command_refuses_what_it_does_not_know():
    done = launched('gymnax/Cacth')
    assert done.returncode == 1
    assert done.stderr.strip().startswith("error: No world is called anything with 'gymnax/Cacth': did you mean")
