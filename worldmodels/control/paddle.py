r"""A player of MinAtar's Breakout (Young & Tian, 2019, arXiv 1903.03176) that sees the ball and goes where it is going.

$$a = \mathrm{sign}(x_{t+1} - p_t)$$

with x the ball's column and p the paddle's.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from worldmodels.control.random import astray
from worldmodels.types import ActionSpace

MOVES = ('noop', 'left', 'right')
COLUMNS = 10
TO_THE_RIGHT = (False, True, True, False)  # by ball_dir: up left, up right, down right, down left


@dataclasses.dataclass(frozen=True)
class Paddle:
    """Keeps the paddle under the ball's next column; with probability `noise` it acts at random.

    Reads `World.truth` of MinAtar's Breakout: ball_x, ball_dir, pos (columns, from the left). Raises ValueError for a
    world without the actions noop, left, right.
    """

    action: ActionSpace
    noise: float = 0.0

    def __post_init__(self):
        missing = [move for move in MOVES if move not in self.action.names]
        if missing:
            raise ValueError(
                f'The paddle needs the actions {", ".join(MOVES)}; this world has no {", ".join(missing)}.'
            )

    def initial(self, batch: int) -> tuple:
        return ()

    def __call__(self, params, belief, policy_state, keys_B: jax.Array):
        truth = belief.truth
        step_B = jnp.where(jnp.asarray(TO_THE_RIGHT)[truth['ball_dir']], 1, -1)
        target_B = jnp.clip(truth['ball_x'] + step_B, 0, COLUMNS - 1)  # at a wall it stays a tick in its column
        stay, left, right = (self.action.names.index(move) for move in MOVES)
        gap_B = target_B - truth['pos']
        action_B = jnp.where(gap_B < 0, left, jnp.where(gap_B > 0, right, stay))
        return astray(self.action, action_B, self.noise, keys_B), policy_state, {}
