"""Conversion: killed and started again it ends with the same bytes, reading nothing twice; what it guesses; what it refuses."""

import json
import os
import pathlib
import subprocess
import sys

import commands
import foreign
import numpy as np
import pytest
from test_collect import contents

from worldmodels.data import convert, episodes, infer, making, pipeline, sources

ROOT = pathlib.Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}


@pytest.fixture(scope='module')
def replay(tmp_path_factory):
    return foreign.replay(tmp_path_factory.mktemp('theirs'), 12)


def plan(path, kind='npz', **given):
    return convert.prepare(kind, path, given)[0]


class Killed(Exception):
    pass


@pytest.mark.parametrize('kind', ['npz', 'video'])
def test_killed_anywhere_and_started_again(tmp_path, monkeypatch, replay, kind):
    # Parts of two or three episodes; with videos they end in the midst of a file.
    monkeypatch.setattr(convert, 'PART_BYTES', 40_000)
    given = {}
    if kind == 'video':
        given = {'source': {'size': [48, 48], 'frames': 3}}
        for i in range(3):
            foreign.video(tmp_path / 'theirs' / f'{i}.mp4', 19 + i)
        replay = str(tmp_path / 'theirs')
    whole = tmp_path / 'whole'
    convert.convert(str(whole), plan(replay, kind, **given), {})
    assert episodes.read_metadata(str(whole))['lengths']['validation']
    path = tmp_path / 'data'
    read = []
    made = plan(replay, kind, **given)
    original = made.source.read

    def watched(split, number, most=None):
        for i, episode in enumerate(original(split, number, most)):
            read.append((split, number, i))
            yield episode

    monkeypatch.setattr(made.source, 'read', watched)
    kills = 0
    for calls in (3, 2, 5, 100):
        left = iter(range(calls))

        def progress(stage, done, total, left=left):
            if next(left, None) is None and stage == 'converting':
                raise Killed

        held = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob('data.parts/*-*.npz')}
        try:
            convert.convert(str(path), made, {}, progress=progress)
            break
        except Killed:
            kills += 1
            assert not making.is_complete(str(path), made.settings, 'converted')
            assert {p.name: p.stat().st_mtime_ns for p in tmp_path.glob('data.parts/*-*.npz')}.items() >= held.items()
            pathlib.Path(f'{path}.parts', 'train-00099.npz.tmp').write_bytes(b'half of it')
    assert kills >= 2
    assert contents(path) == contents(whole)
    assert making.is_complete(str(path), made.settings, 'converted')
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != 'theirs') == ['data', 'whole']
    if kind == 'npz':  # only what lay in no finished part was read again
        again = len(read) - len(set(read))
        assert again <= 3 * kills
    with pytest.raises(ValueError, match=r'was converted otherwise \(mapping is'):
        making.is_complete(str(path), plan(replay, kind, **{**given, 'cut': 2}).settings, 'converted')


def test_bad_episodes_stop_it_or_are_dropped_and_counted(tmp_path):
    path = foreign.replay(tmp_path / 'theirs', 8)

    def spoil(number, **changed):
        file = pathlib.Path(path, f'{number:03d}.npz')
        with np.load(file) as loaded:
            arrays = {k: loaded[k] for k in loaded.files}
        np.savez(file, **{**arrays, **changed})

    spoil(2, reward=np.array([0, 1, np.nan, 3, 4, 5], np.float32))
    pathlib.Path(path, '003.npz').write_bytes(b'PK\x03\x04 and no more')
    spoil(
        5, **{name: np.zeros((1, *x.shape[1:]), x.dtype) for name, x in np.load(pathlib.Path(path, '005.npz')).items()}
    )
    with pytest.raises(ValueError, match=r"^002.npz: 'reward' is nan in row 1, expected finite numbers. Mend it, or"):
        convert.convert(str(tmp_path / 'data'), plan(path, validation=0), {})
    assert not (tmp_path / 'data').exists()
    metadata = convert.convert(str(tmp_path / 'data'), plan(path, validation=0), {}, 'drop')
    assert metadata['dropped'] == {'single_frame': 1, 'bad': 2}
    assert metadata['lengths'] == {'train': [4, 5, 8, 10, 11]}
    pathlib.Path(path, '003.npz').unlink()
    for number in (0, 1, 4, 6, 7):
        spoil(number, reward=np.full(4 + number, np.nan, np.float32))
    with pytest.raises(
        ValueError, match=r"No episode is left to train on: the first bad one: 000.npz: 'reward' is nan"
    ):
        convert.convert(str(tmp_path / 'none'), plan(path, validation=0), {}, 'drop')


