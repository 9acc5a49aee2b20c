r"""Several policies side by side, each in lanes of its own.

$$n_i \approx B w_i / \textstyle\sum_j w_j$$

lanes for policy i, rounded by the method of largest remainders (Hamilton, 1792).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Policy i acts in the next `lanes[i]` rows of the batch, so the weights are shares of frames, not of episodes."""

    policies: tuple[Any, ...]
    lanes: tuple[int, ...]

    @classmethod
    def weighted(cls, policies: tuple, weights: tuple[float, ...], batch: int) -> Mixture:
        """Lanes in proportion to the weights, by largest remainder. Raises ValueError where a policy would get none."""
        exact = [batch * weight / sum(weights) for weight in weights]
        lanes = [int(share) for share in exact]
        for i in sorted(range(len(lanes)), key=lambda i: lanes[i] - exact[i])[: batch - sum(lanes)]:
            lanes[i] += 1
        if 0 in lanes:
            raise ValueError(
                f'{batch} lanes are too few for policy weights {weights}: every policy needs one; add lanes.'
            )
        return cls(tuple(policies), tuple(lanes))

    def initial(self, batch: int) -> tuple:
        assert batch == sum(self.lanes), (batch, self.lanes)
        # Each keeps a row for every lane, used or not: callers reset policy states by row, and expect (B, ...).
        return tuple(policy.initial(batch) for policy in self.policies)

    def __call__(self, params, belief, policy_state, keys_B: jax.Array):
        actions, states, start = [], [], 0
        for policy, state, n in zip(self.policies, policy_state, self.lanes):
            lanes = slice(start, start + n)
            belief_here, state_here, keys_here = jax.tree.map(lambda x, s=lanes: x[s], (belief, state, keys_B))
            action, state_here, _ = policy(params, belief_here, state_here, keys_here)
            actions.append(action)
            states.append(jax.tree.map(lambda x, new, s=lanes: x.at[s].set(new), state, state_here))
            start += n
        return jnp.concatenate(actions), tuple(states), {}
