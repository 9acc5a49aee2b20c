"""Several policies side by side, each in lanes of its own."""

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
        return tuple(policy.initial(n) for policy, n in zip(self.policies, self.lanes))

    def __call__(self, params, belief, policy_state, keys_B: jax.Array):
        actions, states, start = [], [], 0
        for policy, state, n in zip(self.policies, policy_state, self.lanes):
            mine = jax.tree.map(lambda x, a=start, b=start + n: x[a:b], (belief, keys_B))
            action, state, _ = policy(params, mine[0], state, mine[1])
            actions.append(action)
            states.append(state)
            start += n
        return jnp.concatenate(actions), tuple(states), {}
