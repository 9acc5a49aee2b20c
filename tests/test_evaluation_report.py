"""Judging and reporting with fake dreamers: the truth scores best, one tick off is punished, the page is complete."""

import json
import re

import jax
import numpy as np
import pytest

from worldmodels.evaluation import dreams, films, judge, report
from worldmodels.evaluation.settings import Settings
from worldmodels.types import ActionSpace, Modality, Spec, Ticks

B, T, CONTEXT, HORIZON = 6, 9, 3, 5
SPEC = Spec(
    (('rgb', Modality('image', (16, 24, 3))), ('grid', Modality('grid', (2, 3, 2), (9, 4)))), ActionSpace('discrete', 3)
)


def walk() -> Ticks:
    """A white tile walks over the six cells of a 2 x 3 board; row 0 is paid and ends at tick 6."""
    rgb, grid = np.zeros((B, T, 16, 24, 3), np.uint8), np.zeros((B, T, 2, 3, 2), np.uint8)
    for b in range(B):
        for t in range(T):
            i, j = divmod((b + t) % 6, 3)
            rgb[b, t, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8] = 200
            grid[b, t, i, j] = (5, 1)
    zeros = np.zeros((B, T), np.float32)
    reward, ended = zeros.copy(), np.zeros((B, T), bool)
    reward[0, 6], ended[0, 6] = 1, True
    return Ticks(
        observation={'rgb': rgb, 'grid': grid},
        action=np.zeros((B, T), np.int32),
        outcomes={'reward': reward, 'discount': 1 - ended.astype(np.float32)},
        is_first=np.zeros((B, T), bool),
        is_last=ended,
        is_terminal=ended,
        continues_B=np.zeros(B, bool),
        example_B=np.arange(B, dtype=np.int32),
    )


def oracle(shift: int = 0, noise: int = 0, foretell: bool = True) -> dreams.Dreamer:
    """The truth, `shift` ticks late, with pixel noise."""

    def dream(ticks: Ticks, seed: int) -> dreams.Dreamed:
        start = CONTEXT - shift
        seen = {k: x[:, start : start + HORIZON] for k, x in ticks.observation.items()}
        rgb = seen['rgb'].astype(int) + np.random.default_rng(seed).integers(-noise, noise + 1, seen['rgb'].shape)
        seen['rgb'] = np.clip(rgb, 0, 255).astype(np.uint8)
        said = {k: x[:, start : start + HORIZON] for k, x in ticks.outcomes.items()} if foretell else {}
        return dreams.Dreamed(seen, said, seen['grid'].reshape(*seen['grid'].shape[:2], -1))

    return dream


def read(observation):
    grid = observation['grid']
    return grid.reshape(*grid.shape[:2], -1)


@pytest.fixture(scope='module')
def question() -> judge.Question:
    return judge.Question(SPEC, CONTEXT, HORIZON, 8, judge.tile_dictionaries(lambda: [walk().observation], SPEC, 8))


def at(verdict: judge.Verdict, modality: str, metric: str) -> list[float]:
    return [round(float(x), 4) for x in verdict.estimate(modality, metric).value_H]


def test_the_truth_is_perfect_and_one_tick_late_is_not(question):
    perfect = judge.judge(oracle(), walk(), question, batch=4, read=read)
    late = judge.judge(oracle(shift=1), walk(), question, batch=4, read=read)
    for modality in ('rgb', 'grid'):
        assert at(perfect, modality, 'exact') == at(perfect, modality, 'changed') == [1.0] * HORIZON
        assert at(late, modality, 'exact') == at(late, modality, 'changed') == [0.0] * HORIZON
        assert at(late, modality, 'cells') == [round(4 / 6, 4)] * HORIZON  # where it is and where it was are wrong
    assert at(perfect, 'rgb', 'psnr') == [100.0] * HORIZON
    assert at(perfect, 'rgb', 'ssim') == [1.0] * HORIZON
    assert max(at(late, 'rgb', 'ssim')) < 0.9
    assert at(perfect, 'tokens', 'tokens') == [1.0] * HORIZON
    assert max(at(late, 'tokens', 'tokens')) < 1


