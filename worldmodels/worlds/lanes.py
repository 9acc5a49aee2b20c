"""One Gymnasium environment as a lane of a batch, and many of them in Gymnasium's own vector environments.

A vector environment steps all of its lanes at once. Ours must be able to begin one anew, or leave one as it is, while
the others act: so a lane is told what to do with each action. What it answers, an ending and a cost too, is part of
its observation, and the vector environment never sees an episode end.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from worldmodels.types import Modality, Spec
from worldmodels.worlds import spaces
from worldmodels.worlds.host import Frames, Host

ACT, ANEW, STAY = range(3)
RENDERED = 64  # pixels of a side, where nothing else is said


class Lane(gymnasium.Env):
    """An environment that `build()` gives.

    render    the picture it renders is the observation, 'image'
    size      pictures are resized to size x size; None: as they are
    wanted    modalities to keep; () for all
    costs     entries of info that are paid beside the reward
    """

    def __init__(
        self, build: Callable[[], Any], render: bool, size: int | None, wanted: tuple[str, ...], costs: tuple[str, ...]
    ):
        if render:  # pygame looks for a screen and a sound card, and complains at length
            for device in ('SDL_VIDEODRIVER', 'SDL_AUDIODRIVER'):
                os.environ.setdefault(device, 'dummy')
        self.env, self.render_it, self.size, self.costs = build(), render, size, costs
        self.parts = [] if render else spaces.parts(self.env.observation_space, wanted)
        self.ours, self.theirs = spaces.action(self.env.action_space)
        named = tuple(getattr(self.env.unwrapped, 'action_names', ()))
        self.ours = dataclasses.replace(self.ours, names=named)
        if render and self.env.render_mode != 'rgb_array':
            raise ValueError(f'it does not render rgb_array, only {self.env.metadata.get("render_modes", [])}.')
        self.modalities = (
            {'image': Modality('image', (size, size, 3))} if render else dict(map(self._resized, self.parts))
        )
        self.observation_space = Dict(
            {
                **{f'see_{name}': _space(modality) for name, modality in self.modalities.items()},
                'paid': Box(-np.inf, np.inf, (1 + len(costs),), np.float32),
                'over': Box(0, 1, (2,), np.uint8),
            }
        )
        act = (
            Discrete(self.ours.size)
            if self.ours.kind == 'discrete'
            else Box(self.ours.low, self.ours.high, self.ours.shape)
        )
        self.action_space = Dict({'action': act, 'what': Discrete(3)})

    def _resized(self, part: spaces.Part) -> tuple[str, Modality]:
        modality = part.modality
        if self.size and modality.kind == 'image':
            modality = Modality('image', (self.size, self.size, modality.shape[-1]))
        return part.name, modality

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        observation, _ = self.env.reset(seed=seed)
        return self._answer(observation, (0.0,) * (1 + len(self.costs)), False, False), {}

    def step(self, action: dict) -> tuple[dict, float, bool, bool, dict]:
        if action['what'] == ANEW:
            self.reset()
        elif action['what'] == ACT:
            act = spaces.raw(action['action'], self.ours, self.theirs, self.env.action_space)
            observation, reward, terminated, truncated, info = self.env.step(act)
            paid = (reward, *(self._cost(info, name) for name in self.costs))
            self._answer(observation, paid, terminated, truncated)
        return self.answer, 0.0, False, False, {}

    def _cost(self, info: dict, name: str) -> float:
        if name not in info:
            raise ValueError(f'info has no {name!r} to take as a cost, only {", ".join(info) or "nothing"}')
        return float(info[name])

    def _answer(self, observation: Any, paid: tuple, terminated: bool, truncated: bool) -> dict:
        if self.render_it:
            seen = {'image': np.asarray(self.env.render())}
        else:
            seen = {part.name: part.read(observation) for part in self.parts}
        if self.size:
            pictures = [name for name in seen if self.modalities[name].kind == 'image']
            seen |= {name: spaces.resized(seen[name], self.size) for name in pictures}
        paid = np.array(paid, np.float32)
        if not np.isfinite(paid).all():
            raise ValueError(f'{", ".join(("reward", *self.costs))} came as {paid.tolist()}')
        over = np.array([terminated, truncated], np.uint8)
        self.answer = {**{f'see_{name}': x for name, x in seen.items()}, 'paid': paid, 'over': over}
        return self.answer

    def close(self) -> None:
        self.env.close()


class Lanes(Host):
    """Gymnasium environments side by side. What they observe and take is mapped by `spaces`.

    name     for the sentences
    build    gives one environment; it travels to other processes where `processes`
    Raises ValueError where it cannot be built, or its spaces have no form here.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[], Any],
        batch: int,
        *,
        max_steps: int | None,
        render: bool,
        size: int | None,
        modalities: str,
        costs: str,
        processes: bool,
        openings: float | None = None,
    ):
        wanted = tuple(part.strip() for part in modalities.split(',') if part.strip())
        self.costs = tuple(cost.strip() for cost in costs.split(',') if cost.strip())
        size = size or (RENDERED if render else None)
        self.lane = functools.partial(Lane, build, render, size, wanted, self.costs)
        try:
            one = self.lane()
        except Exception as error:
            said = ' '.join(str(error).split()) or type(error).__name__
            raise ValueError(f'{name} cannot be played: {said}') from error
        spec = Spec(tuple(one.modalities.items()), one.ours, ('reward', 'discount', *self.costs))
        one.close()
        super().__init__(spec, batch, max_steps)
        self.openings, self.processes, self.vector = openings, processes, None

    def _reset(self, seeds_B: np.ndarray) -> Frames:
        if self.vector is None:
            self.vector = side_by_side(self.lane, self.batch, self.processes)
        seen, _ = self.vector.reset(seed=[int(seed) for seed in seeds_B])
        return self._frames(seen)

    def _step(self, action_B: np.ndarray, fresh_B: np.ndarray):
        seen = self._do(action_B, np.where(fresh_B, ANEW, ACT))
        paid = {name: seen['paid'][:, i].copy() for i, name in enumerate(('reward', *self.costs))}
        over_B2 = seen['over'].astype(bool)
        return self._frames(seen), paid, over_B2[:, 0], over_B2[:, 1]

    def _again(self, mask_B: np.ndarray) -> Frames:
        null = np.zeros((self.batch, *self.spec.action.shape), self.spec.action.dtype)
        return self._frames(self._do(null, np.where(mask_B, ANEW, STAY)))

    def _do(self, action_B: np.ndarray, what_B: np.ndarray) -> dict:
        seen, *_ = self.vector.step({'action': action_B, 'what': what_B})
        return seen

    def _frames(self, seen: dict) -> Frames:
        return {name: seen[f'see_{name}'] for name in self.spec.modalities}

    def close(self) -> None:
        if self.vector is not None:
            self.vector.close(**({'terminate': True} if self.processes else {}))
            self.vector = None


def side_by_side(lane: Callable[[], Lane], batch: int, processes: bool) -> gymnasium.vector.VectorEnv:
    """`batch` lanes as one vector environment, here or in processes of their own."""
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

    if not processes:
        return SyncVectorEnv([lane] * batch, autoreset_mode=AutoresetMode.DISABLED)
    # What a process raised is raised here, with its sentence; Gymnasium would print its traceback before.
    gymnasium.logger.min_level = gymnasium.logger.ERROR + 1
    # Not by fork: this process has the threads of JAX.
    return AsyncVectorEnv([lane] * batch, context='forkserver', autoreset_mode=AutoresetMode.DISABLED)


def _space(modality: Modality) -> Box:
    if modality.kind == 'vector':
        return Box(-np.inf, np.inf, modality.shape, np.float32)
    return Box(0, 255, modality.shape, np.uint8)
