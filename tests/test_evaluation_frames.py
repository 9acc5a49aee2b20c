"""Frame scores by hand arithmetic, and the guards against being one frame off."""

import numpy as np
import pytest

from worldmodels.evaluation import frames, tiles
from worldmodels.types import Modality


def test_psnr_by_hand():
    true = np.full((1, 16, 16, 3), 100, np.uint8)
    dreamed = true + 10  # squared error 100 everywhere: 10 log10(65025 / 100) = 28.1308 dB
    assert frames.psnr(frames.squared_error(dreamed, true))[0] == pytest.approx(28.1308, abs=1e-4)
    one = true.copy()
    one[0, 0, 0, 0] = 105  # 25 / 768 in the mean: 10 log10(65025 * 768 / 25)
    assert frames.psnr(frames.squared_error(one, true))[0] == pytest.approx(10 * np.log10(65025 * 768 / 25), abs=1e-4)
    assert frames.psnr(frames.squared_error(true, true))[0] == frames.CEILING
    black, white = np.zeros_like(true), np.full_like(true, 255)
    assert frames.psnr(frames.squared_error(black, white))[0] == pytest.approx(0, abs=1e-4)


def test_ssim_of_flat_images_is_the_luminance_term():
    # No variance: the second factor is c2 / c2, so SSIM = (2 * 100 * 50 + c1) / (100^2 + 50^2 + c1), c1 = 2.55^2.
    a, b = np.full((12, 12, 1), 100, np.uint8), np.full((12, 12, 1), 50, np.uint8)
    assert float(frames.ssim(a, b)) == pytest.approx((10000 + 6.5025) / (12500 + 6.5025), abs=2e-4)


def test_ssim_identities_and_the_window_by_loops():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 256, (2, 13, 12, 3), dtype=np.uint8)
    assert float(frames.ssim(a, a)) == pytest.approx(1, abs=1e-5)
    assert float(frames.ssim(a, b)) == pytest.approx(float(frames.ssim(b, a)), abs=1e-6)
    assert float(frames.ssim(a, 255 - a)) < 0

    g = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(g, g) / np.outer(g, g).sum()
    found = []
    for c in range(3):
        for i in range(3):
            for j in range(2):
                x, y = (z[i : i + 11, j : j + 11, c].astype(np.float64) for z in (a, b))
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                cov = (window * (x - mx) * (y - my)).sum()
                c1, c2 = 2.55**2, 7.65**2
                found.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert float(frames.ssim(a, b)) == pytest.approx(np.mean(found), abs=1e-5)


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match='at least 11 x 11'):
        frames.ssim(np.zeros((8, 16, 3)), np.zeros((8, 16, 3)))


def test_align_puts_horizon_one_right_after_the_context():
    x_BT = np.arange(10)[None]
    previous, true = frames.align(x_BT, context=4, horizon=3)
    assert true.tolist() == [[4, 5, 6]]
    assert previous.tolist() == [[3, 4, 5]]
    with pytest.raises(ValueError, match='10 ticks cannot give 8'):
        frames.align(x_BT, 8, 3)
    with pytest.raises(ValueError, match='at least 1'):
        frames.align(x_BT, 0, 3)


def test_nothing_is_judged_after_an_ending():
    first, last = np.zeros((4, 7), bool), np.zeros((4, 7), bool)
    last[1, 4] = True  # the last frame itself is judged, what follows it is not
    first[2, 5] = True  # an opening is another episode
    last[3, 2] = True  # ended with the context
    first[0, 1] = True  # an opening inside the context harms nothing
    valid = frames.judged(first, last, context=3, horizon=4)
    assert valid.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_cells_by_hand():
    frame = np.arange(4 * 6).reshape(4, 6, 1)
    cut = np.asarray(frames.cells(frame, 2))
    assert cut.shape == (2, 3, 4)
    assert cut[0, 1].tolist() == [2, 3, 8, 9]
    assert cut[1, 2].tolist() == [16, 17, 22, 23]
    other = frame.copy()
    other[3, 5, 0] += 3
    right = np.asarray(frames.cells_right(cut, frames.cells(other, 2)))
    assert right.tolist() == [[True, True, True], [True, True, False]]
    assert np.asarray(frames.cells_right(cut, frames.cells(other, 2), tolerance=3)).all()
    assert np.asarray(frames.cells_changed(cut, frames.cells(other, 2))).sum() == 1
    with pytest.raises(ValueError, match='no whole number of cells'):
        frames.check_tile(Modality('image', (60, 64, 3)), 8)


def test_unsigned_levels_do_not_wrap():
    a, b = np.zeros((1, 1, 4), np.uint8), np.full((1, 1, 4), 250, np.uint8)
    assert not np.asarray(frames.cells_right(a, b, tolerance=8)).any()


def test_snapping_finds_the_nearest_training_tile_and_keeps_near_twins_apart():
    base = np.random.default_rng(1).integers(0, 256, (6, 192)).astype(np.uint8)
    twin = base[0].copy()
    twin[7] ^= 1  # one level off
    table = np.concatenate([base, twin[None]])
    assert np.array_equal(np.asarray(tiles.snap(table, table)), table)
    noisy = np.clip(base[2:].astype(int) + np.random.default_rng(2).integers(-9, 10, base[2:].shape), 0, 255)
    assert np.array_equal(np.asarray(tiles.snap(noisy.astype(np.uint8), table)), base[2:])


def test_dictionary_counts_unique_tiles_and_gives_up_on_pictures_without_tiles():
    frame = np.zeros((2, 16, 16, 3), np.uint8)
    frame[1, :8, :8] = 9
    table = tiles.dictionary([frame], 8)
    assert table.shape == (2, 192)
    assert table[0].max() == 0  # the commonest comes first
    noise = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    assert tiles.dictionary([noise], 8, limit=10) is None
    assert tiles.coverage(frame, 8, table[:1]) == pytest.approx(7 / 8)
