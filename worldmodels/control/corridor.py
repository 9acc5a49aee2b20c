r"""A player of MiniGrid's Memory (Chevalier-Boisvert et al., 2023, arXiv 2306.13831) that looks first, and guesses after.

$$p(\mathrm{north}) = p(\mathrm{south}) = \tfrac{1}{2}$$

at the far end, whatever was seen: what a model foretells there it can only know from what it saw at the other end.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from worldmodels import rng
from worldmodels.control.random import astray
from worldmodels.types import ActionSpace

MOVES = ('forward', 'rotate_cw', 'rotate_ccw')
MIDDLE = 3  # row of the corridor
ROOM = 3  # columns 1 to 3; looking west from any of them one sees the object
EAST, SOUTH, WEST, NORTH = range(4)


@dataclasses.dataclass(frozen=True)
class Corridor:
    """Walks west until it has seen the object, then east to the end, and takes either side.

    With probability `noise` it acts at random. Reads `World.truth` of xminigrid's Memory (see worlds/xminigrid.py). Raises
    ValueError for a world without the actions forward, rotate_cw, rotate_ccw.
    """

    action: ActionSpace
    noise: float = 0.0

    def __post_init__(self):
        missing = [move for move in MOVES if move not in self.action.names]
        if missing:
            raise ValueError(
                f'The player of corridors needs the actions {", ".join(MOVES)}; this world has no {", ".join(missing)}.'
            )

    def initial(self, batch: int) -> dict[str, jax.Array]:
        return {'looked': jnp.zeros((batch,), bool), 'north': jnp.zeros((batch,), bool)}

    def __call__(self, params, belief, policy_state, keys_B: jax.Array):
        truth = belief.truth
        coin_keys, stray_keys = rng.split(keys_B, 2)
        coin_B = rng.draw(jax.random.bernoulli, coin_keys)
        north_B = jnp.where(belief.is_first, coin_B, policy_state['north'])
        row_B, column_B, direction_B = *truth['position'].T, truth['direction']
        looked_B = policy_state['looked'] | ((direction_B == WEST) & (column_B <= ROOM))

        end = truth['codes'].shape[-1] - 2
        side_B = jnp.where(north_B, NORTH, SOUTH)
        onward_B = jnp.where(~looked_B, WEST, jnp.where(column_B < end, EAST, side_B))
        back_B = jnp.where(row_B < MIDDLE, SOUTH, NORTH)  # strayed from the corridor's row, in the room
        heading_B = jnp.where((row_B != MIDDLE) & (column_B <= ROOM), back_B, onward_B)
        turn_B = (heading_B - direction_B) % 4
        forward, clockwise, counter = (self.action.names.index(move) for move in MOVES)
        action_B = jnp.where(turn_B == 0, forward, jnp.where(turn_B == 3, counter, clockwise))
        return astray(self.action, action_B, self.noise, stray_keys), {'looked': looked_B, 'north': north_B}, {}
