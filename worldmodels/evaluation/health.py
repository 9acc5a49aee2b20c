r"""Signatures of failure along a dream: does what a memory carries and shows stay what it was while it watched?

$$\mathrm{norm}_k = \sqrt{\operatorname{mean} h_{T+k}^2}, \qquad
\mathrm{rank}_k = \frac{(\mathrm{tr}\,C_k)^2}{\mathrm{tr}\,C_k^2}$$

with $C_k$ the covariance of the contexts of some dreams, each from a start of its own under random actions, k ticks after the
last frame that was seen, T. They are those watched in training (`training/signatures.py`; Bai et al., 2025, arXiv 2510.20668),
with the same limits: a state that grows or contexts that become alike do so first where no frame corrects them.
"""

from __future__ import annotations

import math
from typing import Any

import jax

from worldmodels import rollout
from worldmodels.control.random import uniform
from worldmodels.evaluation import dreams
from worldmodels.training import signatures
from worldmodels.types import Belief, PyTree, Ticks
from worldmodels.world_model import WorldModel

TICKS = 64  # dreamed
ROWS = 16  # dreams


def along(
    model: WorldModel,
    variables: PyTree,
    windows: Ticks,
    context: int,
    limits: dict[str, float],
    *,
    ticks: int = TICKS,
    rows: int = ROWS,
    **dials: Any,
) -> dict[str, Any]:
    """Signatures at every tick of some dreams.

    Args:
      model, variables: the world model; windows: `context` ticks of each are watched, of the first `rows`.
      limits: by name, those of `config.watch`.
      ticks: dreamed, one at a time, so that their number costs no compiling.
      **dials: sampling options of the transition.

    Returns:
      {'dreams', 'ticks', 'values': {name: [at 0, 1, ..., ticks]}, 'crossed': {name: {'tick', 'value', 'limit', 'text'}}}, the
      values empty where a memory carries and shows nothing, and None what is no number.
    """
    seen = jax.tree.map(lambda x: x[:rows], dreams.cut(windows, 0, context))
    keys_BT = dreams.keys_for(seen, 0, context + ticks)
    belief, _ = rollout.observe(model, variables, seen, keys_BT[:, :context])
    actions = uniform(model.actions, dreams.keys_for(seen, 0, ticks, 'random actions'))

    @jax.jit
    def look(belief: Belief) -> dict[str, jax.Array]:
        found = signatures.finish(signatures.sums(belief.context_BMD[:, None], belief, model.memory.use(belief.h)))
        return {name.removeprefix(signatures.PREFIX): total / count for name, (total, count) in found.items()}

    found = [look(belief)]
    for t in range(ticks if found[0] else 0):
        now = slice(context + t, context + t + 1)
        belief, _ = rollout.imagine(model, variables, belief, keys_BT[:, now], action=actions[:, t : t + 1], **dials)
        found.append(look(belief))
    values = {name: [float(x[name]) for x in jax.device_get(found)] for name in found[0]}
    crossed = {name: c for name, told in values.items() if name in limits and (c := _crossed(name, told, limits[name]))}
    values = {name: [_number(x) for x in told] for name, told in values.items()}
    return {'dreams': int(seen.is_first.shape[0]), 'ticks': ticks, 'values': values, 'crossed': crossed}


def _number(x: float) -> float | None:
    """As it may stand in JSON."""
    return x if math.isfinite(x) else None


def _crossed(name: str, values: list[float], limit: float) -> dict[str, Any] | None:
    """Where a signature first leaves its range; what is no number has left it."""
    inside = [x >= limit if name in signatures.LOW else x <= limit for x in values]
    if all(inside):
        return None
    tick = inside.index(False)
    said = str(signatures.Crossing(name, values[tick], limit, True))
    return {'tick': tick, 'value': _number(values[tick]), 'limit': limit, 'text': said}
