"""Atari 2600 by the Arcade Learning Environment's own vector environment (ale-py, whose wheel holds the games).

Frames as in Machado et al. (2018, arXiv 1709.06009): an action is held for 4 frames of the console, what is seen is the
maximum of the last two, resized by area. What differs is an option, and an episode ends with the game, never with a
life: a life lost is a cost, `life_lost`.
"""

from __future__ import annotations

import functools

import numpy as np

from worldmodels.types import ActionSpace, Modality, Spec
from worldmodels.worlds.host import Frames, Host
from worldmodels.worlds.options import Option

PACKAGES = {'ale_py': "pip install -e '.[worlds]'"}
OPTIONS = {
    'size': Option(64, minimum=8, help='pixels of a side'),
    'gray': Option(False, help='one channel instead of three'),
    'frameskip': Option(4, minimum=1, help='frames of the console that an action is held'),
    'sticky': Option(0.0, minimum=0, help='probability that a frame repeats the action before (ALE v5: 0.25)'),
    'actions': Option('minimal', ('minimal', 'full'), help="the game's own actions, or all 18"),
    'noops': Option(30, minimum=0, help='an episode opens after at most as many frames without action'),
    'max_steps': Option(27_000, minimum=1, help='actions after which time is out (108,000 frames)'),
}


def names() -> list[str]:
    """Every game, as in 'MsPacman'."""
    return sorted(_roms())


def options(name: str) -> dict[str, Option]:
    del name
    return OPTIONS


def load_batch(name: str, batch: int, **chosen) -> Atari:
    """`batch` consoles with one game."""
    return Atari(_roms()[name], batch, **chosen)


@functools.cache
def _roms() -> dict[str, str]:
    from ale_py import ALEInterface, roms

    # Four are for two players: the console given one of them ends the process.
    ids = (rom for rom in roms.get_all_rom_ids() if ALEInterface.isSupportedROM(str(roms.get_rom_path(rom))))
    return {rom.title().replace('_', ''): rom for rom in ids}


class Atari(Host):
    """Consoles side by side. Modality 'image' (size, size, 3 or 1); outcomes reward (points), discount, life_lost."""

    def __init__(
        self,
        rom: str,
        batch: int,
        *,
        size: int,
        gray: bool,
        frameskip: int,
        sticky: float,
        actions: str,
        noops: int,
        max_steps: int,
    ):
        import ale_py
        from ale_py.vector_env import AtariVectorEnv
        from gymnasium.vector import AutoresetMode

        if sticky > 1:
            raise ValueError(f'sticky={sticky}: give a probability.')
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # it greets on every start
        self.consoles = AtariVectorEnv(
            rom,
            batch,
            max_num_frames_per_episode=2**31 - 1,  # counted here
            repeat_action_probability=sticky,
            full_action_space=actions == 'full',
            autoreset_mode=AutoresetMode.NEXT_STEP,
            img_height=size,
            img_width=size,
            grayscale=gray,
            stack_num=1,
            frameskip=frameskip,
            noop_max=noops,
            reward_clipping=False,
            use_fire_reset=False,
        )
        named = tuple(action.name.lower() for action in self.consoles.ale.get_action_set())
        picture = Modality('image', (size, size, 1 if gray else 3))
        action = ActionSpace('discrete', len(named), named)
        super().__init__(Spec((('image', picture),), action, ('reward', 'discount', 'life_lost')), batch, max_steps)
        self._lives_B = np.zeros((batch,), np.int64)
        self._ended_B = np.zeros((batch,), bool)

    def _reset(self, seeds_B: np.ndarray) -> Frames:
        self._ended_B[:] = False
        return self._opened(*self.consoles.reset(seed=seeds_B))

    def _step(self, action_B: np.ndarray, fresh_B: np.ndarray):
        seen, reward_B, terminated_B, truncated_B, info = self.consoles.step(action_B.astype(np.int32))
        # Whose game is over begins anew by itself; whose time ran out is told to.
        told_B = fresh_B & ~self._ended_B
        lives_B = info['lives'].astype(np.int64)
        paid = {'reward': reward_B, 'life_lost': (lives_B < self._lives_B) & ~fresh_B}
        self._lives_B, self._ended_B = lives_B, (terminated_B | truncated_B) & ~told_B
        observation = self._again(told_B) if told_B.any() else self._frames(seen)
        return observation, paid, terminated_B, truncated_B

    def _again(self, mask_B: np.ndarray) -> Frames:
        return self._opened(*self.consoles.reset(options={'reset_mask': mask_B}))

    def _opened(self, seen: np.ndarray, info: dict) -> Frames:
        self._lives_B = info['lives'].astype(np.int64)
        return self._frames(seen)

    def _frames(self, seen: np.ndarray) -> Frames:
        # (B, 1, H, W, 3), or (B, 1, H, W) in gray: the axis of one is ALE's stack of frames.
        frames = seen[:, 0]
        return {'image': np.array(frames if frames.ndim == 4 else frames[..., None])}
