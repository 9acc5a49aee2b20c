"""navix: MiniGrid's worlds in JAX (Pignatelli et al., 2024, arXiv 2407.19396), measured with navix 0.7.4.

Two things are done otherwise than in navix, both on purpose. The picture is looked up cell by cell from a table of
sprites (the same picture to the bit, several times faster). A key in the pocket lies nowhere: navix's symbolic view
shows it in the wall's upper right corner, its picture does not.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from worldmodels.types import ActionSpace, Modality, Spec
from worldmodels.worlds import tiles
from worldmodels.worlds.options import Option

PACKAGES = {'navix': "pip install -e '.[worlds]'"}
OPTIONS = {
    'view': Option('full', ('full', 'partial'), 'what is seen'),
    'observation': Option('rgb', ('rgb', 'symbolic'), 'in what form'),
    'max_steps': Option(128, minimum=1, help='actions after which time is out'),
}
RADIUS = 3  # of the partial view, which is MiniGrid's 7x7


def _registered() -> dict[str, str]:
    import navix

    return {full.removeprefix('Navix-').removesuffix('-v0'): full for full in navix.registry()}


def names() -> list[str]:
    """The environments navix has registered: 'Navix-DoorKey-8x8-v0' is 'DoorKey-8x8' here."""
    return sorted(_registered())


def options(name: str) -> dict[str, Option]:
    del name  # all of them have the same
    return OPTIONS


def load(name: str, **chosen) -> NavixWorld:
    """One navix environment.

    Options: view 'full' | 'partial' (7x7 cells ahead, nothing seen through walls); observation 'rgb' (modality
    'image', 8 pixels a cell) | 'symbolic' (modality 'grid', MiniGrid's three channels); max_steps, the actions after
    which time is out (128).
    """
    return NavixWorld(name, **chosen)


class NavixWorld:
    """One environment, no batch axis: `worlds.lift` adds it. Its state is (navix's state, steps taken)."""

    def __init__(self, name: str, view: str, observation: str, max_steps: int):
        import navix

        self.view, self.observation, self.max_steps = view, observation, max_steps
        self.env = navix.make(_registered()[name], observation_fn=navix.observations.none)
        (timestep, entities) = jax.eval_shape(lambda k: (t := self.env.reset(k), t.state.entities), jax.random.key(0))
        self.has_lava = 'lava' in entities
        height, width = timestep.state.grid.shape if view == 'full' else (2 * RADIUS + 1, 2 * RADIUS + 1)
        if observation == 'rgb':
            self.table = tiles.sprites(first_person=view == 'partial')
            modality = ('image', Modality('image', (height * tiles.TILE, width * tiles.TILE, 3)))
        else:
            self.table = tiles.symbols()
            modality = ('grid', Modality('grid', (height, width, 3), tiles.CLASSES))
        actions = tuple(action.__name__ for action in self.env.action_set)
        outcomes = ('reward', 'discount', 'lava') if self.has_lava else ('reward', 'discount')
        self.spec = Spec((modality,), ActionSpace('discrete', len(actions), actions), outcomes)

    def reset(self, key: jax.Array):
        state = self.env.reset(key).state
        # The state carries navix's own picture of the background: nothing here reads it, every step would copy it.
        state = state.replace(cache=state.cache.replace(patches=jnp.zeros((0,), jnp.uint8)))
        return (state, jnp.int32(0)), self.observe(state)

    def step(self, state, action: jax.Array, key: jax.Array):
        del key  # what chance there is in navix is drawn from the key inside its state
        before, steps = state
        # navix's own step would reset, and run the reset at every step under vmap; these are the parts it is made of.
        after = self.env.transitions_fn(before, action, self.env.action_set)
        is_terminal = jnp.asarray(self.env.termination_fn(before, action, after), bool)
        is_last = is_terminal | (steps + 1 >= self.max_steps)
        outcomes = {
            'reward': jnp.asarray(self.env.reward_fn(before, action, after), jnp.float32),
            'discount': 1.0 - is_terminal.astype(jnp.float32),
        }
        if self.has_lava:
            outcomes['lava'] = after.events.lava_fall.happened.astype(jnp.float32)
        return (after, steps + 1), self.observe(after), outcomes, is_terminal, is_last

    def observe(self, state) -> dict[str, jax.Array]:
        codes_HW = cells(state)
        if self.view == 'partial':
            codes_HW = ahead(state, codes_HW)
        height, width = codes_HW.shape
        seen = jnp.asarray(self.table)[codes_HW]
        if self.observation == 'symbolic':
            return {'grid': seen}
        return {'image': seen.swapaxes(1, 2).reshape((height * tiles.TILE, width * tiles.TILE, 3))}

    def truth(self, state) -> dict[str, jax.Array]:
        """What is there, view or no view.

        codes int (H, W) of `tiles`; position (2,), direction (0 east, clockwise) and pocket (-1: empty) of the player;
        and what a path finder asks, bool (H, W): walkable, closed and locked (doors), key, goal.
        """
        state, _ = state
        codes_HW = cells(state)
        player = state.get_player()
        door_HW = (codes_HW - tiles.DOOR) % 3

        def within(first: int, count: int) -> jax.Array:
            return (codes_HW >= first) & (codes_HW < first + count)

        doors_HW = within(tiles.DOOR, tiles.COUNT - tiles.DOOR)
        closed_HW = doors_HW & (door_HW != 1)
        block_HW = within(tiles.WALL, 1) | within(tiles.LAVA, 1) | within(tiles.BALL, 6) | within(tiles.BOX, 6)
        return {
            'codes': codes_HW,
            'position': player.position,
            'direction': player.direction,
            'pocket': player.pocket,
            'walkable': ~(block_HW | closed_HW | within(tiles.KEY, 6)),
            'closed': closed_HW,
            'locked': doors_HW & (door_HW == 2),
            'key': within(tiles.KEY, 6),
            'goal': within(tiles.GOAL, 1),
        }


def cells(state) -> jax.Array:
    """int32 (H, W): the code of every cell of a navix state, drawn kind by kind in the order of their names.

    That is the order in which a state that went through `jax.jit` draws itself: the player stands on doors and goals.
    """
    codes_HW = jnp.where(state.grid == 0, tiles.FLOOR, tiles.WALL)
    for name in sorted(state.entities):
        entity = state.entities[name]
        row, column = entity.position.T
        # navix throws a thing away by putting it into column -1: no cell of the grid.
        column = jnp.where(column < 0, codes_HW.shape[1], column)
        codes_HW = codes_HW.at[row, column].set(_code(entity), mode='drop')
    return codes_HW


def _code(entity) -> jax.Array | int:
    # By class and not by name: KeyCorridor keeps a ball under the name of a goal.
    kind = entity.name
    if kind == 'Player':
        return tiles.PLAYER + entity.direction
    if kind == 'Door':
        return tiles.DOOR + 3 * entity.colour.astype(int) + jnp.clip(entity.open + 2 * entity.locked, 0, 2)
    if kind in ('Key', 'Ball', 'Box'):
        return {'Key': tiles.KEY, 'Ball': tiles.BALL, 'Box': tiles.BOX}[kind] + entity.colour.astype(int)
    return {'Wall': tiles.WALL, 'Goal': tiles.GOAL, 'Lava': tiles.LAVA}[kind]


def ahead(state, codes_HW: jax.Array) -> jax.Array:
    """int32 (7, 7): what the player sees, itself at the bottom's middle looking up; UNSEEN behind walls and doors."""
    from navix.grid import crop, view_cone

    player = state.get_player()
    closed_HW = (codes_HW >= tiles.DOOR) & ((codes_HW - tiles.DOOR) % 3 != 1)
    clear_HW = ~((codes_HW == tiles.WALL) | closed_HW)
    visible_HW = view_cone(clear_HW.astype(jnp.int32), player.position, RADIUS) > 0
    codes_HW = jnp.where(visible_HW, codes_HW, tiles.UNSEEN)
    return crop(codes_HW, player.position, player.direction, RADIUS, tiles.UNSEEN)
