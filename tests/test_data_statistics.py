"""What the page on a dataset says: counted by hand, in bounded memory, and self-contained."""

import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_episodes import SPEC, episode

from worldmodels.data import episodes, statistics
from worldmodels.evaluation import dataset
from worldmodels.types import ActionSpace, Spec

LENGTHS = (5, 2, 9, 4)


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    path = str(tmp_path_factory.mktemp('data') / 'episodes')
    some = [episode(length, i, terminal=i % 2 == 0) for i, length in enumerate(LENGTHS)]
    episodes.write(path, SPEC, {'train': iter(some), 'validation': iter(some[:1])}, {'world': 'made/up'})
    return path


NUMBERS = st.floats(-1e30, 1e30).map(lambda x: x if abs(x) > 1e-30 else 0.0)


@settings(max_examples=200)
@given(st.lists(st.lists(NUMBERS, max_size=5), max_size=6))
def test_a_histogram_counts_every_number_in_its_bin(batches):
    histogram = statistics.Histogram(8)
    for batch in batches:
        histogram.add(np.array(batch))
    every = np.array([x for batch in batches for x in batch])
    found = histogram.to_json()
    assert found['number'] == sum(found['counts']) == len(every)
    if len(every):
        assert (found['least'], found['most'], found['zeros']) == (every.min(), every.max(), (every == 0).sum())
        edges = np.array(found['edges'])
        assert len(found['counts']) <= 8
        expected = [((every >= a) & (every < b)).sum() for a, b in itertools.pairwise(edges)]
        assert found['counts'] == expected


def test_numbers_by_hand(path):
    done = []
    numbers, films = statistics.gather(path, progress=lambda *pair: done.append(pair))
    train = numbers['splits']['train']
    assert (train['episodes'], train['frames'], train['terminal']) == (4, 20, 2)
    assert (train['lengths']['mean'], train['lengths']['least'], train['lengths']['most']) == (5, 2, 9)
    # Rows 0 .. L-2 hold the actions 1 + t (mod 5) and the rewards 10 + t; the last row stands for nothing.
    taken = np.concatenate([(1 + np.arange(length - 1)) % 5 for length in LENGTHS])
    assert train['actions'] == np.bincount(taken, minlength=5).tolist()
    returns = [sum(10 + t for t in range(length - 1)) for length in LENGTHS]
    assert train['returns']['mean'] == np.mean(returns)
    assert train['outcomes']['reward']['number'] == 16
    assert (train['outcomes']['lava']['least'], train['outcomes']['lava']['most']) == (20, 27)
    assert train['outcomes']['discount']['zeros'] == 2
    assert train['vectors']['vector']['most'] == 3003
    assert numbers['splits']['validation']['episodes'] == 1
    assert numbers['bytes'] > 0
    assert done[-1] == (5, 5)
    assert [(f.episode, f.length, f.at) for f in films][:2] == [(0, 5, (0, 1, 2, 3, 4)), (1, 2, (0, 1))]
    assert films[2].at == (0, 1, 2, 3, 5, 6, 7, 8)
    some, films = statistics.gather(path, most=2, films=1)
    assert some['splits']['train']['episodes_read'] == 2
    assert some['splits']['train']['frames'] == 20
    assert [f.episode for f in films] == [0]


def test_the_page_asks_the_network_for_nothing(path, tmp_path):
    numbers, films = statistics.gather(path)
    page = dataset.write(tmp_path / 'page.html', numbers, films, 'Experience <of> mine', 'python launch/dataset.py')
    text = page.read_text()
    assert text.count('<svg') == text.count('</svg>') == 2 * 7
    assert text.count('data:image/webp') == 4
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert 'Experience &lt;of&gt; mine' in text
    for name in ('made/up', '0 a', '4 e', 'lava', 'validation', '2 × 2 × 3'):
        assert name in text, name
    assert json.loads((tmp_path / 'page.json').read_text()) == json.loads(json.dumps(numbers))
    assert dataset.table(numbers).row_count == 2


def test_continuous_actions_and_many_discrete_ones(tmp_path):
    spec = Spec(SPEC.observation, ActionSpace('continuous', 2, low=-2.0, high=2.0), SPEC.outcomes)
    moves = np.stack([np.linspace(-2, 2, 6), np.zeros(6)], -1).astype(np.float32)
    episodes.write(str(tmp_path / 'data'), spec, {'train': iter([{**episode(6), 'action': moves}])}, {})
    numbers, _ = statistics.gather(str(tmp_path / 'data'))
    first, second = numbers['splits']['train']['actions']
    assert (first['least'], first['number'], second['zeros']) == (-2, 5, 5)
    assert {'Action 0', 'Action 1'} <= {f['title'] for f in dataset.draw('train', numbers['splits']['train'], spec)}
    names, counts = dataset.actions(ActionSpace('discrete', 100), list(range(100)))
    assert names == [*map(str, range(76, 100)), '76 others']
    assert counts == [*range(76, 100), sum(range(76))]


def test_what_is_no_dataset_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match='There is no dataset'):
        statistics.gather(str(tmp_path))
