r"""Planning in the dream: of many random futures, begin the one that pays most.

$$\arg\max_{a_{0:T}} \sum_t \hat r_t \prod_{k \lt t} \gamma\,\hat\gamma_k$$

Model-predictive control by random shooting (Nagabandi et al., 2018, arXiv 1708.02596; compared with refined searches in
PETS, Chua et al., 2018, arXiv 1805.12114): nothing is learned beside the world model, and every tick plans anew.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from worldmodels import rng
from worldmodels.control.random import uniform
from worldmodels.types import Belief, PyTree


@dataclasses.dataclass(frozen=True)
class Planner:
    """Dreams `candidates` uniformly random action sequences of `horizon` ticks, and takes the best one's first action.

    `params` are the world model's variables {'params', 'constants'}. In a world (`belief` is an `interaction.Moment`)
    the policy_state is the model's own belief of what was seen so far, ticked here, anew where an episode opens. In a
    dream (`belief` is a `types.Belief`) the plan starts from that belief, and the policy_state is left alone.

    Each candidate is dreamed once: where the world is random, the luckiest dream is chosen among the good ones.
    Ties are broken at random. Extras: `planned_return`, float32 (B,), what the chosen sequence is expected to pay.

    model       WorldModel
    discount    of a reward one tick later, on top of the discount the model expects
    dials       sampling options of the transition, as ((name, value), ...)
    Raises ValueError unless there is at least one tick and one candidate.
    """

    model: Any
    horizon: int = 12
    candidates: int = 64
    discount: float = 0.99
    dials: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self):
        for name in ('horizon', 'candidates'):
            if getattr(self, name) < 1:
                raise ValueError(f'A plan with {name}={getattr(self, name)} is none: give at least 1.')

    def initial(self, batch: int) -> Belief:
        # Beliefs before anything was seen are constants of the model's shape: no variables are needed.
        return self.model.initial(batch)

    def __call__(self, params: PyTree, belief: Any, policy_state: PyTree, keys_B: jax.Array):
        see_B, plan_B = rng.split(keys_B, 2)
        if isinstance(belief, Belief):
            here = belief
        else:
            moment, action_BA = belief, self.model.actions.vector(belief.action)
            here, _ = self.model.apply(
                params, policy_state, action_BA, see_B, moment.observation, moment.is_first, method='tick'
            )
            policy_state = here
        action, return_B = self.plan(params, here, plan_B)
        return action, policy_state, {'planned_return': return_B}

    def plan(self, variables: PyTree, belief: Belief, keys_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The raw action (B, ...) to take in a belief, and the return (B,) the sequence it begins is expected to have."""
        B = keys_B.shape[0]
        # One row per candidate, those of an example side by side.
        belief = jax.tree.map(lambda x: jnp.repeat(x, self.candidates, 0), belief)
        keys_BT = rng.per_tick(rng.per_tick(keys_B, self.candidates).reshape(-1), self.horizon)
        draw_BT, dream_BT = rng.split(keys_BT, 2)
        action_BT = uniform(self.model.actions, draw_BT)
        returns = self.returns(variables, belief, action_BT, dream_BT).reshape(B, self.candidates)
        first = action_BT[:, 0].reshape(B, self.candidates, *action_BT.shape[2:])
        # Candidates are drawn alike, so the first of equals is one of them at random.
        return first[jnp.arange(B), jnp.argmax(returns, 1)], jnp.max(returns, 1)

    def returns(self, variables: PyTree, belief: Belief, action_BT: jax.Array, keys_BT: jax.Array) -> jax.Array:
        """What raw actions (B, T, ...) are expected to pay, dreamed once: float32 (B,).

        The sum over t of r_t prod_{k < t} discount gamma_k, r and gamma being the outcome model's means: what an action
        that ends the episode pays still counts, what would come after does not.
        """

        def tick(carry, inputs):
            belief, weight_B, return_B = carry
            action, keys_B = inputs
            action_BA = self.model.actions.vector(action)
            belief, out = self.model.apply(variables, belief, action_BA, keys_B, method='tick', **dict(self.dials))
            return_B += weight_B * out.outcomes['reward']
            return (belief, weight_B * self.discount * out.outcomes['discount'], return_B), None

        batch = (keys_BT.shape[0],)
        start = (belief, jnp.ones(batch, jnp.float32), jnp.zeros(batch, jnp.float32))
        inputs = (jnp.swapaxes(action_BT, 0, 1), jnp.swapaxes(keys_BT, 0, 1))
        return jax.lax.scan(tick, start, inputs)[0][2]
