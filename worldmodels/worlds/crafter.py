"""Crafter (Hafner, 2021, arXiv 2109.06780): an open world of survival, whose terrain no two episodes share.

Its package is older than Gymnasium and needs nothing of gym. An episode ends with death; time is out after 10,000
actions. The reward is the paper's: 1 for each achievement unlocked for the first time in an episode, 0.1 for each point
of health won or lost. Costs: `damage`, points of health lost; `achievements`, how many were unlocked by the action.
"""

from __future__ import annotations

import collections
import functools
import math
from typing import Any

import numpy as np

from worldmodels.worlds.options import Option

PACKAGES = {'crafter': "pip install -e '.[worlds]'", 'gymnasium': "pip install -e '.[worlds]'"}
OPTIONS = {
    'size': Option(64, minimum=9, help='pixels of a side'),
    'max_steps': Option(10_000, minimum=1, help='actions after which time is out'),
    'processes': Option(False, help='every lane in a process of its own; a new terrain takes a second of one core'),
}


def names() -> list[str]:
    return ['Crafter']


def options(name: str) -> dict[str, Option]:
    del name
    return OPTIONS


def load_batch(name: str, batch: int, *, size: int, max_steps: int, processes: bool) -> Any:
    """`batch` worlds of Crafter."""
    from worldmodels.worlds.lanes import Lanes

    plain = {'render': False, 'size': None, 'modalities': '', 'costs': 'damage,achievements'}
    build = functools.partial(build_one, size)
    return Lanes(f'crafter/{name}', build, batch, max_steps=max_steps, processes=processes, openings=math.inf, **plain)


def build_one(size: int) -> Any:
    """One Crafter as a Gymnasium environment."""
    import crafter
    import gymnasium

    class InOrder(dict):
        """A set that keeps the order in which things were added."""

        add, remove = dict.setdefault, dict.__delitem__

    class Crafter(gymnasium.Env):
        """Seeds, five values instead of four, and what Gymnasium asks to be declared."""

        observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)

        def __init__(self):
            self.env = crafter.Env(size=(size, size), length=None, seed=0)
            self.action_space = gymnasium.spaces.Discrete(len(self.env.action_names))
            self.action_names = tuple(self.env.action_names)
            # Crafter 1.8 draws creatures out of sets of objects, whose order is that of their addresses in memory: the
            # same seed gave another episode each time.
            world, usual = self.env._world, self.env._world.reset

            def reset_in_order(seed=None):
                usual(seed)
                world._chunks = collections.defaultdict(InOrder)

            world.reset = reset_in_order

        def reset(self, *, seed=None, options=None):
            if seed is not None:
                # Its terrain follows from the seed it was made with and the number of the episode.
                self.env._seed, self.env._episode = seed, 0
            observation = self.env.reset()
            self.health, self.unlocked = self.env._player.health, 0
            return observation, {}

        def step(self, action):
            observation, reward, _, told = self.env.step(action)
            health, unlocked = told['inventory']['health'], sum(n > 0 for n in told['achievements'].values())
            info = {'damage': max(0, self.health - health), 'achievements': unlocked - self.unlocked}
            self.health, self.unlocked = health, unlocked
            return observation, reward, told['discount'] == 0, False, info

    return Crafter()
