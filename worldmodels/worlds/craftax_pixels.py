"""The picture of Craftax-Classic's state, looked up in tables of tiles.

It is craftax 1.6.1's own to within a level of rounding (a test compares them), from the same sprites. craftax's renderer
goes over the whole picture once for every kind of block and writes its bottom rows slot by slot.
"""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

TILE, ICON, DIGIT = 7, 5, 4  # pixels
CARRIED = (
    'wood',
    'stone',
    'coal',
    'iron',
    'diamond',
    'sapling',
    'wood_pickaxe',
    'stone_pickaxe',
    'iron_pickaxe',
    'wood_sword',
    'stone_sword',
    'iron_sword',
)
BLOCKS = (
    'debug_tile',
    'debug_tile',
    'grass',
    'water',
    'stone',
    'tree',
    'wood',
    'path',
    'coal',
    'iron',
    'diamond',
    'table',
    'furnace',
    'sand',
    'lava',
    'plant_on_grass',
    'ripe_plant_on_grass',
)
OUT_OF_BOUNDS, ZOMBIE, COW, SKELETON, ARROW = 1, 0, 1, 2, 3
PLAIN = ('health', 'food', 'drink', 'energy', 'wood', 'stone', 'coal', 'iron', 'diamond', 'sapling', 'wood_pickaxe')
# What the two rows at the bottom show, in order.
SLOTS = (
    ('health', 'food', 'drink', 'energy', 'sapling', 'wood', 'stone', 'coal', 'iron'),
    ('diamond', 'wood_pickaxe', 'stone_pickaxe', 'iron_pickaxe', 'wood_sword', 'stone_sword', 'iron_sword', '', ''),
)


