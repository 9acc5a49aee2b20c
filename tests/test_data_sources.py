"""Data of other makes: found, described, mapped and read as what they are. Nothing in them is executed."""

import itertools
import json
import os
import pathlib
import pickle
import sys

import foreign
import numpy as np
import pytest

from worldmodels.data import convert, episodes, pipeline, sources
from worldmodels.types import ActionSpace, Modality


def converted(kind, path, out, given=None, **options):
    """(metadata, {split: episodes}) of a conversion to the folder `out`."""
    plan, _ = convert.prepare(kind, path, given or {})
    metadata = convert.convert(str(out), plan, {}, **options)
    read = {}
    for split in metadata['lengths']:
        source = pipeline.Episodes(str(out), split)
        read[split] = [source[i] for i in range(len(source))]
    return metadata, read


@pytest.mark.parametrize(('nested', 'form'), [(True, 'array_record'), (False, 'array_record'), (True, 'tfrecord')])
def test_rlds(tmp_path, nested, form):
    path = foreign.rlds(tmp_path / 'theirs', nested, form)
    metadata, read = converted('tfds', path, tmp_path / 'ours')
    assert metadata['lengths'] == {'train': [3, 4, 5, 6], 'validation': [3, 4]}  # their own splits
    spec = episodes.read_spec(str(tmp_path / 'ours'))
    assert spec.modalities == {'image': Modality('image', (32, 32, 3)), 'speed': Modality('vector', (2,))}
    assert spec.action == ActionSpace('discrete', 3, ('left', 'right', 'stay'))
    episode = read['train'][1]
    assert episode['observation']['image'][:, 0, 0, 0].tolist() == [40, 41, 42, 43]
    assert episode['observation']['speed'].tolist() == [[0, 0], [1, -1], [2, -2], [3, -3]]
    assert episode['action'].tolist() == [0, 1, 2, 0]
    assert episode['reward'].tolist() == [10, 11, 12, 0]  # the last row stands for nothing
    assert episode['discount'].tolist() == [1, 1, 0, 0]  # its third action ended the world
    assert episode['is_terminal'].tolist() == [False, False, False, True]
    assert 'tensorflow' not in sys.modules


def test_a_replay_of_npz(tmp_path):
    path = foreign.replay(tmp_path / 'theirs')
    metadata, read = converted('npz', path, tmp_path / 'ours', {'validation': 0.3})
    assert {k: len(v) for k, v in metadata['lengths'].items()} == {'train': 4, 'validation': 2}
    assert sorted(itertools.chain(*metadata['lengths'].values())) == [4, 5, 6, 7, 8, 9]
    assert episodes.read_spec(str(tmp_path / 'ours')).action == ActionSpace('discrete', 4)
    for episode in read['train'] + read['validation']:
        i = len(episode['is_first']) - 4
        t = np.arange(4 + i)
        assert episode['action'].tolist() == [*((t[:-1] + i) % 4), 0]
        assert episode['reward'].tolist() == [*(10 * i + t[1:]), 0]  # theirs stands with the frame it led to
        assert episode['discount'].tolist() == [*[1] * (2 + i), i % 2, 0]
        assert episode['is_terminal'][-1] == (i % 2 == 0)
        assert episode['is_last'].tolist() == [*[False] * (3 + i), True]
        with np.load(pathlib.Path(path, f'{i:03d}.npz')) as loaded:
            np.testing.assert_array_equal(episode['observation']['image'], loaded['image'])


def test_minari(tmp_path):
    path = foreign.cartpole(tmp_path / 'theirs')
    import minari

    theirs = minari.load_dataset('cartpole/random-v0')
    metadata, read = converted('minari', path, tmp_path / 'ours', {'validation': 0})
    assert metadata['lengths'] == {'train': [e.observations.shape[0] for e in theirs]}
    assert episodes.read_spec(str(tmp_path / 'ours')).action == ActionSpace('discrete', 2)
    for ours, there in zip(read['train'], theirs, strict=True):
        np.testing.assert_array_equal(ours['observation']['state'], there.observations)
        np.testing.assert_array_equal(ours['action'][:-1], there.actions)
        np.testing.assert_array_equal(ours['reward'][:-1], there.rewards)
        assert ours['is_terminal'][-1] == there.terminations[-1]
        assert ours['discount'][-2] == 1 - there.terminations[-1]


def test_minari_never_builds_an_environment(tmp_path):
    path = foreign.cartpole(tmp_path / 'theirs', 1)
    file = pathlib.Path(path, 'data', 'metadata.json')
    metadata = json.loads(file.read_text())
    del metadata['action_space']
    file.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="no 'action_space' in its metadata"):
        sources.open_source('minari', path, {})
    with pytest.raises(ValueError, match='There is no Minari dataset'):
        sources.open_source('minari', str(tmp_path), {})


