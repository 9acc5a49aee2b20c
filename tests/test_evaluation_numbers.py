"""Intervals and outcome scores by hand arithmetic."""

import math

import numpy as np
import pytest

from worldmodels.evaluation import intervals, outcomes, speeds, starts
from worldmodels.types import ActionSpace, Modality, Spec


def test_wilson_by_hand():
    # p = 0.5, n = 4, z^2 = 3.8415: centre 0.5, half = 1.96 / 1.96036 * sqrt(0.0625 + 3.8415 / 64) = 0.35002.
    low, high = intervals.wilson(0.5, 4)
    assert (low, high) == (pytest.approx(0.14999, abs=1e-4), pytest.approx(0.85001, abs=1e-4))
    low, high = intervals.wilson(1.0, 200)
    assert high == 1
    assert low == pytest.approx(1 / (1 + 3.8415 / 200), abs=1e-4)
    assert all(math.isnan(x) for x in intervals.wilson(0.0, 0))


def test_ratio_is_of_sums_and_certainty_is_never_claimed():
    num = np.array([[1.0, 3.0, 0.0], [2.0, 3.0, 0.0]])
    den = np.array([[1.0, 3.0, 0.0], [4.0, 3.0, 0.0]])
    e = intervals.ratio(num, den)
    assert e.value_H[0] == pytest.approx(3 / 5)  # not the mean of 1 and 1/2
    assert e.value_H[1] == 1
    assert (e.low_H[1], e.high_H[1]) == pytest.approx(intervals.wilson(1, 2))
    assert np.isnan(e.value_H[2])
    assert e.starts_H.tolist() == [2, 2, 0]
    assert e.to_json()['value'] == [0.6, 1.0, None]


def test_bootstrap_agrees_with_the_normal_interval_of_a_mean():
    x = np.random.default_rng(0).normal(3, 2, (400, 1))
    e = intervals.ratio(x, np.ones_like(x), share=False)
    half = 1.96 * x.std() / np.sqrt(400)
    assert e.low_H[0] == pytest.approx(x.mean() - half, abs=0.05)
    assert e.high_H[0] == pytest.approx(x.mean() + half, abs=0.05)


def test_starts_of_one_episode_count_as_one():
    x = np.repeat(np.random.default_rng(0).integers(0, 2, (30, 1)).astype(float), 10, axis=0)
    free, grouped = (intervals.ratio(x, np.ones_like(x), g) for g in (None, np.repeat(np.arange(30), 10)))
    assert grouped.value_H == free.value_H
    wider = (grouped.high_H - grouped.low_H) / (free.high_H - free.low_H)
    assert wider[0] == pytest.approx(np.sqrt(10), rel=0.15)
    assert grouped.starts_H[0] == 30


def test_difference_on_the_same_starts_cancels_what_they_share():
    luck = np.random.default_rng(0).normal(0, 5, (100, 1))
    one = np.ones_like(luck)
    e = intervals.difference((luck + 0.2, one), (luck, one))
    assert (e.value_H[0], e.low_H[0], e.high_H[0]) == pytest.approx((0.2, 0.2, 0.2))


def test_decreasing_map_swaps_the_bounds():
    e = intervals.mapped(intervals.Estimate(*(np.array([x]) for x in (2.0, 1.0, 3.0, 5))), lambda x: -x)
    assert (e.value_H[0], e.low_H[0], e.high_H[0]) == (-2, -3, -1)


