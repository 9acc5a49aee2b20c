"""Adjusted mutual information against published values, and against counting."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from worldmodels.evaluation.agreement import adjusted_mutual_information, contingency


def ami(a, u):
    return adjusted_mutual_information(contingency(a, u, max(a) + 1, max(u) + 1))


def test_known_values():
    # The example that scikit-learn took from Vinh, Epps and Bailey's own program.
    a = [0] * 6 + [1] * 6 + [2] * 5
    u = [0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 2, 0, 2, 2, 2, 1, 1]
    assert ami(a, u) == pytest.approx(0.27821, abs=1e-5)
    assert ami(a, a) == pytest.approx(1)
    assert ami(a, [2 - x for x in a]) == pytest.approx(1)
    assert ami([0, 0, 0, 0], [0, 1, 2, 3]) == pytest.approx(0, abs=1e-12)
    assert ami([0, 0], [1, 1]) == 1


def test_chance_agrees_on_nothing():
    random = np.random.default_rng(0)
    scores = [ami(random.integers(0, 7, 60).tolist(), random.integers(0, 5, 60).tolist()) for _ in range(40)]
    assert abs(np.mean(scores)) < 0.02


def test_what_chance_explains_is_the_mean_over_all_orders():
    a, u = [0, 0, 0, 1, 1, 2], [0, 1, 1, 0, 0, 0]
    # Every order of u: (I - E[I]) is zero on average, so the scores are.
    scores = [ami(a, list(order)) for order in set(itertools.permutations(u))]
    assert np.mean(scores) == pytest.approx(0, abs=1e-9)


def test_two_codes_for_one_action_cost():
    a = np.repeat([0, 1], 50)
    u = np.concatenate([np.arange(50) % 2, np.full(50, 2)])
    assert 0.6 < ami(a.tolist(), u.tolist()) < 0.85
