"""The player of corridors sees the object before it chooses, and chooses by a coin."""

import jax
import numpy as np
import pytest

from worldmodels import interaction, worlds
from worldmodels.control.corridor import Corridor
from worldmodels.types import ActionSpace

BALL, KEY = 3, 7  # tiles of xminigrid


@pytest.fixture(scope='module')
def records():
    """Of 128 lanes, (T, B, ...) as numpy."""
    world = worlds.make('xminigrid/MiniGrid-MemoryS16', 128, max_steps=96)
    pool = interaction.prepare(world, jax.random.key(0), 128)
    _, records = interaction.interact(world, Corridor(world.spec.action), None, jax.random.key(1), 60, pool)
    return jax.tree.map(np.asarray, records)


def test_it_sees_the_object_and_either_side_pays_half_the_time(records):
    assert (records['is_terminal'].sum(0) >= 1).all(), 'every lane came to the end'
    paid_B = np.array([paid for _, _, paid in told(records)])
    assert (paid_B[paid_B > 0] > 0.5).all()
    assert 0.35 < (paid_B > 0).mean() < 0.65


def test_what_it_saw_and_where_it_went_tell_what_is_paid(records):
    """So that a model with a memory can know, and one without cannot."""
    for seen, chosen, paid in told(records):
        assert (seen == chosen) == (paid > 0)


def told(records) -> list[tuple[int, int, float]]:
    """Of each lane's first episode: the object seen last in the room, the one seen at the end, what was paid."""
    tile_TBHW = records['observation']['grid'][..., 0]
    out = []
    for lane, end in enumerate(np.argmax(records['is_terminal'], 0)):
        objects_T = [set(tile_HW.flat) & {BALL, KEY} for tile_HW in tile_TBHW[: end + 1, lane]]
        seen = next(objects for objects in objects_T[end - 8 :: -1] if objects)
        out.append((*seen, *objects_T[end], float(records['reward'][end - 1, lane])))
    return out


def test_a_world_without_its_actions_is_refused():
    with pytest.raises(ValueError, match='this world has no rotate_cw, rotate_ccw'):
        Corridor(ActionSpace('discrete', 2, ('forward', 'back')))