def _sprite(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A sprite's colours float32 (size, size, 3) and alpha (size, size, 1) in 0..1, sampled as craftax does."""
    import craftax.craftax_classic
    from PIL import Image

    folder = pathlib.Path(craftax.craftax_classic.__path__[0]) / 'assets'
    with Image.open(folder / f'{name}.png') as opened:
        image = opened.convert('RGBA').resize((size, size), Image.Resampling.NEAREST)
    pixels = np.asarray(image, np.float32)
    return pixels[..., :3], pixels[..., 3:] / 255


def tables() -> dict[str, np.ndarray]:
    """Everything a picture is made of, float32, colours in 0..255.

    block (17, 7, 7, 3); player and thing (zombie, cow, skeleton, arrow up, down, left, right) with colour and alpha; slot
    (18, 10, 7, 7, 3), a thing carried and how many; night (49, 63, 1), how grainy the dark is.
    """
    block = np.stack([_sprite(name, TILE)[0] for name in BLOCKS])
    block[OUT_OF_BOUNDS] = 128
    player = [_sprite(f'player-{way}', TILE) for way in ('left', 'right', 'up', 'down', 'sleep')]
    things = [_sprite(name, TILE) for name in ('zombie', 'cow', 'skeleton')]
    colour, alpha = _sprite('arrow-up', TILE)
    alpha = np.floor(alpha)
    up = (colour * alpha, alpha)
    down = tuple(x[::-1] for x in up)
    things += [up, down, *(tuple(x.swapaxes(0, 1) for x in arrow) for arrow in (up, down))]

    slot = np.zeros((len(SLOTS[0]) * len(SLOTS), 10, TILE, TILE, 3), np.float32)
    for i, name in enumerate(sum(SLOTS, ())):
        if not name:
            continue
        colour, alpha = _sprite(name, ICON)
        for count in range(1, 10):
            slot[i, count, :ICON, :ICON] = colour if name in PLAIN else colour * np.floor(alpha)
            digit, shape = _sprite(str(count), DIGIT)
            shape = np.floor(shape)
            corner = slot[i, count, TILE - DIGIT - 1 : TILE - 1, TILE - DIGIT - 1 : TILE - 1]
            corner[:] = corner * (1 - shape) + digit * shape
    y, x = np.linspace(-1, 1, 7 * TILE)[:, None], np.linspace(-1, 1, 9 * TILE)[None]
    night = 1 - np.exp(-0.5 * (x**2 + y**2) / 0.5**2)
    return {
        'block': block,
        'player': np.stack([colour for colour, _ in player]),
        'player_alpha': np.stack([alpha for _, alpha in player]),
        'thing': np.stack([colour for colour, _ in things]),
        'thing_alpha': np.stack([alpha for _, alpha in things]),
        'slot': slot,
        'night': night[..., None].astype(np.float32),
    }


def draw(tables: dict[str, np.ndarray], state, view: tuple[int, int]) -> jax.Array:
    """uint8 (63, 63, 3): one state of craftax's, `view` being the cells (height, width) around the player."""
    tables = jax.tree.map(jnp.asarray, tables)
    tiles = _ground(tables, state, view)
    picture = _lit(tables, state, _joined(tiles))
    rows = jnp.concatenate([picture, _carried(tables, state)])
    return jnp.clip(jnp.round(rows), 0, 255).astype(jnp.uint8)


def _joined(tiles: jax.Array) -> jax.Array:
    """Tiles (h, w, 7, 7, 3) side by side."""
    height, width, *_ = tiles.shape
    return tiles.swapaxes(1, 2).reshape((height * TILE, width * TILE, 3))


def _ground(tables, state, view) -> jax.Array:
    """Tiles (7, 9, 7, 7, 3): the blocks, the player upon them, then what moves."""
    height, width = view
    row = state.player_position[0] - height // 2 + jnp.arange(height)
    column = state.player_position[1] - width // 2 + jnp.arange(width)
    size = state.map.shape
    inside_HW = ((row >= 0) & (row < size[0]))[:, None] & ((column >= 0) & (column < size[1]))
    block_HW = jnp.where(inside_HW, state.map[row[:, None], column], OUT_OF_BOUNDS)
    tiles = tables['block'][block_HW]
    pose = jnp.where(state.is_sleeping, 4, state.player_direction - 1)
    alpha = tables['player_alpha'][pose]
    middle = (height // 2, width // 2)
    tiles = tiles.at[middle].set(tiles[middle] * (1 - alpha) + tables['player'][pose] * alpha)

    ways = state.arrow_directions
    arrow = ARROW + (ways > 0).any(-1) + 2 * (ways[:, 1] != 0)
    mobs = (state.zombies, state.cows, state.skeletons, state.arrows)
    kind = [jnp.full(mob.mask.shape, k) for k, mob in zip((ZOMBIE, COW, SKELETON), mobs, strict=False)] + [arrow]
    cell = jnp.concatenate([mob.position for mob in mobs]) - jnp.stack([row[0], column[0]])
    there = jnp.concatenate([mob.mask for mob in mobs]) & ((cell >= 0) & (cell < jnp.array(view))).all(-1)

    def put(tiles, mob):
        kind, cell, there = mob
        alpha = tables['thing_alpha'][kind] * there
        tile = tiles[cell[0], cell[1]]
        return tiles.at[cell[0], cell[1]].set(tile * (1 - alpha) + tables['thing'][kind] * alpha), None

    # One after the other, as an arrow may fly over another.
    cell = jnp.where(there[:, None], cell, 0)
    return jax.lax.scan(put, tiles, (jnp.concatenate(kind), cell, there))[0]


def _grey(picture: jax.Array) -> jax.Array:
    # Not a sum over the last axis: XLA on CPU would draw the noise below once more for every colour.
    red, green, blue = (picture[..., c : c + 1] for c in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _lit(tables, state, picture: jax.Array) -> jax.Array:
    """The picture in the light of the hour, and as it is seen asleep."""
    light = state.light_level
    grain = jnp.maximum(2 * (0.5 - light), 0) * tables['night']
    noise = jax.random.uniform(state.state_rng, picture.shape[:2])[..., None] * 95 + 32
    dark = (1 - grain) * picture + grain * noise
    dark = 0.4 * dark + 0.6 * _grey(dark)
    dark = 0.5 * dark + 0.5 * jnp.array([0, 16, 64])
    picture = light * picture + (1 - light) * dark
    asleep = 0.5 * _grey(picture) + 0.5 * jnp.array([0, 0, 16])
    return jnp.where(state.is_sleeping, asleep, picture)


def _carried(tables, state) -> jax.Array:
    """(14, 63, 3): the two rows at the bottom."""
    needs = {need: getattr(state, f'player_{need}') for need in ('health', 'food', 'drink', 'energy')}
    count = {'': 0, **needs, **{name: getattr(state.inventory, name) for name in CARRIED}}
    counts = jnp.stack([jnp.asarray(count[name], jnp.int32) for row in SLOTS for name in row])
    tiles = tables['slot'][jnp.arange(len(counts)), counts]
    return _joined(tiles.reshape((len(SLOTS), len(SLOTS[0]), TILE, TILE, 3)))
