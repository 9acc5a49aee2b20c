"""Drift, on distances worked out by hand and on windows that lie within their episodes."""

from __future__ import annotations

import json

import models
import numpy as np
import pytest
from ml_collections import ConfigDict
from models import SPEC

from worldmodels.build import init_variables
from worldmodels.evaluation import drift, starts
from worldmodels.evaluation.drift import summary, wrong_cells
from worldmodels.evaluation.examine import Trained
from worldmodels.types import ActionSpace, Modality, Spec


def test_wrong_cells_are_counted_exactly_on_grids_and_with_leniency_on_pictures():
    spec = Spec(
        (('grid', Modality('grid', (2, 3, 2), (4, 4))), ('image', Modality('image', (4, 8, 3)))),
        ActionSpace('discrete', 2),
    )
    true = {'grid': np.zeros((1, 2, 2, 3, 2), np.uint8), 'image': np.full((1, 2, 4, 8, 3), 100, np.uint8)}
    dreamed = {k: x.copy() for k, x in true.items()}
    dreamed['grid'][0, 0, 1, 2] = 1  # one cell, both channels
    dreamed['image'][0, 0, 0, 0] += 8  # forgiven
    dreamed['image'][0, 1, :, 4:, 1] += 9  # the right one of two tiles
    dreamed['grid'][0, 1, :, 0, 1] = 3
    np.testing.assert_array_equal(wrong_cells(spec, dreamed, true, 4), [[1, 3]])
    with pytest.raises(ValueError, match='shows vectors only'):
        wrong_cells(Spec((('v', Modality('vector', (3,))),), ActionSpace('discrete', 2)), {}, {}, 4)


def test_what_a_report_says_of_distances():
    """0.02 cells more every tick, in the mean of two trajectories that are apart by 2 in the end."""
    k = np.arange(1, 201)
    away_BH = np.stack([0.015 * k, 0.025 * k])
    columns = summary(away_BH, np.full((2, 200), 5.0), 1.0)
    assert columns['wrong_10'] == pytest.approx(0.2)
    assert columns['wrong_200'] == pytest.approx(4)
    assert columns['wrong_200_sd'] == pytest.approx(1)
    assert columns['copy_wrong_200'] == 5
    assert columns['slope'] == pytest.approx(2)
    assert columns['horizon_at_threshold'] == 51  # at 50 the mean is the threshold, which is not beyond it
    assert summary(away_BH[:, :20], away_BH[:, :20], 1.0)['horizon_at_threshold'] == 'beyond 20'


class Episodes:
    spec = SPEC
    lengths = (12, 5, 9)

    def __getitem__(self, i):
        n = self.lengths[i]
        return {
            'observation': {'image': np.full((n, 16, 16, 3), i, np.uint8)},
            'action': np.arange(n, dtype=np.int32) % 5,
            'reward': np.zeros(n, np.float32),
            'discount': np.ones(n, np.float32),
            'is_first': np.arange(n) == 0,
            'is_last': np.arange(n) == n - 1,
            'is_terminal': np.zeros(n, bool),
        }


def test_whole_windows_lie_within_their_episode():
    windows, episode_B = starts.draw(Episodes(), 6, 2, 6, 0, whole=True)
    assert sorted(episode_B) == [0, 0, 0, 0, 2, 2]  # 12 - 8 + 1 places, and 9 - 8 + 1
    assert not windows.is_last[:, :-1].any()
    assert not windows.is_first[:, 1:].any()
    with pytest.raises(ValueError, match='offer 7 windows of 8 ticks, not 8'):
        starts.draw(Episodes(), 8, 2, 6, 0, whole=True)


def test_a_model_is_dreamed_on_whole_windows_and_its_report_can_be_written(monkeypatch):
    """In a world where nothing happens copying never drifts; dials reach the dream."""
    monkeypatch.setattr(drift.pipeline, 'Episodes', lambda *_: Episodes())
    config = models.config('tokens', 'autoregressive', 'none', 'frame', ('transition',), 'departure')
    m = models.model('tokens', 'autoregressive', 'none', 'frame', ('transition',), 'departure')
    about = ConfigDict({'model': config, 'data': {'path': 'somewhere'}})
    trained = Trained('tiny', m, init_variables(m, 0), about, 7)
    report = drift.run(trained, count=5, context=2, horizon=4, dials={'temperature': '0'})
    assert json.loads(json.dumps(report)) == report
    assert report['mean_copy'] == report['sd_copy'] == [0.0] * 4
    assert report['setup']['dials'] == {'temperature': 0.0}
    assert set(report['columns']) >= {
        'wrong_1',
        'wrong_4',
        'wrong_4_sd',
        'copy_wrong_4',
        'horizon_at_threshold',
        'slope',
    }
    assert report['columns']['wrong_4'] == report['mean_model'][-1] <= 4  # cells of 8 pixels
    with pytest.raises(ValueError, match="did you mean 'temperature'"):
        drift.run(trained, count=5, context=2, horizon=4, dials={'temprature': '0'})