def test_what_is_guessed(tmp_path):
    random = np.random.default_rng(0)

    def guess(**arrays):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        np.savez(folder / 'a.npz', **arrays)
        source = sources.open_source('npz', str(folder), {})
        return infer.infer(source, infer.sample(source), {})

    found = guess(
        camera=random.integers(0, 256, (5, 3, 24, 24)).astype(np.uint8),
        depth=random.random((5, 24, 24, 1)).astype(np.float32),
        tiles=random.integers(0, 7, (5, 8, 8)),
        joints=random.normal(size=(5, 7)),
        clock=np.arange(5.0),
        log_speed=np.zeros(5),
        truncated=np.zeros(5, bool),
        weights=np.zeros((9, 2)),  # no row per frame
        actions=random.uniform(-2, 2, (5, 3)),
        rewards=np.zeros(5),
        terminated=np.zeros(5, bool),
        name=np.array('robot'),
    )
    parts = dict(found.observation)
    assert {name: (part.kind, part.shape) for name, part in parts.items()} == {
        'camera': ('image', (24, 24, 3)),
        'depth': ('image', (24, 24, 1)),
        'tiles': ('grid', (8, 8, 1)),
        'joints': ('vector', (7,)),
        'clock': ('vector', (1,)),
    }
    assert (parts['camera'].channels, parts['depth'].scale, parts['tiles'].classes) == ('first', 255.0, (7,))
    assert (found.action.kind, found.action.size, found.action.low, found.action.high) == ('continuous', 3, -2, 2)
    assert (found.reward, found.terminal) == ('rewards', 'terminated')
    # DreamerV2 keeps the action with the frame it led to: an opening has none.
    hot = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]]
    hot[0] = 0
    found = guess(image=random.integers(0, 256, (5, 32, 32, 3)).astype(np.uint8), action=hot)
    assert (found.action.one_hot, found.action.size, found.action_at) == (True, 4, 'arrival')
    assert guess(state=np.zeros((5, 2)), action=np.array([-1, 0, 2, 1, 0])).action.size == 3
    with pytest.raises(ValueError, match='No observation was recognised among action'):
        guess(action=np.zeros(5))


def test_what_is_said_is_taken_and_checked(replay):
    def refuses(sentence, **given):
        with pytest.raises(ValueError, match=sentence):
            plan(replay, **given)

    told = plan(replay, observation={'view': {'field': 'image', 'resize': [8, 16]}}, cut=3, reward='').mapping
    assert dict(told.observation)['view'].shape == (8, 16, 3)
    assert (told.cut, told.reward, told.terminal) == (3, '', 'is_terminal')
    refuses("mapping.reward is 'rewards', which the source does not have: did you mean 'reward'", reward='rewards')
    refuses("mapping.costs.lava is 'burn'", costs={'lava': 'burn'})
    refuses("mapping.action.field is 'act'", action={'field': 'act'})
    refuses("splits.train is 'training', which the source does not have: it has all", splits={'train': 'training'})
    refuses(
        'expected 3 numbers for the kind grid',
        observation={'x': {'field': 'is_first', 'kind': 'grid', 'shape': [2, 2]}},
    )
    refuses("mapping.observation.picture has no field: name the source's", observation={'picture': {'kind': 'image'}})
    refined = plan(replay, observation={'image': {'resize': [8, 16]}}).mapping
    assert dict(refined.observation)['image'].shape == (8, 16, 3)


def test_splits(tmp_path, replay):
    made = plan(replay, validation=0.25)
    assert {k: len(v) for k, v in made.items.items()} == {'train': 9, 'validation': 3}
    assert sorted(made.items['train'] + made.items['validation']) == [('all', i) for i in range(12)]
    assert plan(replay, validation=0.25).items == made.items
    foreign.replay(tmp_path / 'train', 3)
    foreign.replay(tmp_path / 'test', 2)
    made = plan(str(tmp_path))
    assert made.items == {'train': [('train', 0), ('train', 1), ('train', 2)], 'validation': [('test', 0), ('test', 1)]}
    assert plan(str(tmp_path), splits={'train': 'test'}).items == {'train': [('test', 0), ('test', 1)]}
    foreign.replay(tmp_path / 'other', 1)
    assert plan(str(tmp_path)).source.splits == {'all': 6}


