"""xminigrid: MiniGrid's worlds in JAX once more (Nikulin et al., 2023, arXiv 2312.12044), measured with xminigrid 0.9.3.

It has MiniGrid's Memory up to a corridor of 128, Playground and LockedRoom, which navix lacks. The player sees through
walls, and not what it carries. XLand's environments are left out: without a benchmark of rulesets, which would be
downloaded, they pay nothing and never end. Playground pays nothing either, and ends when time is out.

A goal pays 1 - 0.9 t / max_steps at step t, so `max_steps` changes what is paid.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.types import ActionSpace, Modality, Spec
from worldmodels.worlds.options import Option

PACKAGES = {'xminigrid': "pip install -e '.[worlds]'"}
OPTIONS = {
    'view': Option('partial', ('partial', 'full'), 'what is seen'),
    'observation': Option('symbolic', ('symbolic', 'rgb'), 'in what form'),
    'view_size': Option(None, minimum=3, kind=int, help='cells ahead and across of the partial view, odd'),
    'max_steps': Option(None, minimum=1, kind=int, help='actions after which time is out; None: as in xminigrid'),
}
TILE = 8  # pixels
TILES, COLOURS = 13, 12
FACES = 5  # of a cell: without the player, or with it facing up, right, down, left
FLOOR, GOAL, KEY, LOCKED, CLOSED, OPEN = 1, 6, 7, 8, 9, 10
ACTIONS = ('forward', 'rotate_cw', 'rotate_ccw', 'pickup', 'drop', 'toggle')


def names() -> list[str]:
    """MiniGrid's environments by their own names, as 'MiniGrid-MemoryS16'."""
    import xminigrid

    return sorted(name for name in xminigrid.registered_environments() if not name.startswith('XLand-'))


def options(name: str) -> dict[str, Option]:
    del name  # all of them have the same
    return OPTIONS


def load(name: str, **chosen) -> XMiniGridWorld:
    """One of xminigrid's environments.

    Options: view 'partial' (view_size x view_size cells, the player at the bottom's middle looking up) | 'full' (all
    cells, with a third channel for the player: 0, or its direction and one); observation 'symbolic' (modality 'grid':
    tile, colour) | 'rgb' (modality 'image', 8 pixels a cell); max_steps. Raises ValueError for an even view_size.
    """
    if chosen['view_size'] is not None and chosen['view_size'] % 2 == 0:
        raise ValueError(f'view_size={chosen["view_size"]}: give an odd number, the player stands in the middle.')
    return XMiniGridWorld(name, **chosen)


class XMiniGridWorld:
    """One environment, no batch axis: `worlds.lift` adds it. Its state is xminigrid's `State`."""

    def __init__(self, name: str, view: str, observation: str, view_size: int | None, max_steps: int | None):
        import xminigrid

        asked = {'view_size': view_size, 'max_steps': max_steps}
        self.env, self.params = xminigrid.make(name, **{k: v for k, v in asked.items() if v is not None})
        self.view, self.observation, self.max_steps = view, observation, self.params.max_steps
        height, width = self.params.height, self.params.width
        if view == 'partial':
            height = width = self.params.view_size
        if observation == 'rgb':
            self.table = sprites()
            modality = ('image', Modality('image', (height * TILE, width * TILE, 3)))
        else:
            classes = (TILES, COLOURS) if view == 'partial' else (TILES, COLOURS, FACES)
            modality = ('grid', Modality('grid', (height, width, len(classes)), classes))
        self.spec = Spec((modality,), ActionSpace('discrete', len(ACTIONS), ACTIONS))

    def reset(self, key: jax.Array):
        state = self.env.reset(self.params, key).state
        return state, self.observe(state)

    def step(self, state, action: jax.Array, key: jax.Array):
        from xminigrid.types import TimeStep

        del key  # nothing in xminigrid is left to chance after the opening
        before = TimeStep(state=state, step_type=None, reward=None, discount=None, observation=None)
        after = self.env.step(self.params, before, action)
        is_terminal = after.discount == 0
        outcomes = {
            'reward': jnp.asarray(after.reward, jnp.float32),
            'discount': jnp.asarray(after.discount, jnp.float32),
        }
        return after.state, self.observe(after.state), outcomes, is_terminal, after.last()

    def observe(self, state) -> dict[str, jax.Array]:
        from xminigrid.core.observation import transparent_field_of_view

        if self.view == 'full':
            cells_HWC = jnp.concatenate([state.grid, _face(state)[..., None]], -1)
        else:
            size = self.params.view_size
            cells_HWC = transparent_field_of_view(state.grid, state.agent, size, size)
        if self.observation == 'symbolic':
            return {'grid': cells_HWC.astype(jnp.uint8)}
        height, width = cells_HWC.shape[:2]
        if self.view == 'full':
            face_HW = cells_HWC[..., 2]
        else:
            face_HW = jnp.zeros((height, width), jnp.uint8).at[-1, width // 2].set(1)
        tiles = jnp.asarray(self.table)[_code(cells_HWC, face_HW)]
        return {'image': tiles.swapaxes(1, 2).reshape((height * TILE, width * TILE, 3))}

    def truth(self, state) -> dict[str, jax.Array]:
        """What is there, view or no view, in the terms of `worlds.navix`: a script for the one plays the other.

        codes int32 (H, W), (tile * 12 + colour) * 5 + face; position (2,), direction (0 east, clockwise) and pocket
        (tile * 12 + colour, -1: empty) of the player; bool (H, W): walkable, closed and locked (doors), key, goal.
        """
        tile_HW = state.grid[..., 0]
        pocket = state.agent.pocket.astype(jnp.int32)
        return {
            'codes': _code(state.grid, _face(state)),
            'position': state.agent.position,
            'direction': (state.agent.direction - 1) % 4,
            'pocket': jnp.where(pocket[0] == 0, -1, pocket[0] * COLOURS + pocket[1]),
            'walkable': (tile_HW == FLOOR) | (tile_HW == GOAL) | (tile_HW == OPEN),
            'closed': (tile_HW == LOCKED) | (tile_HW == CLOSED),
            'locked': tile_HW == LOCKED,
            'key': tile_HW == KEY,
            'goal': tile_HW == GOAL,
        }


def _face(state) -> jax.Array:
    """uint8 (H, W): 0, and where the player stands 1 + its direction (up, right, down, left)."""
    row, column = state.agent.position
    return jnp.zeros(state.grid.shape[:2], jnp.uint8).at[row, column].set((1 + state.agent.direction).astype(jnp.uint8))


def _code(cells_HWC: jax.Array, face_HW: jax.Array) -> jax.Array:
    tile_HW, colour_HW = (cells_HWC[..., c].astype(jnp.int32) for c in range(2))
    return (tile_HW * COLOURS + colour_HW) * FACES + face_HW


def sprites() -> np.ndarray:
    """uint8 (780, 8, 8, 3): xminigrid's own picture of every code, without its highlight of what is in view."""
    from xminigrid.rendering.rgb_render import render_tile

    table = np.zeros((TILES, COLOURS, FACES, TILE, TILE, 3), np.uint8)
    for tile, colour in itertools.product(range(TILES), range(COLOURS)):
        table[tile, colour] = render_tile((tile, colour), None, False, TILE)
        if tile in (FLOOR, GOAL, OPEN):  # nobody stands elsewhere
            for direction in range(4):
                table[tile, colour, 1 + direction] = render_tile((tile, colour), direction, False, TILE)
    return table.reshape((-1, TILE, TILE, 3))
