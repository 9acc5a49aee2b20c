r"""A player of grid worlds that sees what is really there: key, door, goal, by the shortest way.

$$d(x) = 1 + \min_{y \sim x} d(y)$$

over the open neighbours y of a cell: breadth-first search (Moore, 1959), of all worlds at once.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from worldmodels.control.random import astray
from worldmodels.types import ActionSpace

MOVES = ('forward', 'rotate_cw', 'rotate_ccw', 'pickup', 'toggle')
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # (row, column) of directions east, south, west, north
FAR = 1 << 20


@dataclasses.dataclass(frozen=True)
class Scripted:
    """Goes to the key while a locked door stands and the pocket is empty, else to the goal, opening doors on the way.

    With probability `noise`, or where no way leads there, it acts at random. Reads `World.truth` (see worlds/navix.py).
    """

    action: ActionSpace
    noise: float = 0.0

    def __post_init__(self):
        missing = [move for move in MOVES if move not in self.action.names]
        if missing:
            raise ValueError(
                f'The scripted policy needs the actions {", ".join(MOVES)}; '
                f'this world has no {", ".join(missing)}. Use random or sticky.'
            )

    def initial(self, batch: int) -> tuple:
        return ()

    def __call__(self, params, belief, policy_state, keys_B: jax.Array):
        truth = belief.truth
        carries_B = truth['pocket'] >= 0
        wants_key_B = truth['locked'].any((1, 2)) & truth['key'].any((1, 2)) & ~carries_B
        target_BHW = jnp.where(wants_key_B[:, None, None], truth['key'], truth['goal'])
        opens_BHW = truth['closed'] & (~truth['locked'] | carries_B[:, None, None])
        distance_BHW = distances(truth['walkable'] | opens_BHW | truth['key'], target_BHW)

        row_B, column_B, direction_B = *truth['position'].T, truth['direction']
        lane_B = jnp.arange(row_B.shape[0])
        around_B4 = jnp.stack([distance_BHW[lane_B, row_B + r, column_B + c] for r, c in STEPS], axis=1)
        turns_B4 = (jnp.arange(4) - direction_B[:, None]) % 4
        # Of equally short ways the one that needs the least turning.
        heading_B = jnp.argmin(around_B4 * 4 + jnp.minimum(turns_B4, 4 - turns_B4), axis=1)
        turn_B = turns_B4[lane_B, heading_B]

        step_B2 = jnp.asarray(STEPS)[direction_B]
        front = (lane_B, row_B + step_B2[:, 0], column_B + step_B2[:, 1])
        forward, clockwise, counter, pickup, toggle = (self.action.names.index(move) for move in MOVES)
        ahead_B = jnp.where(truth['key'][front], pickup, jnp.where(truth['closed'][front], toggle, forward))
        action_B = jnp.where(turn_B == 0, ahead_B, jnp.where(turn_B == 3, counter, clockwise))

        no_way_B = around_B4.min(1) >= FAR
        return astray(self.action, action_B, self.noise, keys_B, no_way_B), policy_state, {}


def distances(open_BHW: jax.Array, target_BHW: jax.Array) -> jax.Array:
    """int32 (B, H, W): steps from every cell to the nearest target through open cells, FAR where there is no way.

    Grids are closed by walls, so that what leaves one side and enters the other is never open.
    """

    def relax(carry):
        distance_BHW, _ = carry
        near = jnp.stack([jnp.roll(distance_BHW, shift, axis) for axis in (1, 2) for shift in (1, -1)]).min(0) + 1
        closer = jnp.minimum(distance_BHW, jnp.where(open_BHW, near, FAR))
        return closer, (closer != distance_BHW).any()

    start_BHW = jnp.where(target_BHW, 0, FAR)
    return jax.lax.while_loop(lambda carry: carry[1], relax, (start_BHW, jnp.bool_(True)))[0]
