"""Segments of recorded episodes: which frames, in which order, on which process, after which restart."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
from test_data_episodes import SPEC, episode

from worldmodels.data import episodes, pipeline
from worldmodels.types import ActionSpace, Modality, check_ticks

LENGTHS = (5, 2, 9, 4, 7, 3, 6, 8, 2, 11)  # 57 frames


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    path = str(tmp_path_factory.mktemp('data') / 'episodes')
    some = [episode(length, i) for i, length in enumerate(LENGTHS)]
    episodes.write(path, SPEC, {'train': iter(some), 'validation': iter(some[:4])}, {})
    return path


def take(path, steps, *, batch_size=4, length=5, seed=0, **options):
    iterator = pipeline.segments(path, 'train', SPEC, batch_size, length, seed=seed, **options)
    return [next(iterator) for _ in range(steps)]


def frames(batch):
    """(B, T) numbers of frames: 1000 * episode + t."""
    return batch.observation['vector'][..., 0].astype(int)


def test_every_tick_is_the_one_recorded(path):
    known = {}
    for i, length in enumerate(LENGTHS):
        ticks = episodes.to_ticks(episode(length, i), SPEC)
        known |= {1000 * i + t: jax.tree.map(lambda x, t=t: x[t], ticks) for t in range(length)}
    for consecutive in (False, True):
        for batch in take(path, 8, consecutive=consecutive):
            check_ticks(batch, SPEC)
            assert batch.example_B.tolist() == [0, 1, 2, 3]
            for b, row in enumerate(frames(batch)):
                for t, frame in enumerate(row):
                    expected = known[frame]
                    jax.tree.map(
                        lambda x, y, b=b, t=t: np.testing.assert_array_equal(x[b, t], y),
                        {key: getattr(batch, key) for key in expected},
                        expected,
                    )


def test_segments_follow_the_episodes(path):
    for batch in take(path, 8):
        for row, first in zip(frames(batch), batch.is_first):
            for a, b, b_first in zip(row, row[1:], first[1:]):
                assert b_first == (b % 1000 == 0)
                if not b_first:
                    assert b == a + 1
                else:
                    assert a % 1000 == LENGTHS[a // 1000] - 1


def test_an_epoch_shows_no_frame_twice(path):
    # 57 frames hold 11 segments of 5; one is given up for the shifting cut: 10, five batches of two.
    batches = take(path, 10, batch_size=2)
    first, second = (np.concatenate([frames(b) for b in half]).ravel() for half in (batches[:5], batches[5:]))
    assert len(set(first)) == len(set(second)) == 50
    assert first.tolist() != second.tolist()


def test_consecutive_rows_follow_their_stream_through_every_frame(path):
    steps = 30  # 150 frames of each row: more than two epochs
    batches = take(path, steps, consecutive=True)
    assert not batches[0].continues_B.any()
    assert all(batch.continues_B.all() for batch in batches[1:])
    streams = np.concatenate([frames(b) for b in batches], axis=1)
    for stream in streams:
        for a, b in itertools.pairwise(stream):
            assert b == a + 1 or (b % 1000 == 0 and a % 1000 == LENGTHS[a // 1000] - 1)
    # Row 0 starts with an epoch, so its first 57 frames are all frames, and so are the next in another order.
    assert len(set(streams[0, :57])) == len(set(streams[0, 57:114])) == 57
    assert streams[0, :57].tolist() != streams[0, 57:114].tolist()
    # Row 2 goes the same way, half an epoch ahead.
    assert streams[2, :100].tolist() == streams[0, 28:128].tolist()


def test_some_segments_begin_with_nothing_remembered(path):
    whole = take(path, 400, consecutive=True)
    forgetful = take(path, 400, consecutive=True, forget=0.25)
    for batch, plain in zip(forgetful, whole, strict=True):
        np.testing.assert_array_equal(frames(batch), frames(plain))
    continues = np.stack([batch.continues_B for batch in forgetful])
    assert not continues[0].any()
    assert abs((~continues[1:]).mean() - 0.25) < 0.04
    assert (continues[1:].mean(0) < 1).all(), 'every row forgets at times'
    shares = [take(path, 9, consecutive=True, forget=0.25, process_index=i, process_count=2) for i in range(2)]
    joined = np.stack([np.concatenate([a.continues_B, b.continues_B]) for a, b in zip(*shares, strict=True)])
    np.testing.assert_array_equal(joined, continues[:9])


@pytest.mark.parametrize('consecutive', [False, True])
def test_processes_share_the_rows(path, consecutive):
    whole = take(path, 6, consecutive=consecutive)
    shares = [take(path, 6, consecutive=consecutive, process_index=i, process_count=2) for i in range(2)]
    for batch, *parts in zip(whole, *shares):
        jax.tree.map(lambda w, *p: np.testing.assert_array_equal(w, np.concatenate(p)), batch, *parts)


@pytest.mark.parametrize('consecutive', [False, True])
def test_state_restores_exactly(path, consecutive):
    iterator = pipeline.segments(path, 'train', SPEC, 4, 5, seed=1, consecutive=consecutive)
    for _ in range(7):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = [next(iterator) for _ in range(5)]
    other = pipeline.segments(path, 'train', SPEC, 4, 5, seed=1, consecutive=consecutive)
    next(other)
    other.set_state(state)
    for batch in expected:
        jax.tree.map(np.testing.assert_array_equal, batch, next(other))


def test_seed_and_shuffle(path):
    a, b, c = (frames(take(path, 1, seed=seed)[0]).tolist() for seed in (0, 0, 1))
    assert a == b != c
    plain = frames(take(path, 1, batch_size=2, length=5, shuffle=False)[0])
    assert plain.ravel().tolist() == [0, 1, 2, 3, 4, 1000, 1001, 2000, 2001, 2002]


def test_little_memory_reads_the_same(path):
    poor = pipeline.Episodes(path, 'train', SPEC, cache_bytes=500)
    rich = pipeline.Episodes(path, 'train', SPEC)
    for i in (0, 3, 0, 9, 3):
        jax.tree.map(np.testing.assert_array_equal, poor[i], rich[i])
    assert poor._held <= 500


def test_refusals(path):
    def refuses(sentence, call, *args, **options):
        with pytest.raises(ValueError, match=sentence):
            call(*args, **options)

    refuses('has no split .test., only train, validation', pipeline.segments, path, 'test', SPEC, 4, 5, seed=0)
    refuses('cannot be shared by 3', pipeline.segments, path, 'train', SPEC, 4, 5, seed=0, process_count=3)
    refuses('do not fit into the 57', pipeline.segments, path, 'train', SPEC, 4, 58, seed=0)
    other = dataclasses.replace(SPEC, action=ActionSpace('discrete', 7))
    refuses('of another world', pipeline.segments, path, 'train', other, 4, 5, seed=0)


@pytest.mark.parametrize(
    ('name', 'modality', 'sentence'),
    [
        ('picture', Modality('image', (2, 2, 3)), "no 'observation/picture', only"),
        ('image', Modality('image', (3, 2, 3)), r'spec says uint8 \(None, 3, 2, 3\)'),
        ('image', Modality('vector', (2, 2, 3)), 'spec says float32'),
    ],
)
def test_data_that_is_not_what_its_spec_says(tmp_path, name, modality, sentence):
    path = tmp_path / 'data'
    episodes.write(str(path), SPEC, {'train': iter([episode(9)])}, {})
    claimed = dataclasses.replace(SPEC, observation=((name, modality), SPEC.observation[1]))
    (path / 'metadata.json').write_text(json.dumps({'spec': claimed.to_json()}))
    with pytest.raises(ValueError, match=sentence):
        pipeline.segments(str(path), 'train', None, 1, 3, seed=0)


def test_lengths_are_counted_where_nobody_wrote_them_down(tmp_path):
    path = tmp_path / 'data'
    episodes.write(str(path), SPEC, {'train': iter([episode(9), episode(4)])}, {})
    (path / 'metadata.json').write_text(json.dumps({'spec': SPEC.to_json()}))
    assert pipeline.Episodes(str(path), 'train').lengths.tolist() == [9, 4]


def test_long_segments_go_on_where_short_ones_end(path):
    alternating = {'long_length': 8, 'long_every': 3, 'consecutive': True, 'length': 2}
    batches = take(path, 12, **alternating)
    assert [b.is_first.shape[1] for b in batches] == 4 * [2, 2, 8]
    whole = take(path, 24, consecutive=True, length=2)  # as many frames
    joined = lambda batches: np.concatenate([frames(b) for b in batches], 1)
    np.testing.assert_array_equal(joined(batches), joined(whole))
    assert [b.continues_B.all() for b in batches] == [False] + 11 * [True]


@pytest.mark.parametrize('consecutive', [True, False])
def test_the_state_of_both_lengths_restores_exactly(path, consecutive):
    make = lambda: pipeline.segments(
        path, 'train', SPEC, 4, 2, seed=0, consecutive=consecutive, long_length=8, long_every=3
    )
    iterator = make()
    for _ in range(4):
        next(iterator)
    state, again = iterator.get_state(), make()
    again.set_state(state)
    for _ in range(6):
        jax.tree.map(np.testing.assert_array_equal, next(iterator), next(again))
