"""Collecting: killed and started again it ends with the same bytes; collections and splits never mix."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import commands
import pytest

from worldmodels.data import collect, episodes, pipeline

SETTINGS = collect.Settings(
    world='navix/Empty-Random-5x5',
    options=(('max_steps', 20),),
    policy=(('random', 0.5), ('scripted', 0.25), ('sticky', 0.25)),
    noise=0.2,
    steps=1900,
    validation=12,
    lanes=4,
    seed=3,
)


def contents(path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(Path(path).iterdir())}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    path = str(tmp_path_factory.mktemp('whole') / 'data')
    collect.collect(path, SETTINGS, {'git_commit': 'none'})
    return path


def read(path, split):
    source = pipeline.Episodes(path, split)
    return [source[i] for i in range(len(source))]


def test_what_was_asked_for(whole):
    metadata = episodes.read_metadata(whole)
    assert metadata['git_commit'] == 'none'
    pairs = {name: [list(pair) for pair in getattr(SETTINGS, name)] for name in ('policy', 'options')}
    assert metadata['settings'] == {**dataclasses.asdict(SETTINGS), **pairs}
    assert pairs['options'] == [['max_steps', 20], ['observation', 'rgb'], ['view', 'full']], 'defaults are filled in'
    assert metadata['split']['by'] == 'openings'
    assert metadata['split']['openings'] >= 36
    assert len(metadata['lengths']['validation']) == 12
    # Two chunks of 238 ticks; episodes of a single frame, cut by a chunk's end, are left out.
    assert (SETTINGS.chunks, SETTINGS.ticks) == (2, 238)
    assert 1900 - 2 * 4 <= sum(metadata['lengths']['train']) <= 2 * 238 * 4
    assert metadata['openings_drawn_of_the_other_split_and_dropped']['train'] > 0


def test_episodes_are_rlds(whole):
    for episode in read(whole, 'train'):
        length = len(episode['is_first'])
        assert 2 <= length <= 21
        assert episode['is_first'].tolist() == [True] + [False] * (length - 1)
        assert episode['is_last'].tolist() == [False] * (length - 1) + [True]
        assert not episode['is_terminal'][:-1].any()
        assert (episode['action'][-1], episode['reward'][-1], episode['discount'][-1]) == (0, 0, 0)
        assert (episode['reward'][-2] == 1) == (episode['discount'][-2] == 0) == episode['is_terminal'][-1]
        assert episode['observation']['image'].shape == (length, 40, 40, 3)


def test_openings_are_of_one_split_only(whole):
    train, validation = ({e['observation']['image'][0].tobytes() for e in read(whole, s)} for s in episodes.SPLITS)
    assert len(train) > 5
    assert len(validation) > 1
    assert not train & validation


def test_interrupted_and_started_again(whole, tmp_path):
    path = str(tmp_path / 'data')

    class Killed(Exception):
        pass

    def stop_at(number):
        calls = iter(range(100))

        def progress(stage, done, total):
            if next(calls) == number:
                raise Killed

        return progress

    for number in (0, 2, 10):  # after the first chunk; in validation; while writing
        with pytest.raises(Killed):
            collect.collect(path, SETTINGS, {'git_commit': 'none'}, stop_at(number))
        assert not collect.is_complete(path, SETTINGS)
        # What a kill in the midst of a write leaves behind.
        Path(path + '.parts', 'train-00001.npz.tmp').write_bytes(b'half of it')
    collect.collect(path, SETTINGS, {'git_commit': 'none'})
    assert contents(path) == contents(whole)
    assert [p.name for p in tmp_path.iterdir()] == ['data']


def test_complete_is_complete_and_others_are_refused(whole, tmp_path):
    assert collect.is_complete(whole, SETTINGS)
    other = dataclasses.replace(SETTINGS, seed=4, policy=(('random', 1.0),))
    with pytest.raises(ValueError, match=r'policy is .*; seed is 3 there, 4 here'):
        collect.is_complete(whole, other)
    begun = tmp_path / 'begun'
    with pytest.raises(RuntimeError):
        collect.collect(str(begun), SETTINGS, {}, lambda *_: (_ for _ in ()).throw(RuntimeError()))
    with pytest.raises(ValueError, match='seed is 3 there, 4 here'):
        collect.is_complete(str(begun), other)
    foreign = tmp_path / 'foreign'
    foreign.mkdir()
    (foreign / 'thesis.tex').write_text('years of work')
    with pytest.raises(ValueError, match='not a dataset'):
        collect.is_complete(str(foreign), SETTINGS)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'policy': (('clever', 1.0),)}, 'There is no policy'),
        ({'policy': (('random', 0.0),)}, 'positive'),
        ({'steps': 0}, 'steps=0'),
        ({'noise': 1.5}, 'probability'),
        ({'validation': -1}, 'held-out'),
        ({'split': 'halves'}, 'openings'),
        ({'options': (('veiw', 'full'),)}, "did you mean 'view'"),
    ],
)
def test_settings_are_checked(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(SETTINGS, **change)


def test_policies_from_text():
    assert collect.parse_policy('random:0.5, scripted:0.25,sticky') == (
        ('random', 0.5),
        ('scripted', 0.25),
        ('sticky', 1),
    )
    for text, sentence in (('random:much', 'kind:weight'), ('random,random:2', 'twice')):
        with pytest.raises(ValueError, match=sentence):
            collect.parse_policy(text)


def test_a_world_with_one_opening_holds_out_episodes(tmp_path):
    settings = dataclasses.replace(
        SETTINGS, world='navix/Empty-5x5', policy=(('random', 1.0),), steps=600, validation=3
    )
    path, said = str(tmp_path / 'data'), []
    metadata = collect.collect(path, settings, {}, say=said.append)
    assert metadata['split'] == {'by': 'episodes', 'openings': 1, 'why': said[0]}
    assert 'whole episodes are held out' in said[0]
    train, validation = ([e['action'].tobytes() for e in read(path, s)] for s in episodes.SPLITS)
    assert len(validation) == 3
    assert not set(train) & set(validation)
    by_openings = dataclasses.replace(settings, split='openings')
    with pytest.raises(ValueError, match=r'too few different openings .* set --split=episodes'):
        collect.collect(str(tmp_path / 'other'), by_openings, {})


def test_command_killed_and_started_again(tmp_path):
    root = Path(__file__).parent.parent
    command = [
        sys.executable, str(root / 'launch' / 'collect.py'), '--world=navix/Empty-Random-5x5', '--policy=random',
        '--option=observation=symbolic', '--option', 'max_steps=10', '--lanes=4', '--steps=4000', '--validation=8',
    ]  # fmt: skip
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}

    def run(path, check=True):
        return subprocess.run(
            [*command, f'--path={path}'], env=environment, check=check, capture_output=True, text=True
        )

    killed = tmp_path / 'killed'
    commands.kill_once_begun([*command, f'--path={killed}'], killed, environment)

    assert 'held-out episodes' in run(killed).stdout
    run(tmp_path / 'whole')
    assert contents(killed) == contents(tmp_path / 'whole')
    again = run(killed)
    assert 'is complete: nothing to do' in again.stdout
    refused = subprocess.run(
        [*command, '--seed=1', f'--path={killed}'], env=environment, check=False, capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert 'seed is 0 there, 1 here' in refused.stderr
    assert 'Traceback' not in refused.stderr


def test_frame_bytes():
    spec = episodes.Spec.from_json(
        {
            'observation': {'image': {'kind': 'image', 'shape': [8, 8, 3], 'classes': []}},
            'action': {'kind': 'discrete', 'size': 3, 'names': [], 'low': -1.0, 'high': 1.0},
            'outcomes': ['reward', 'discount'],
        }
    )
    # Image 192, action 4, two outcomes 8, three flags 3.
    assert episodes.frame_bytes(spec) == 207
