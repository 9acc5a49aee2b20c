"""Worlds that live outside JAX: emulators and Gymnasium environments, many side by side, with the names of `worlds.World`.

    world.reset(key)             -> observation
    world.step(action_B, key)    -> observation, outcomes, is_terminal_B, is_last_B

All in numpy. The state is the emulator's own, so nothing functional is left of it: what a world does is a function of
the key of its last reset and of the actions since, where the emulator keeps to its seed. A lane whose frame was the
last of an episode begins anew at the next step, whatever the action: that step gives an opening, which costs no frame
and hides none (Gymnasium's next-step reset, and the order of RLDS).

`interaction.play` moves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels import rng
from worldmodels.types import Spec

Frames = dict[str, np.ndarray]
TRIES = 500  # openings refused in a row before it is clear that there are no others


class TooFewOpenings(ValueError):
    """`Host.keep` refused too many openings in a row."""


class Host:
    """A batched world in numpy. A family gives `_reset`, `_step`, `_again` and `close`.

    spec, batch, max_steps    as any world's
    openings    how many there are to draw from, None where it is not known; infinite where no two are ever the same
    keep        says of an opening, {modality: array of one lane}, whether an episode may begin there; None: any may
    refused     openings refused so far
    """

    openings: float | None = None

    def __init__(self, spec: Spec, batch: int, max_steps: int | None):
        self.spec, self.batch, self.max_steps = spec, batch, max_steps
        self.keep: Callable[[Frames], bool] | None = None
        self.refused = 0
        self._age_B = np.zeros((batch,), np.int64)
        self._over_B = np.zeros((batch,), bool)

    def reset(self, key: jax.Array) -> Frames:
        """Every lane at an opening that follows from the key."""
        bits_B = rng.draw(lambda k: jax.random.bits(k, (), jnp.uint32), rng.per_example(key, 0, jnp.arange(self.batch)))
        observation = self._reset((np.asarray(bits_B) >> 1).astype(np.int64))  # 31 bits: what every emulator takes
        self._age_B[:] = 0
        self._over_B[:] = False
        return self._kept(observation, np.ones((self.batch,), bool))

    def step(self, action_B: np.ndarray, key: Any = None) -> tuple[Frames, Frames, np.ndarray, np.ndarray]:
        """One action in every lane, or the opening that follows an ending (outcomes then stand for nothing)."""
        del key  # what chance there is follows from the seed of the reset
        fresh_B = self._over_B
        observation, paid, terminated_B, truncated_B = self._step(np.asarray(action_B), fresh_B)
        self._age_B = np.where(fresh_B, 0, self._age_B + 1)
        is_terminal_B = terminated_B & ~fresh_B
        is_last_B = (is_terminal_B | truncated_B) & ~fresh_B
        if self.max_steps is not None:
            is_last_B = is_last_B | (self._age_B >= self.max_steps)
        outcomes = {**paid, 'discount': 1.0 - is_terminal_B}
        outcomes = {name: np.asarray(outcomes[name], np.float32) for name in self.spec.outcomes}
        if fresh_B.any():
            observation = self._kept(observation, fresh_B)
        self._over_B = is_last_B
        return observation, outcomes, is_terminal_B, is_last_B

    def truth(self) -> dict:
        """What is really there, as far as the world tells: nothing."""
        return {}

    def close(self) -> None:
        """Ends what runs beside this process."""

    def _kept(self, observation: Frames, fresh_B: np.ndarray) -> Frames:
        """The observation, with openings drawn anew where `keep` refuses them."""
        if self.keep is None:
            return observation
        for _ in range(TRIES):
            wrong_B = np.array(
                [f and not self.keep({k: x[i] for k, x in observation.items()}) for i, f in enumerate(fresh_B)]
            )
            if not wrong_B.any():
                return observation
            self.refused += int(wrong_B.sum())
            observation = self._again(wrong_B)
        raise TooFewOpenings(f'{TRIES} in a row were refused')

    def draw(self, key: jax.Array, count: int) -> Iterator[Frames]:
        """At least `count` openings, a batch at a time. The lanes are left at the last of them."""
        observation = self.reset(key)
        for drawn in range(0, count, self.batch):
            if drawn:
                observation = self._again(np.ones((self.batch,), bool))
            yield observation

    def _reset(self, seeds_B: np.ndarray) -> Frames:
        raise NotImplementedError

    def _step(self, action_B: np.ndarray, fresh_B: np.ndarray) -> tuple[Frames, Frames, np.ndarray, np.ndarray]:
        """Observation, outcomes but the discount, terminated, truncated; lanes in `fresh_B` begin anew instead."""
        raise NotImplementedError

    def _again(self, mask_B: np.ndarray) -> Frames:
        """Another opening for the lanes in the mask; what the others see now for the others."""
        raise NotImplementedError
