r"""How sure a number is: 95 percent intervals over independent starts.

$$\mathrm{score} = \frac{\sum_b n_b}{\sum_b d_b}$$

and its interval what lies between the 2.5th and 97.5th percentile when starts b are drawn again with replacement (the
bootstrap, Efron, 1979), or Wilson's (1927) where all agree.

Frames of one dream share its fate, and so do several seeds from one start, so the unit that is resampled is the start
(or the episode, where starts share one), never the frame. A score is a ratio of sums, sum(num) / sum(den): a mean
where den counts frames, a share of cells where it counts cells.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from worldmodels.types import Array

Z = 1.959963984540054  # two-sided 95 percent of the normal distribution
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Arrays (H,), one entry per horizon; NaN where nothing could be counted.

    `starts_H`: groups that had anything to count.
    """

    value_H: np.ndarray
    low_H: np.ndarray
    high_H: np.ndarray
    starts_H: np.ndarray

    def to_json(self) -> dict:
        names = {'value': self.value_H, 'low': self.low_H, 'high': self.high_H}
        return {k: [_rounded(x) for x in v] for k, v in names.items()} | {'starts': self.starts_H.tolist()}


def _rounded(x: float) -> float | None:
    return round(float(x), 6) if math.isfinite(x) else None


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share seen in n independent trials.

    Never leaves [0, 1], never has zero width.
    """
    if n == 0:
        return math.nan, math.nan
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def ratio(num_BH: Array, den_BH: Array, group_B: Array | None = None, *, share: bool = True, seed: int = 0) -> Estimate:
    """sum(num) / sum(den) per horizon with a percentile bootstrap over groups (default: every row its own).

    With `share` the score lies in [0, 1], and where every group agrees, so that the bootstrap would claim certainty,
    the interval is Wilson's on the number of groups.
    """
    num_GH, den_GH = _grouped(num_BH, group_B), _grouped(den_BH, group_B)
    value_H, draws_RH = _divide(num_GH.sum(0), den_GH.sum(0)), _resampled(num_GH, den_GH, seed)
    low_H, high_H = _percentiles(draws_RH)
    starts_H = (den_GH > 0).sum(0)
    if share:
        for h in np.flatnonzero((low_H == high_H) & (starts_H > 0)):
            low_H[h], high_H[h] = wilson(float(np.clip(value_H[h], 0, 1)), int(starts_H[h]))
    return Estimate(value_H, low_H, high_H, starts_H)


def difference(
    ours: tuple[Array, Array],
    theirs: tuple[Array, Array],
    group_B=None,
    *,
    seed: int = 0,
    score: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Estimate:
    """ratio(ours) - ratio(theirs) on the same starts: both are resampled together, so what they share cancels.

    `score` turns each ratio into what is compared, decibels for example; default: the ratio itself.
    """
    score = score or (lambda ratio: ratio)
    a, b = ([_grouped(x, group_B) for x in pair] for pair in (ours, theirs))
    value_H = score(_divide(a[0].sum(0), a[1].sum(0))) - score(_divide(b[0].sum(0), b[1].sum(0)))
    low_H, high_H = _percentiles(score(_resampled(*a, seed)) - score(_resampled(*b, seed)))
    return Estimate(value_H, low_H, high_H, ((a[1] > 0) & (b[1] > 0)).sum(0))


def mapped(estimate: Estimate, decreasing) -> Estimate:
    """The estimate of decreasing(x), a function that falls as x grows: its bounds change places."""
    return Estimate(
        decreasing(estimate.value_H), decreasing(estimate.high_H), decreasing(estimate.low_H), estimate.starts_H
    )


def _grouped(x_BH: Array, group_B: Array | None) -> np.ndarray:
    x_BH = np.asarray(x_BH, np.float64)
    if group_B is None:
        return x_BH
    _, row_B = np.unique(np.asarray(group_B), return_inverse=True)
    out = np.zeros((row_B.max() + 1, x_BH.shape[1]))
    np.add.at(out, row_B, x_BH)
    return out


def _resampled(num_GH: np.ndarray, den_GH: np.ndarray, seed: int) -> np.ndarray:
    groups = num_GH.shape[0]
    times_RG = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)
    return _divide(times_RG @ num_GH, times_RG @ den_GH)


def _divide(num: np.ndarray, den: np.ndarray) -> np.ndarray:
    return np.divide(num, den, out=np.full(np.shape(num), np.nan), where=np.asarray(den) > 0)


def _percentiles(draws_RH: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out_2H = np.full((2, draws_RH.shape[1]), np.nan)
    for h in range(draws_RH.shape[1]):
        drawn = draws_RH[:, h][~np.isnan(draws_RH[:, h])]
        if drawn.size:
            out_2H[:, h] = np.percentile(drawn, [2.5, 97.5])
    return out_2H[0], out_2H[1]