def test_reward_events_by_hand():
    true = np.array([[0, 1.0, 0, 0], [0, 0, -1.0, 1.0]])
    valid = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], bool)  # the last reward comes after an ending
    dreamed = np.array([
        [[0.1, 0.9, 0, 0], [0, 0, 0.8, 1.0]],  # a hit; a wrong sign
        [[0.7, 0.2, 0, 0], [0, 0, -0.6, 0.0]],  # one tick early; a hit
    ])  # fmt: skip
    assert outcomes.reward_threshold(true, valid) == 0.5
    counts = outcomes.reward_events(true, dreamed, valid, 0.5)
    assert counts.true_B.tolist() == [2, 2]  # one event a start, two seeds
    assert counts.foretold_B.tolist() == [2, 2]
    assert counts.hits_B.tolist() == [1, 1]
    summary = outcomes.summary(counts, seeds=2)
    assert (summary['true'], summary['hits']) == (2, 1)
    assert summary['precision']['value'] == summary['recall']['value'] == [0.5]


def test_termination_and_silence():
    ended = np.array([[0, 0, 1]], bool)
    valid = np.ones((1, 3), bool)
    early, right, silent = ([[[1, 0.4, 1]]], [[[1, 0.9, 0.1]]], [[[1, 1, 1]]])
    hits = [outcomes.termination_events(ended, np.array(x), valid).hits_B[0] for x in (early, right, silent)]
    assert hits == [0, 1, 0]
    quiet = outcomes.summary(outcomes.termination_events(ended, np.array(silent), valid), 1)
    assert quiet['recall']['value'] == [0.0]
    assert quiet['precision']['value'] == [None]


def test_absolute_error_beside_that_of_silence():
    true, valid = np.array([[0.0, 1.0, 5.0]]), np.array([[1, 1, 0]], bool)
    dreamed = np.array([[[0.2, 0.6, 9.0]], [[0.0, 1.0, 0.0]]])
    assert outcomes.absolute_error(true, dreamed, valid) == (pytest.approx(0.15), pytest.approx(0.5))


def test_speed_leaves_the_first_call_out():
    calls, ticks = [], iter([0.0, 2.0, 10.0, 13.0])
    spent = speeds.seconds(lambda: calls.append(1), repeats=2, clock=lambda: next(ticks))
    assert spent.tolist() == [2, 3]
    assert len(calls) == 3


class FakeEpisodes:
    """Frame t of episode e shows 100 e + t; every episode ends with a reward."""

    lengths = (9, 4, 12)
    spec = Spec((('x', Modality('vector', (1,))),), ActionSpace('discrete', 2))

    def __getitem__(self, e):
        n = self.lengths[e]
        last = np.arange(n) == n - 1
        reward = (np.arange(n) == n - 2).astype(np.float32)
        return {
            'observation': {'x': (100 * e + np.arange(n, dtype=np.float32))[:, None]},
            'action': np.ones(n, np.int32),
            'reward': reward,
            'discount': np.where(reward, 0, 1).astype(np.float32),
            'is_first': np.arange(n) == 0,
            'is_last': last,
            'is_terminal': last,
        }


def test_starts_reach_into_endings_and_know_their_episode():
    ticks, episode_B = starts.draw(FakeEpisodes(), 13, context=4, horizon=5, seed=0)
    assert sorted(episode_B[:2]) == [0, 2]  # each once before any twice; the episode of 4 frames has no place
    assert sorted(episode_B) == [0] * 5 + [2] * 8
    x = ticks.observation['x'][..., 0]
    assert x.shape == (13, 9)
    assert len({row[0] for row in x}) == 13
    for row, e, last in zip(x, episode_B, ticks.is_last):
        assert row[0] // 100 == row[-1] // 100 == e
        assert row[3] < 100 * e + FakeEpisodes.lengths[e] - 1  # the context never holds the ending
        inside = int(last.argmax()) + 1 if last.any() else 9
        assert (np.diff(row[:inside]) == 1).all()
        assert (np.diff(row[inside - 1 :]) == 0).all()
    assert {int(row.argmax()) for row in ticks.is_last} > {4, 5, 6}  # endings at many horizons
    with pytest.raises(ValueError, match='offer 13 places to dream from after 4 ticks of context, not 14'):
        starts.draw(FakeEpisodes(), 14, context=4, horizon=5, seed=0)
