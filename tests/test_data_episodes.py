"""The RLDS form, the tick form, and the way between them."""

import jax
import numpy as np
import pytest

from worldmodels.data import episodes
from worldmodels.types import ActionSpace, Modality, Spec

SPEC = Spec(
    (('image', Modality('image', (2, 2, 3))), ('vector', Modality('vector', (1,)))),
    ActionSpace('discrete', 5, ('a', 'b', 'c', 'd', 'e')),
    ('reward', 'discount', 'lava'),
)


def episode(length: int, number: int = 0, terminal: bool = True) -> dict:
    """Frame t shows (number, t); action, reward and lava of row t are 1 + t (mod 5), 10 + t and 20 + t."""
    t = np.arange(length)
    last = t == length - 1
    return {
        'observation': {
            'image': np.broadcast_to(np.array(number % 256, np.uint8), (length, 2, 2, 3)).copy(),
            'vector': (1000 * number + t[:, None]).astype(np.float32),
        },
        'action': np.where(last, 0, (1 + t) % 5).astype(np.int32),
        'reward': np.where(last, 0, 10 + t).astype(np.float32),
        'discount': np.where(last, 0, 1.0 - (terminal & (t == length - 2))).astype(np.float32),
        'lava': np.where(last, 0, 20 + t).astype(np.float32),
        'is_first': t == 0,
        'is_last': last,
        'is_terminal': last & terminal,
    }


def test_ticks_by_hand():
    ticks = episodes.to_ticks(episode(4), SPEC)
    assert ticks['observation']['vector'][:, 0].tolist() == [0, 1, 2, 3]
    assert ticks['action'].tolist() == [-1, 1, 2, 3]
    assert ticks['outcomes']['reward'].tolist() == [0, 10, 11, 12]
    assert ticks['outcomes']['lava'].tolist() == [0, 20, 21, 22]
    assert ticks['outcomes']['discount'].tolist() == [1, 1, 1, 0]  # 0 comes with the terminal frame
    assert ticks['is_first'].tolist() == [True, False, False, False]
    assert ticks['is_terminal'].tolist() == [False, False, False, True]


def test_time_out_keeps_its_discount():
    ticks = episodes.to_ticks(episode(4, terminal=False), SPEC)
    assert ticks['outcomes']['discount'].tolist() == [1, 1, 1, 1]
    assert ticks['is_last'].tolist() == [False, False, False, True]


def test_continuous_actions_shift_too():
    spec = Spec(SPEC.observation, ActionSpace('continuous', 2))
    rows = episode(3) | {'action': np.array([[0.1, 0.2], [0.3, 0.4], [0, 0]], np.float32)}
    np.testing.assert_array_equal(
        episodes.to_ticks(rows, spec)['action'], np.array([[0, 0], [0.1, 0.2], [0.3, 0.4]], np.float32)
    )


@pytest.mark.parametrize(('start', 'stop'), [(0, 1), (0, 4), (1, 2), (2, 6), (5, 6)])
def test_a_part_is_the_part_of_the_whole(start, stop):
    whole = episodes.to_ticks(episode(6), SPEC)
    part = episodes.to_ticks(episode(6), SPEC, start, stop)
    jax.tree.map(lambda w, p: np.testing.assert_array_equal(w[start:stop], p), whole, part)


def test_written_and_read_again(tmp_path):
    import tensorflow_datasets as tfds

    path = str(tmp_path / 'here' / 'data')
    wanted = {'train': [episode(3, 1), episode(7, 2)], 'validation': [episode(2, 3)]}
    episodes.write(path, SPEC, {split: iter(some) for split, some in wanted.items()}, {'world': 'none'})
    metadata = episodes.read_metadata(path)
    assert metadata['lengths'] == {'train': [3, 7], 'validation': [2]}
    assert metadata['world'] == 'none'
    assert episodes.read_spec(path) == SPEC
    builder = tfds.builder_from_directory(path)
    for split, some in wanted.items():
        source = builder.as_data_source(split=split)
        assert len(source) == len(some)
        for i, expected in enumerate(some):
            jax.tree.map(np.testing.assert_array_equal, source[i], expected)
    assert sorted(p.name for p in (tmp_path / 'here').iterdir()) == ['data']


def test_a_large_split_is_several_files_and_nothing_is_kept_in_memory(tmp_path, monkeypatch):
    """TFDS's own builders end above 1 GB where there is no TensorFlow."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import shuffle

    monkeypatch.setattr(shuffle, 'MAX_MEM_BUFFER_SIZE', 1000)
    monkeypatch.setattr(episodes, 'SHARD_BYTES', 1000)
    some = [episode(3 + i, i) for i in range(12)]
    written = 0

    def watched():
        nonlocal written
        for one in some:
            written = sum(p.stat().st_size > 0 for p in tmp_path.glob('data.building/train-*'))
            yield one

    episodes.write(str(tmp_path / 'data'), SPEC, {'train': watched()}, {})
    assert written >= 2, 'what is full is on disk while others are still to come'
    names = sorted(p.name for p in tmp_path.glob('data/*array_record*'))
    assert len(names) > 2
    assert names[-1] == f'episodes-train.array_record-{len(names) - 1:05}-of-{len(names):05}'
    builder = tfds.builder_from_directory(str(tmp_path / 'data'))
    source = builder.as_data_source(split='train')
    assert len(source) == 12
    for i, expected in enumerate(some):
        jax.tree.map(np.testing.assert_array_equal, source[i], expected)
    assert builder.info.splits['train'].num_bytes > 500 * (len(names) - 1)


def test_a_split_without_episodes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No episodes were given for the split 'validation'"):
        episodes.write(str(tmp_path / 'data'), SPEC, {'train': [episode(3)], 'validation': []}, {})
    assert not (tmp_path / 'data').exists()


def test_nothing_appears_when_writing_fails(tmp_path):
    path = tmp_path / 'data'

    def broken():
        yield episode(3)
        raise RuntimeError('the disk is full')

    with pytest.raises(RuntimeError, match='disk'):
        episodes.write(str(path), SPEC, {'train': broken()}, {})
    assert not path.exists()
    episodes.write(str(path), SPEC, {'train': iter([episode(3)])}, {})
    assert episodes.read_metadata(str(path))['lengths'] == {'train': [3]}


def test_missing_dataset_and_missing_spec(tmp_path):
    with pytest.raises(ValueError, match='There is no dataset'):
        episodes.read_spec(str(tmp_path))
    path = tmp_path / 'data'
    episodes.write(str(path), SPEC, {'train': iter([episode(3)])}, {})
    (path / 'metadata.json').write_text('{"world": "mine"}')
    with pytest.raises(ValueError, match="metadata needs 'spec'"):
        episodes.read_spec(str(path))
