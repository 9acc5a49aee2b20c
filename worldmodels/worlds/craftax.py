"""craftax: Crafter's game in JAX (Matthews et al., 2024, arXiv 2402.16801), the Classic one, measured with craftax 1.6.1.

    Classic-Pixels      'image' (63, 63, 3): 7 x 9 cells around the player, below them what it has
    Classic-Symbolic    'grid' (7, 9, 5): the block of every cell (17 kinds), then 0 or 1 for zombie, cow, skeleton and
                        arrow; 'vector' (22,): twelve kinds of things carried and health, food, drink, energy in tenths,
                        the player's direction (one-hot: left, right, up, down), daylight, asleep

Costs are 'damage', the health lost in a step (of 9), and 'lava', which kills at once. The pixels are drawn by
`craftax_pixels`, in half of the time craftax's renderer takes, to run and to compile. (craftax would also make textures
of three sizes first, and write them beside its code.)
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from worldmodels.types import ActionSpace, Modality, Spec
from worldmodels.worlds import carry, craftax_pixels
from worldmodels.worlds.options import Option

PACKAGES = {'craftax': "pip install -e '.[worlds]'"}
NAMES = ('Classic-Pixels', 'Classic-Symbolic')
OPTIONS = {
    'max_steps': Option(10_000, minimum=1, help='actions after which time is out'),
    'achievements': Option(False, help='an outcome for each of 22: 1 where it is reached for the first time'),
}
BLOCKS, MOBS = 17, 4


def names() -> list[str]:
    return list(NAMES)


def options(name: str) -> dict[str, Option]:
    del name  # both have the same
    return OPTIONS


def load(name: str, **chosen) -> CraftaxWorld:
    """One of craftax's classic worlds. Options: max_steps (10,000, as in craftax), achievements (False)."""
    return CraftaxWorld(name, **chosen)


class CraftaxWorld:
    """One world, no batch axis: `worlds.lift` adds it. Its state is craftax's."""

    def __init__(self, name: str, max_steps: int, achievements: bool):
        from craftax.craftax_classic.constants import OBS_DIM, Achievement, Action
        from craftax.craftax_classic.envs.craftax_state import EnvParams, StaticEnvParams

        self.max_steps, self.achievements, self.view = max_steps, achievements, OBS_DIM
        self.params, self.static = EnvParams(max_timesteps=max_steps), StaticEnvParams()
        height, width = OBS_DIM
        if name == 'Classic-Pixels':
            self.tables = craftax_pixels.tables()
            size = craftax_pixels.TILE
            observation = (('image', Modality('image', ((height + 2) * size, width * size, 3))),)
        else:
            self.tables = None
            grid = Modality('grid', (height, width, 1 + MOBS), (BLOCKS,) + (2,) * MOBS)
            observation = (('grid', grid), ('vector', Modality('vector', (22,))))
        self.reached = tuple(a.name.lower() for a in sorted(Achievement, key=lambda a: a.value)) if achievements else ()
        self.spec = Spec(
            observation,
            ActionSpace('discrete', len(Action), tuple(action.name.lower() for action in Action)),
            ('reward', 'discount', 'damage', 'lava', *self.reached),
        )

    @functools.cached_property
    def dtypes(self):
        # Not before it is played: to trace a step takes a second.
        key, action = jax.random.key(0), jnp.int32(0)
        start = jax.eval_shape(self._reset, key)
        return carry.dtypes(start, jax.eval_shape(self._step, start, action, key)[0])

    def reset(self, key: jax.Array):
        state = carry.cast(self._reset(key), self.dtypes)
        return state, self.observe(state)

    def step(self, before, action: jax.Array, key: jax.Array):
        from craftax.craftax_classic.constants import BlockType

        after, reward = self._step(before, action, key)
        after = carry.cast(after, self.dtypes)
        in_lava = after.map[after.player_position[0], after.player_position[1]] == BlockType.LAVA.value
        is_terminal = in_lava | (after.player_health <= 0)
        is_last = is_terminal | (after.timestep >= self.max_steps)
        outcomes = {
            'reward': jnp.asarray(reward, jnp.float32),
            'discount': 1.0 - is_terminal.astype(jnp.float32),
            'damage': jnp.maximum(before.player_health - after.player_health, 0).astype(jnp.float32),
            'lava': in_lava.astype(jnp.float32),
        }
        for i, name in enumerate(self.reached):
            outcomes[name] = (after.achievements[i] & ~before.achievements[i]).astype(jnp.float32)
        return after, self.observe(after), outcomes, is_terminal, is_last

    def observe(self, state) -> dict[str, jax.Array]:
        if self.tables is not None:
            return {'image': craftax_pixels.draw(self.tables, state, self.view)}
        from craftax.craftax_classic.renderer import render_craftax_symbolic

        # craftax gives it flat, with the blocks one-hot. Its own words are kept: a thing out of sight may hide another
        # of its kind on the far side of the view, as craftax writes it to a negative index.
        height, width = self.view
        flat = render_craftax_symbolic(state)
        cells = height * width * (BLOCKS + MOBS)
        map_HWC = flat[:cells].reshape((height, width, BLOCKS + MOBS))
        block_HW1 = jnp.argmax(map_HWC[..., :BLOCKS], -1, keepdims=True)
        grid = jnp.concatenate([block_HW1.astype(jnp.uint8), map_HWC[..., BLOCKS:].astype(jnp.uint8)], -1)
        return {'grid': grid, 'vector': flat[cells:].astype(jnp.float32)}

    def truth(self, state) -> dict[str, jax.Array]:
        """What is there, in sight or not.

        codes uint8 (64, 64), the blocks of the whole map; position int (2,), direction (1 left, 2 right, 3 up, 4 down);
        inventory int (12,) and needs int (4,), in the order of the symbolic vector; light; asleep; achievements (22,).
        """
        carried = state.inventory
        return {
            'codes': state.map.astype(jnp.uint8),
            'position': state.player_position,
            'direction': state.player_direction,
            'inventory': jnp.stack([getattr(carried, name) for name in craftax_pixels.CARRIED]),
            'needs': jnp.stack([state.player_health, state.player_food, state.player_drink, state.player_energy]),
            'light': state.light_level,
            'asleep': state.is_sleeping,
            'achievements': state.achievements,
        }

    def _reset(self, key: jax.Array):
        from craftax.craftax_classic.world_gen import generate_world

        return generate_world(key, self.params, self.static)

    def _step(self, state, action: jax.Array, key: jax.Array):
        from craftax.craftax_classic.game_logic import craftax_step

        return craftax_step(key, state, action, self.params, self.static)