def test_an_episode_too_large_for_a_record(tmp_path, monkeypatch, replay):
    monkeypatch.setattr(convert, 'RECORD_BYTES', 20_000)
    with pytest.raises(ValueError, match=r'an episode of 8 frames takes .* GB, expected .* give mapping.cut'):
        convert.convert(str(tmp_path / 'data'), plan(replay), {})
    metadata = convert.convert(str(tmp_path / 'data'), plan(replay, cut=5, validation=0), {})
    assert max(metadata['lengths']['train']) == 5


def command(*arguments, expect=0):
    done = subprocess.run(
        [sys.executable, str(ROOT / 'launch' / 'convert.py'), *arguments],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr
    return done


def test_command_describes_converts_and_refuses(tmp_path, replay):
    described = command(f'--source=npz:{replay}', '--describe')
    assert 'is_terminal' in described.stderr
    mapping = json.loads(described.stdout)
    assert mapping['action']['one_hot']
    mapping['cut'] = 6
    (tmp_path / 'mapping.json').write_text(json.dumps(mapping))
    asked = (f'--source=npz:{replay}', f'--mapping={tmp_path}/mapping.json', f'--path={tmp_path}/data')
    done = command(*asked, '--set=observation.image.resize=[16,16]', '--set=action.names=["a","b","c","d"]')
    assert '12 items' in done.stdout
    assert 'about 114 frames' in done.stdout
    spec = episodes.read_spec(str(tmp_path / 'data'))
    assert (spec.modalities['image'].shape, spec.action.names) == ((16, 16, 3), ('a', 'b', 'c', 'd'))
    assert max(pipeline.Episodes(str(tmp_path / 'data'), 'train').lengths) == 6
    assert 'was converted otherwise' in command(*asked, expect=1).stderr
    for arguments, sentence in (
        ((f'--source=npz:{replay}',), '--path is missing'),
        ((f'--source=npz:{replay}', '--set=cut'), 'give NAME=VALUE'),
        ((f'--source=npz:{replay}', f'--mapping={replay}/000.npz'), 'no JSON file'),
    ):
        assert sentence in command(*arguments, expect=1).stderr


def test_command_killed_and_started_again(tmp_path):
    folder = foreign.replay(tmp_path / 'theirs', 1)
    with np.load(pathlib.Path(folder, '000.npz')) as loaded:
        arrays = {k: np.resize(loaded[k], (4000, *loaded[k].shape[1:])) for k in loaded.files}
    last = np.arange(4000) == 3999
    for i in range(1, 8):  # 12 MB each
        np.savez(pathlib.Path(folder, f'{i:03d}.npz'), **{**arrays, 'is_first': last[::-1], 'is_terminal': last})
    asked = (f'--source=npz:{folder}',)
    killed = tmp_path / 'killed'
    words = [sys.executable, str(ROOT / 'launch' / 'convert.py'), *asked, f'--path={killed}']
    commands.kill_once_begun(words, killed, ENVIRONMENT)
    command(*asked, f'--path={killed}')
    command(*asked, f'--path={tmp_path}/whole')
    assert contents(killed) == contents(tmp_path / 'whole')
    assert 'is complete: nothing to do' in command(*asked, f'--path={killed}').stdout


@pytest.mark.slow
def test_converted_data_are_trained_on(tmp_path):
    path = foreign.replay(tmp_path / 'theirs', 12)
    command(f'--source=npz:{path}', f'--path={tmp_path}/data', '--set=observation.image.resize=[64,64]')
    done = subprocess.run(
        [
            sys.executable, str(ROOT / 'launch' / 'train.py'), f'--config={ROOT}/experiments/doorkey.py:tokenizer,tiny',
            f'--workdir={tmp_path}/run', f'--config.data.path={tmp_path}/data', '--config.train.steps=6',
        ],
        env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Done: 6 steps' in done.stdout
