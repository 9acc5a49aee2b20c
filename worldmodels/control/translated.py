r"""Playing a world learned from silence: real actions, translated into those the model found in frames.

$$u = \arg\max_u\; p(a \mid u)\,p(u \mid o)$$

p(a | u) is counted over a few hundred steps whose actions are known; p(u | o), what is ever done in such a frame, the model
learned from all the others. So "forward" is the code of moving where there is room, and that of standing still before a
wall. The labelled steps play the part of LAPO's (Schmidt and Jiang, 2023, arXiv 2312.10812) decoder of latent actions.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.types import ActionSpace, Array

FILE = 'action_map.json'
"""Where a workdir keeps its map."""
UNSEEN = 0.1
"""What stands in the count of a pair that was never seen."""


@dataclasses.dataclass(frozen=True)
class ActionMap:
    """How often each real action (rows) stood with each latent one (columns), and what the real ones are."""

    space: ActionSpace
    counts: tuple[tuple[int, ...], ...]

    @property
    def log_likelihood(self) -> np.ndarray:
        """log p(a | u), float32 (real, latent)."""
        counts = np.asarray(self.counts, np.float64) + UNSEEN
        return np.log(counts / counts.sum(0)).astype(np.float32)

    def save(self, workdir: str) -> Path:
        path = Path(workdir) / FILE
        told = {'action': dataclasses.asdict(self.space), 'counts': [list(row) for row in self.counts]}
        path.write_text(json.dumps(told, indent=1) + '\n')
        return path

    @classmethod
    def load(cls, workdir: str) -> ActionMap | None:
        """The map a workdir keeps, None where it keeps none. Raises ValueError for a file that is no map."""
        path = Path(workdir) / FILE
        if not path.exists():
            return None
        try:
            told = json.loads(path.read_text())
            space = ActionSpace.from_json(told['action'])
            counts = np.asarray(told['counts'])
            if counts.ndim != 2 or counts.shape[0] != space.size or counts.dtype.kind != 'i' or (counts < 0).any():
                raise ValueError(f'counts of the shape {counts.shape}')
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f'{path} is damaged ({error}): delete it, and fit the map again.') from error
        return cls(space, tuple(tuple(row) for row in counts.tolist()))


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Plays recorded raw actions (B, T, ...), its params, tick by tick; the last one over and over after the end."""

    def initial(self, batch: int) -> jax.Array:
        """How many were played, (B,)."""
        return jnp.zeros(batch, jnp.int32)

    def __call__(self, params: Array, belief: Any, policy_state: jax.Array, keys_B: jax.Array):
        rows = jnp.arange(policy_state.shape[0])
        at_B = jnp.minimum(policy_state, params.shape[1] - 1)
        return jnp.asarray(params)[rows, at_B], policy_state + 1, {}


@dataclasses.dataclass(frozen=True)
class Translated:
    """A policy of real actions as one of the model's latent ones, for `rollout.imagine`.

    Its params are {'variables': the world model's, 'map': ActionMap.log_likelihood, 'policy': the other policy's}; extras are
    the real actions, {'action': (B,)}, and what the other policy gives.

    model       WorldModel with latent actions
    policy      of discrete real actions
    """

    model: Any
    policy: Any = Recorded()

    def initial(self, batch: int) -> Any:
        return self.policy.initial(batch)

    def __call__(self, params: dict[str, Any], belief: Any, policy_state: Any, keys_B: jax.Array):
        action, policy_state, extras = self.policy(params['policy'], belief, policy_state, keys_B)

        def likely(m: Any) -> jax.Array:
            return m.action.prior(m.render(belief))

        prior_BK = self.model.apply(params['variables'], method=likely)
        score_BK = jnp.asarray(params['map'])[action] + prior_BK
        # A real action of -1 is the null action, and so is its translation.
        code_B = jnp.where(action < 0, -1, jnp.argmax(score_BK, -1)).astype(jnp.int32)
        return code_B, policy_state, {'action': action, **extras}