def test_videos_without_actions(tmp_path):
    for name, codec in (('a.mp4', 'libx264'), ('b.webm', 'libvpx'), ('c.gif', 'gif'), ('d.avi', 'mpeg4')):
        foreign.video(tmp_path / 'theirs' / name, 12, codec=codec)
    plan, _ = convert.prepare('video', str(tmp_path / 'theirs'), {'validation': 0})
    assert plan.frames == 48
    metadata, read = converted(
        'video', str(tmp_path / 'theirs'), tmp_path / 'ours', {'validation': 0, 'source': {'size': [16, 24]}}
    )
    assert metadata['lengths'] == {'train': [12, 12, 12, 12]}
    spec = episodes.read_spec(str(tmp_path / 'ours'))
    assert (spec.modalities['image'].shape, spec.action) == ((16, 24, 3), ActionSpace('discrete', 1))
    for episode in read['train']:
        means = episode['observation']['image'].mean((1, 2, 3))
        assert np.abs(means - 10 * np.arange(12)).max() < 20  # a gif has few colours
        assert not episode['action'].any()
        assert not episode['is_terminal'].any()


def test_videos_thinned_out_and_cut(tmp_path):
    foreign.video(tmp_path / 'theirs' / 'a.mp4', 20, rate=10)
    _, read = converted(
        'video', str(tmp_path / 'theirs'), tmp_path / 'ours', {'source': {'size': [16, 16], 'fps': 5, 'frames': 4}}
    )
    assert [len(e['is_first']) for e in read['train']] == [4, 4, 2]
    shown = np.concatenate([e['observation']['image'].mean((1, 2, 3)) for e in read['train']])
    assert np.abs(shown - 20 * np.arange(10)).max() < 5  # every second frame


def test_videos_with_actions(tmp_path):
    folder = tmp_path / 'theirs'
    foreign.video(folder / 'a.mp4', 6)
    foreign.rows(folder / 'a.csv', [0, 1, 2, 0, 1, 0], [0, 0, 0, 0.5, 1, 0])
    foreign.video(folder / 'b.mp4', 5)
    lines = [{'action': a, 'reward': 0.0} for a in (2, 2, 1, 0)]  # between the frames
    (folder / 'b.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    _, read = converted('video', str(folder), tmp_path / 'ours', {'validation': 0})
    assert read['train'][0]['action'].tolist() == [0, 1, 2, 0, 1, 0]
    assert read['train'][0]['reward'].tolist() == [0, 0, 0, 0.5, 1, 0]
    assert read['train'][1]['action'].tolist() == [2, 2, 1, 0, 0]

    def refuses(sentence, given):
        with pytest.raises(ValueError, match=sentence):
            convert.prepare('video', str(folder), {'source': given})

    refuses('actions between the frames kept', {'fps': 5})
    refuses("did you mean 'size'", {'sice': [8, 8]})
    refuses('two positive numbers', {'size': 64})
    refuses('2 or more', {'frames': 1})
    foreign.video(folder / 'c.mp4', 5)
    refuses("'a.mp4' has a file of rows beside it and 'c.mp4' has none|'b.mp4'.*'c.mp4' has none", {})
    foreign.rows(folder / 'c.csv', [0] * 9, [0] * 9)
    plan, _ = convert.prepare('video', str(folder), {})
    with pytest.raises(ValueError, match=r"c.mp4: 'action' has 9 rows, expected 5 \(the frames\) or 4"):
        convert.convert(str(tmp_path / 'more'), plan, {})


class Trap:
    """What a pickle would run when read."""

    def __reduce__(self):
        return (os.mkdir, ('trapped',))


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'theirs'
    foreign.replay(folder, 2)
    np.savez(folder / '001.npz', image=np.array([Trap()], object), allow_pickle=True)
    source = sources.open_source('npz', str(folder), {})
    with pytest.raises(sources.Unreadable, match=r"001.npz: 'image' holds Python objects"):
        next(source.read('all', 1))
    (folder / '001.npz').write_bytes(pickle.dumps(Trap()))
    with pytest.raises(sources.Unreadable, match=r'001.npz is no whole .npz file'):
        next(source.read('all', 1))
    path = foreign.rlds(tmp_path / 'rlds', lengths=(3, 3))
    features = pathlib.Path(path, 'features.json')
    features.write_text(features.read_text().replace('tensorflow_datasets.core.features.text_feature.', 'antigravity.'))
    with pytest.raises(ValueError, match=r"needs the feature class 'antigravity.Text'"):
        sources.open_source('tfds', path, {})
    assert not (tmp_path / 'trapped').exists()
    assert 'antigravity' not in sys.modules


def test_sources_that_are_none(tmp_path):
    def refuses(sentence, call, *args):
        with pytest.raises(ValueError, match=sentence):
            call(*args)

    refuses('give KIND:PATH', sources.parse, 'somewhere')
    refuses("did you mean 'video'", sources.parse, 'videos:here')
    refuses('There is nothing at', sources.open_source, 'npz', str(tmp_path / 'none'), {})
    refuses(r'There is no .npz file in', sources.open_source, 'npz', str(tmp_path), {})
    refuses('has no dataset_info.json', sources.open_source, 'tfds', str(tmp_path), {})
    path = pathlib.Path(foreign.rlds(tmp_path / 'rlds', form='tfrecord', lengths=(3, 3)))
    refuses(rf"did you mean '{path}'", sources.open_source, 'tfds', str(tmp_path / 'rlds'), {})
    shard = next(p for p in path.iterdir() if 'train' in p.name)
    shard.write_bytes(shard.read_bytes()[:-7])
    refuses('breaks off in the midst of a record', sources.open_source, 'tfds', str(path), {})
