"""Curves of runs: every metric of every run, and what is not there is said."""

import json

import pytest
from PIL import Image

from worldmodels.evaluation import curves


def run(folder, **metrics):
    folder.mkdir()
    rows = [dict(zip(metrics, values)) for values in zip(*metrics.values())]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps({'step': i, **r}) + '\n' for i, r in enumerate(rows)))
    (folder / 'times.jsonl').write_text('{"step": 0, "rss_mb": 100.0}\n{"step": 1, "rss_mb": 101.0}\n{"step": 2, "rs')
    return curves.read(str(folder))


def test_every_metric_of_every_run_is_read_and_drawn(tmp_path):
    a = run(tmp_path / 'a', loss=[3.0, 'nan', 1.0], accuracy=[0.1, 0.2, 0.3])
    b = run(tmp_path / 'b', loss=[2.0])
    assert a['loss'][0] == [0, 1, 2]
    assert (a['loss'][1][0], a['loss'][1][2]) == (3.0, 1.0)
    assert a['loss'][1][1] != a['loss'][1][1]  # a gap
    assert a['rss_mb'] == ([0, 1], [100.0, 101.0])  # the line being written is left out
    assert curves.draw({'a': a, 'b': b}, tmp_path / 'all.png') == ['loss', 'accuracy', 'rss_mb']
    assert Image.open(tmp_path / 'all.png').width > 1500
    assert curves.draw({'b': b}, tmp_path / 'one.png', ['rss_mb']) == ['rss_mb']
    with pytest.raises(ValueError, match="No run has the metric 'speed'; they have loss, rss_mb"):
        curves.draw({'b': b}, tmp_path / 'none.png', ['speed'])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match='holds no metrics'):
        curves.read(str(tmp_path))
