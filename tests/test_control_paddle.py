"""The player of MinAtar's Breakout keeps the ball in play far longer than chance does."""

import jax
import numpy as np
import pytest

from worldmodels import interaction, worlds
from worldmodels.control.paddle import Paddle
from worldmodels.control.random import Random
from worldmodels.types import ActionSpace


def endings(policy) -> int:
    world = worlds.make('gymnax/Breakout-MinAtar', 16)
    pool = interaction.prepare(world, jax.random.key(0), 16)
    _, records = interaction.interact(world, policy(world.spec.action), None, jax.random.key(1), 60, pool)
    return int(np.asarray(records['is_terminal']).sum())


def test_the_ball_is_kept_in_play():
    assert endings(Paddle) == 0
    assert endings(Random) > 16


def test_a_world_without_its_actions_is_refused():
    with pytest.raises(ValueError, match='this world has no left, right'):
        Paddle(ActionSpace('discrete', 2, ('noop', 'fire')))
