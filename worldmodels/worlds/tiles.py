"""One integer per cell of a grid world, and what each integer looks like and means.

A world of tiles is drawn by looking a code up in a table, in one gather: as an 8-pixel sprite or as MiniGrid's triple
(object, colour, state). Sprites are navix's own.
"""

from __future__ import annotations

import numpy as np

TILE = 8
UNSEEN, FLOOR, WALL, GOAL, LAVA, PLAYER, KEY, BALL, BOX, DOOR = 0, 1, 2, 3, 4, 5, 9, 15, 21, 27
COUNT = DOOR + 6 * 3  # six colours of door, each closed, open or locked
CLASSES = (11, 6, 4)  # of MiniGrid's objects, colours and states
COLOURS = 6


def symbols() -> np.ndarray:
    """uint8 (COUNT, 3): MiniGrid's (object, colour, state) of every code; doors are 0 open, 1 closed, 2 locked."""
    table = np.zeros((COUNT, 3), np.uint8)
    table[FLOOR], table[WALL], table[GOAL], table[LAVA] = (1, 0, 0), (2, 5, 0), (8, 1, 0), (9, 0, 0)
    for direction in range(4):
        table[PLAYER + direction] = (10, 0, direction)
    for colour in range(COLOURS):
        table[KEY + colour], table[BALL + colour], table[BOX + colour] = (5, colour, 0), (6, colour, 0), (7, colour, 0)
        for i, state in enumerate((1, 0, 2)):
            table[DOOR + 3 * colour + i] = (4, colour, state)
    return table


def sprites(first_person: bool) -> np.ndarray:
    """uint8 (COUNT, 8, 8, 3): the picture of every code.

    In first person the player looks up the page and what is seen is lightened, as MiniGrid's partial view does; what is
    not seen is black.
    """
    from navix.rendering.registry import SPRITES_REGISTRY

    registry = {name: np.asarray(sprite) for name, sprite in SPRITES_REGISTRY.items()}
    table = np.zeros((COUNT, TILE, TILE, 3), np.uint8)
    table[FLOOR], table[WALL], table[GOAL], table[LAVA] = (registry[k] for k in ('floor', 'wall', 'goal', 'lava'))
    table[PLAYER : PLAYER + 4] = registry['player'][3] if first_person else registry['player']
    table[KEY : KEY + COLOURS] = registry['key']
    table[BALL : BALL + COLOURS] = registry['ball']
    table[BOX : BOX + COLOURS] = registry['box']
    table[DOOR:] = registry['door'].reshape((-1, TILE, TILE, 3))
    if first_person:
        lit = np.float32(255) - np.float32(0.7) * (255 - table).astype(np.float32)
        table = np.where(np.arange(COUNT)[:, None, None, None] == UNSEEN, 0, lit.astype(np.uint8))
    return table
