r"""Random actions that are held: walks reach further than with actions drawn anew at every step.

$$a_t = a_{t-1} \text{ with probability } \rho, \text{ else } a_t \sim \mathcal U$$

After the sticky actions of Machado et al. (2018, arXiv 1709.06009), where it is the world that holds them.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from worldmodels import rng
from worldmodels.control.random import uniform
from worldmodels.types import ActionSpace, select


@dataclasses.dataclass(frozen=True)
class Sticky:
    """With probability `repeat` the last action again, else any."""

    action: ActionSpace
    repeat: float = 0.7

    def initial(self, batch: int) -> dict:
        return {'action': jnp.asarray(self.action.null((batch,))), 'any': jnp.zeros((batch,), bool)}

    def __call__(self, params, belief, policy_state, keys_B: jax.Array):
        keep_keys, draw_keys = rng.split(keys_B, 2)
        keep_B = rng.draw(lambda key: jax.random.bernoulli(key, self.repeat), keep_keys) & policy_state['any']
        action = select(keep_B, policy_state['action'], uniform(self.action, draw_keys))
        return action, {'action': action, 'any': jnp.ones_like(keep_B)}, {}