def test_changed_pixels_are_those_of_the_cells_that_moved(question):
    perfect, late, noisy = (
        judge.judge(oracle(**options), walk(), question, batch=4) for options in ({}, {'shift': 1}, {'noise': 20})
    )
    assert at(perfect, 'rgb', 'changed_pixels') == [1.0] * HORIZON
    assert at(perfect, 'rgb', 'changed_psnr') == [100.0] * HORIZON
    assert at(late, 'rgb', 'changed_pixels') == [0.0] * HORIZON
    # Late by a tick, each changed pixel is wrong by 200 levels: 10 log10(255^2 / 200^2) dB.
    assert at(late, 'rgb', 'changed_psnr') == pytest.approx([2.1102] * HORIZON, abs=1e-3)
    assert 0 < at(noisy, 'rgb', 'changed_pixels')[0] < 1
    gain = noisy.above(late, 'rgb', 'changed_psnr')
    assert gain.value_H == pytest.approx(np.subtract(at(noisy, 'rgb', 'changed_psnr'), 2.1102), abs=1e-3)
    assert (gain.low_H > 0).all()
    assert 'changed_psnr' not in perfect.sums['grid']


def test_a_world_without_tiles_is_told_by_its_changed_pixels(question):
    untiled = judge.Question(SPEC, CONTEXT, HORIZON, 8, {'rgb': None})
    subjects = [
        report.Subject('noisy', 'model', judge.judge(oracle(noise=20), walk(), untiled, batch=4)),
        report.Subject('copy', 'copy', judge.judge(dreams.copy_last(CONTEXT, HORIZON), walk(), untiled, batch=4)),
    ]
    results = report.numbers(subjects, walk(), untiled, 1)
    assert 'comes closer to the pixels that change than copying the last frame at every horizon' in report.sentence(
        results
    )
    assert [h['label'] for h in report.headlines(results)] == [
        'PSNR of changed pixels, one tick ahead',
        'PSNR of changed pixels, 5 ticks ahead',
    ]


def test_copying_the_last_frame_never_gets_a_changed_cell_right_at_first(question):
    copy = judge.judge(dreams.copy_last(CONTEXT, HORIZON), walk(), question)
    assert at(copy, 'rgb', 'changed')[0] == 0
    assert at(copy, 'rgb', 'exact') == [0.0] * HORIZON
    assert copy.sums['rgb']['exact'][1].sum(0).tolist() == [6, 6, 6, 6, 5]  # row 0 ends at horizon 4


def test_snapping_forgives_noise_that_strict_scores_do_not(question):
    noisy = judge.judge(oracle(noise=20), walk(), question, seeds=(0, 1))
    assert at(noisy, 'rgb', 'exact') == [1.0] * HORIZON
    assert at(noisy, 'rgb', 'strict_exact') == [0.0] * HORIZON
    assert 10 < at(noisy, 'rgb', 'psnr')[0] < 40


def test_batches_do_not_change_scores(question):
    whole, split = (judge.judge(oracle(noise=9), walk(), question, batch=n) for n in (B, 4))
    assert whole.sums['rgb']['exact'][0].shape == split.sums['rgb']['exact'][0].shape == (B, HORIZON)
    assert [count for _, count in dreams.batches(walk(), 4)] == [4, 2]
    for rows, _ in dreams.batches(walk(), 4):
        assert rows.is_first.shape == (4, T)


def test_keys_follow_the_row_and_the_seed(question):
    del question
    keys = dreams.keys_for(walk(), 3, T)
    turned = jax.tree.map(lambda x: x[::-1], walk())
    data = jax.random.key_data
    assert np.array_equal(data(dreams.keys_for(turned, 3, T)), data(keys)[::-1])
    assert not np.array_equal(data(dreams.keys_for(walk(), 4, T)), data(keys))


def test_a_batch_keeps_to_its_budget():
    frame = 4 * (16 * 24 * 3 + 2 * 3 * 2)
    assert dreams.batch_size(SPEC, 100, 10, budget=frame * 10 * dreams.COPIES * 5) == 5
    assert dreams.batch_size(SPEC, 7, 10, budget=frame * 10 * dreams.COPIES * 5) == 4  # 4 + 3, not 5 + 2
    assert dreams.batch_size(SPEC, 7, 10, budget=1) == 1
    assert dreams.batch_size(SPEC, 3, 10) == 3
    assert dreams.batch_size(SPEC, 200, 10, budget=2**40) == 50


def test_films_show_the_first_starts_and_the_worst(question):
    def one_bad(ticks: Ticks, seed: int) -> dreams.Dreamed:
        good, bad = oracle()(ticks, seed), oracle(shift=1)(ticks, seed)
        chosen = np.asarray(ticks.example_B) == 4
        return jax.tree.map(lambda g, w: np.where(chosen.reshape(-1, *[1] * (g.ndim - 1)), w, g), good, bad)

    verdict = judge.judge(one_bad, walk(), question, batch=2, show=3)
    assert [f.start for f in verdict.films] == [0, 1, 4]
    assert verdict.films[0].judged_H.tolist() == [True] * 4 + [False]
    assert verdict.films[2].wrong['rgb'][0, 0].sum() == 2


