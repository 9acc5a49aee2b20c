r"""Does the dream pay and end when the world does?

$$\mathrm{precision} = \mathrm{hits} / \mathrm{foretold}, \qquad \mathrm{recall} = \mathrm{hits} / \mathrm{true}$$

(van Rijsbergen, 1979), of events.

A reward is an event: rare, and mostly zero, so an accuracy over all ticks would praise silence. An event is foretold
when the mean of the reward head passes half of the typical size of a true one, and it counts as a hit when its sign
is right and it falls on the very tick. A termination is foretold when the discount head's mean is below one half.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from worldmodels.evaluation.intervals import ratio
from worldmodels.types import Array


@dataclasses.dataclass(frozen=True)
class Events:
    """Counts (B,) of one start's judged ticks, over all seeds."""

    true_B: np.ndarray
    foretold_B: np.ndarray
    hits_B: np.ndarray


def reward_threshold(reward_BH: Array, valid_BH: Array) -> float:
    """Half of the median size of the true rewards that are not zero; 0.5 where there are none."""
    sizes = np.abs(np.asarray(reward_BH)[np.asarray(valid_BH) & (np.asarray(reward_BH) != 0)])
    return 0.5 * float(np.median(sizes)) if sizes.size else 0.5


def reward_events(true_BH: Array, dreamed_SBH: Array, valid_BH: Array, threshold: float) -> Events:
    true_BH, dreamed_SBH, valid_BH = np.asarray(true_BH), np.asarray(dreamed_SBH), np.asarray(valid_BH)
    return events(np.sign(true_BH), np.sign(dreamed_SBH) * (np.abs(dreamed_SBH) > threshold), valid_BH)


def termination_events(is_terminal_BH: Array, discount_SBH: Array, valid_BH: Array) -> Events:
    return events(np.asarray(is_terminal_BH), np.asarray(discount_SBH) < 0.5, valid_BH)


def events(true_BH: Array, foretold_SBH: Array, valid_BH: Array) -> Events:
    """Both arrays hold 0 for no event; anything else names its kind, and a hit has the right kind at the right tick."""
    true_BH = np.asarray(true_BH, np.int32) * np.asarray(valid_BH)
    foretold_SBH = np.asarray(foretold_SBH, np.int32) * np.asarray(valid_BH)
    hits_SBH = (true_BH != 0) & (foretold_SBH == true_BH)
    seeds = foretold_SBH.shape[0]
    return Events((true_BH != 0).sum(1) * seeds, (foretold_SBH != 0).sum((0, 2)), hits_SBH.sum((0, 2)))


def summary(counts: Events, seeds: int, group_B: Array | None = None) -> dict:
    """{'true', 'foretold', 'hits': per dream, averaged over seeds; 'precision', 'recall': estimates of one entry}."""
    column = {f.name: getattr(counts, f.name)[:, None] for f in dataclasses.fields(counts)}
    return {
        'true': float(counts.true_B.sum() / seeds),
        'foretold': float(counts.foretold_B.sum() / seeds),
        'hits': float(counts.hits_B.sum() / seeds),
        'precision': ratio(column['hits_B'], column['foretold_B'], group_B).to_json(),
        'recall': ratio(column['hits_B'], column['true_B'], group_B).to_json(),
    }


def absolute_error(true_BH: Array, dreamed_SBH: Array, valid_BH: Array) -> tuple[float, float]:
    """Mean absolute error over judged ticks, and that of always saying zero, to read it against."""
    valid_BH = np.asarray(valid_BH)
    count = max(valid_BH.sum(), 1)
    error_BH = np.abs(np.asarray(dreamed_SBH) - np.asarray(true_BH)).mean(0)
    return float(error_BH[valid_BH].sum() / count), float(np.abs(np.asarray(true_BH))[valid_BH].sum() / count)
