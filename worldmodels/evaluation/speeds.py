"""How fast a world dreams and watches on this machine.

Compiling is left out: every function runs once before the clock starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from worldmodels import rollout
from worldmodels.evaluation.dreams import cut, keys_for
from worldmodels.evaluation.frames import align
from worldmodels.types import PyTree, Ticks
from worldmodels.world_model import WorldModel


def seconds(
    function: Callable[[], Any], repeats: int = 3, clock: Callable[[], float] = time.perf_counter
) -> np.ndarray:
    """Seconds (repeats,) of each call until its arrays are ready, after one call that is not counted."""
    jax.block_until_ready(function())
    spent = []
    for _ in range(repeats):
        start = clock()
        jax.block_until_ready(function())
        spent.append(clock() - start)
    return np.asarray(spent)


def speeds(
    model: WorldModel, variables: PyTree, ticks: Ticks, context: int, horizon: int, **dials: Any
) -> dict[str, float]:
    """Medians for a batch of windows and for one alone: frames per second, and milliseconds of one dreamed frame at
    batch 1.
    """
    batch = ticks.is_first.shape[0]

    def ready(rows: int, ahead: int):
        part = jax.tree.map(lambda x: jax.numpy.asarray(x[:rows]), ticks)
        keys_BT = keys_for(part, 0, context + ahead)
        seen, action = cut(part, 0, context), align(part.action, context, ahead)[1]

        def watch():
            return rollout.observe(model, variables, seen, keys_BT[:, :context])[0]

        belief = watch()

        def dream():
            return rollout.imagine(model, variables, belief, keys_BT[:, context:], action=action, **dials)[1]

        return watch, dream

    watch, dream = ready(batch, horizon)
    _, single = ready(1, 1)
    return {
        'batch': batch,
        'dreamed_frames_per_second': float(batch * horizon / np.median(seconds(dream))),
        'watched_frames_per_second': float(batch * context / np.median(seconds(watch))),
        'single_frame_ms': float(1e3 * np.median(seconds(single, repeats=20))),
    }