@pytest.fixture(scope='module')
def written(question, tmp_path_factory):
    shown = judge.judge(oracle(noise=20), walk(), question, seeds=(0, 1), read=read, show=4)
    speed = {
        'batch': 6,
        'dreamed_frames_per_second': 1234.5,
        'watched_frames_per_second': 99.0,
        'single_frame_ms': 7.25,
    }
    subjects = [
        report.Subject('fake <one>', 'model', shown, speed),
        report.Subject('copy', 'copy', judge.judge(dreams.copy_last(CONTEXT, HORIZON), walk(), question)),
        report.Subject('late', 'baseline', judge.judge(oracle(shift=1), walk(), question)),
    ]
    results = report.numbers(subjects, walk(), question, seeds=2)
    results['coverage'] = {'rgb': 1.0}
    grown = {'tick': 2, 'value': 16.0, 'limit': 10.0, 'text': 'state_norm is 16, above 10: the state grows'}
    values = {'state_norm': [1.5, 2.5, None], 'state_bytes': [8.0] * 3}
    results['signatures'] = {'dreams': 3, 'ticks': 2, 'values': values, 'crossed': {'state_norm': grown}}
    about = {
        'title': 'A fake world',
        'command': 'python launch/evaluate.py --workdir=x',
        'facts': {'dataset': 'none'},
        'hardware': 'a test',
        'versions': {'python': '3'},
        'seconds': {'data': 0.1},
        'config': {'seed': 0},
    }
    out = tmp_path_factory.mktemp('report')
    page = report.write(out, results, shown, question, about)
    return page.read_text(), json.loads((out / 'report.json').read_text())


def test_report_holds_its_numbers(written):
    page, record = written
    assert [card['value'] for card in record['headlines']] == ['100.0%', '100.0%', '100.0%', '1,234']
    for card in record['headlines']:
        assert card['value'] in page
        assert card['detail'] in page
    assert 'every horizon from 1 to 5; at 5 of them' in record['sentence']
    assert record['sentence'] in page
    model, copy, late = record['worlds']
    assert model['scores']['rgb']['exact']['value'] == [1.0] * HORIZON
    assert late['above_copy']['rgb']['exact']['value'][0] == 0
    assert 'above_copy' not in copy
    assert model['outcomes']['reward']['recall']['value'] == [1.0]
    assert late['outcomes']['termination']['recall']['value'] == [0.0]
    assert record['setup']['judged_per_horizon'] == [6, 6, 6, 6, 5]
    assert 'fake &lt;one&gt;' in page
    assert '2 ticks into the dream state_norm is 16, above 10: the state grows.' in page
    assert '<td>state_norm</td><td>1.5</td><td>2.5</td></tr>' in page


def test_report_asks_the_network_for_nothing(written):
    page, _ = written
    assert not re.search(r'https?://|src="(?!data:)|@import|<script|<link|url\((?!#)', page)
    assert page.count('data:image/webp;base64,') == 8
    assert page.count('<svg') >= 9
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert '#0102' not in page
    assert len(page) < 4e6


def test_a_poster_shows_what_happened_above_one_dream(question):
    shown = judge.judge(oracle(noise=20), walk(), question, seeds=(0, 1), read=read, show=4)
    poster = report._poster(shown, question)
    horizons = len(report.some_horizons(max(int(film.judged_H.sum()) for film in shown.films)))
    height, width = 6 * 16, 6 * 24
    assert poster.shape == (2 * height + films.GAP, horizons * (width + films.GAP) - films.GAP, 4)
    opaque = poster[..., 3] == 255
    assert opaque[:height, :width].all()
    assert opaque[height + films.GAP :, :width].all()
    assert not opaque[height : height + films.GAP].any()


def test_pictures_stay_within_their_budget():
    noise = np.random.default_rng(0).integers(0, 256, (12, 140, 210, 4)).astype(np.uint8)
    noise[..., 3] = 255
    assert len(films.data_uri(list(noise), [100] * 12)) < 1.5 * films.BYTES_OF_A_PICTURE
    grid = films.picture(np.random.default_rng(0).integers(0, 9, (2, 4, 5, 3)), Modality('grid', (4, 5, 3), (9, 9, 9)))
    assert grid.shape == (2, 4 * films.GRID_PIXELS, 5 * films.GRID_PIXELS, 3)


def test_settings_refuse_what_they_do_not_know():
    assert Settings.of({'starts': 5, 'dials': {'steps': 4}}, horizon=3, seeds=None).horizon == 3
    with pytest.raises(ValueError, match='did you mean horizon'):
        Settings.of({'horizn': 3})
    with pytest.raises(ValueError, match=r'evaluate\.starts must be a whole number of at least 1, got 0'):
        Settings.of({}, starts=0)
