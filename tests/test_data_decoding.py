"""Records become the arrays that TFDS makes of them, or are left to it; what is read stays within its memory."""

import concurrent.futures
import contextlib
import gc
import json
import tracemalloc

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_episodes import SPEC, episode

from worldmodels.data import decoding, episodes, pipeline
from worldmodels.evaluation import reading
from worldmodels.types import ActionSpace, Modality, Spec


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


def builder(path):
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(str(path))


@pytest.mark.parametrize('continuous', [False, True])
def test_arrays_are_those_of_tfds(tmp_path, continuous):
    spec, some = SPEC, [episode(length, i) for i, length in enumerate((2, 9, 300))]
    if continuous:
        spec = Spec((*SPEC.observation, ('cells', Modality('grid', (2, 2, 1), (5,)))), ActionSpace('continuous', 2))
        random = np.random.default_rng(0)
        for e in some:
            rows = len(e['is_first'])
            del e['lava']
            e['observation']['cells'] = random.integers(0, 5, (rows, 2, 2, 1)).astype(np.uint8)
            e['action'] = random.normal(size=(rows, 2)).astype(np.float32)
    else:
        some[2]['action'] = np.arange(-150, 150, dtype=np.int32) * 7_000_000  # several bytes each, and negative
    episodes.write(str(tmp_path / 'data'), spec, {'train': iter(some)}, {})
    ours = decoding.Records(builder(tmp_path / 'data'), 'train', spec)
    assert ours._bytes is not None
    theirs = builder(tmp_path / 'data').as_data_source(split='train')
    for i, expected in enumerate(some):
        same(ours[i], theirs[i])
        same(ours[i], expected)


def test_what_was_written_otherwise_is_left_to_tfds(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    original = episodes.features
    slow = tfds.features.Tensor(shape=(None, 2, 2, 3), dtype=np.uint8)  # lists of numbers instead of bytes

    def other(spec):
        described = original(spec)
        described['observation']._feature_dict['image'] = slow
        return described

    monkeypatch.setattr(episodes, 'features', other)
    episodes.write(str(tmp_path / 'data'), SPEC, {'train': iter([episode(5, 3)])}, {})
    monkeypatch.undo()
    source = pipeline.Episodes(str(tmp_path / 'data'), 'train')
    assert source._source._bytes is None
    same(source[0], episode(5, 3))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30))
def test_varints(numbers):
    encoded = bytearray()
    for number in numbers:
        left = number % 2**64
        while left >= 128:
            encoded.append(left % 128 + 128)
            left //= 128
        encoded.append(left)
    assert decoding.varints(np.frombuffer(bytes(encoded), np.uint8)).tolist() == numbers


@pytest.fixture(scope='module')
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp('data') / 'episodes'
    episodes.write(str(path), SPEC, {'train': iter([episode(4)])}, {})
    records = decoding.Records(builder(path), 'train', SPEC)
    return bytes(records._bytes[0]), records._fields


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_records_raise_no_other_error(record, data):
    """Cut short or with bytes changed, a record gives arrays or one of two errors, which readers tell of."""
    whole, fields = record
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(KeyError, ValueError):  # of which UnicodeDecodeError is one
        decoding.decode(bytes(damaged), fields)


def test_memory_stays_within_its_budget_under_threads(tmp_path):
    spec = Spec((('image', Modality('image', (64, 64, 3))),), ActionSpace('discrete', 5))
    each, count, threads = 40 * 64 * 64 * 3, 24, 4  # half a megabyte

    def some():
        for i in range(count):
            e = episode(40, i)
            del e['lava']
            yield {**e, 'observation': {'image': np.full((40, 64, 64, 3), i, np.uint8)}}

    episodes.write(str(tmp_path / 'data'), spec, {'train': some()}, {})
    budget = 4 * each + each // 2
    source = pipeline.Episodes(str(tmp_path / 'data'), 'train', cache_bytes=budget)
    order = np.random.default_rng(0).integers(0, count, 2000).tolist()
    source[0]
    held = []

    def read(thread):
        for i in order[thread::threads]:
            assert source[i]['observation']['image'][-1, 0, 0, 0] == i
            held.append(source._held)

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            # A task a thread: two thousand waiting tasks would be most of what is measured beside the records.
            list(pool.map(read, range(threads)))
        after, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max(held) <= budget
    assert source._held == sum(pipeline._nbytes(e) for e in source._cache.values())
    assert after - before <= budget
    # While they read, each thread holds a record, and the reader may hold it a second time.
    assert most - before <= budget + 2 * threads * each


def test_segments_hold_no_more_the_longer_they_run(tmp_path):
    some = [episode(30, i) for i in range(20)]
    episodes.write(str(tmp_path / 'data'), SPEC, {'train': iter(some)}, {})
    iterator = pipeline.segments(str(tmp_path / 'data'), 'train', SPEC, 4, 8, seed=0, cache_bytes=3000)
    held = []
    tracemalloc.start()
    try:
        for step in range(600):  # 32 epochs
            next(iterator)
            if step % 100 == 99:
                gc.collect()  # which empties the interpreter's lists of free objects too
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(held[1:]) <= held[0] + 50_000, held


def test_reading_is_compared_with_tfds(tmp_path):
    episodes.write(str(tmp_path / 'data'), SPEC, {'train': iter([episode(3 + i, i) for i in range(6)])}, {})
    figures = reading.measure(str(tmp_path / 'data'), 2, 4, seconds=0.01)
    for name in ('tfds', 'uncached', 'cached'):
        assert figures[f'{name}_frames_per_s'] == pytest.approx(4 * figures[f'{name}_segments_per_s'])
    assert all(figures[name] > 0 for name in ('uncached_share', 'cached_share', 'cached_cpu_share'))
    json.dumps(figures)
    with pytest.raises(ValueError, match='There is no dataset'):
        reading.measure(str(tmp_path / 'none'), 2, 4)
