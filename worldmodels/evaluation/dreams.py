r"""Dreams to be judged: watch a held-out window for `context` ticks, then imagine `horizon` ticks under its recorded
actions.

$$\hat o_{C+k-1} \sim p(o \mid o_{0:C}, a_{0:C+k-1}), \qquad k = 1, 2, \ldots$$

action-conditional prediction as in Oh et al. (2015, arXiv 1507.08750).

Whatever makes frames is a `Dreamer`, a function (window, seed) -> Dreamed of the window's last `horizon` ticks: a
model, the copying of the last frame seen, or the model's own redrawing of the true frames. Judges cannot tell them
apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels import rng, rollout
from worldmodels.control.random import uniform
from worldmodels.control.translated import ActionMap, Translated
from worldmodels.evaluation.frames import align
from worldmodels.types import Array, Belief, PyTree, Spec, Ticks
from worldmodels.world_model import WorldModel

MEMORY_BUDGET = 256 * 2**20  # bytes of frames, as float32, that one batch of dreams may hold
MOST_AT_ONCE = 64
COPIES = 4  # a frame is held about this often: watched, dreamed, drawn, judged


class Dreamed(NamedTuple):
    """(B, H, ...): raw frames by modality, expected outcomes by name, tokens where there are any."""

    observation: dict[str, Array]
    outcomes: dict[str, Array]
    index_BHN: Array | None = None


Dreamer = Callable[[Ticks, int], Dreamed]


def cut(ticks: Ticks, start: int, stop: int) -> Ticks:
    """Ticks start .. stop - 1 of every row."""
    per_row = {'continues_B', 'example_B'}
    fields = {f.name: getattr(ticks, f.name) for f in dataclasses.fields(ticks)}
    sliced = {k: v if k in per_row else jax.tree.map(lambda x: x[:, start:stop], v) for k, v in fields.items()}
    return Ticks(**sliced)


def batch_size(spec: Spec, starts: int, ticks_in_window: int, budget: int = MEMORY_BUDGET) -> int:
    """Starts dreamed at once: their frames stay within a budget of bytes, and the batches are about equally full."""
    frame = sum(4 * math.prod(m.shape) for _, m in spec.observation)
    most = min(MOST_AT_ONCE, starts, max(1, budget // (COPIES * frame * ticks_in_window)))
    return -(-starts // -(-starts // most))


def batches(windows: Ticks, size: int) -> Iterator[tuple[Ticks, int]]:
    """(rows, how many of them count), always `size` rows so that nothing is compiled twice: the last batch repeats a row."""
    count = windows.is_first.shape[0]
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        yield jax.tree.map(lambda x, rows=rows: x[rows], windows), min(size, count - start)


def keys_for(ticks: Ticks, seed: int, length: int, stream: str = 'evaluate') -> jax.Array:
    """Keys (B, length) that depend on the seed and the row, not on the batch it came in."""
    return rng.per_tick(rng.per_example(rng.stream(seed, stream), 0, jnp.asarray(ticks.example_B)), length)


def copy_last(context: int, horizon: int) -> Dreamer:
    """The baseline of a world in which nothing ever happens: the last frame seen, again and again.

    It foretells no outcome.
    """

    def dream(ticks: Ticks, seed: int) -> Dreamed:
        del seed
        return Dreamed(
            {
                k: np.repeat(np.asarray(x)[:, context - 1 : context], horizon, axis=1)
                for k, x in ticks.observation.items()
            },
            {},
        )

    return dream


def imagined(
    model: WorldModel, variables: PyTree, context: int, horizon: int, *, randomly: bool = False, **dials: Any
) -> Dreamer:
    """The model's dream under the actions of what happened: recorded ones, or those the model finds in the true frames.

    `randomly` takes uniformly random actions in their place. `dials`: sampling options of its transition (steps,
    temperature).
    """

    def dream(ticks: Ticks, seed: int) -> Dreamed:
        keys_BT = keys_for(ticks, seed, context + horizon)
        belief, _ = rollout.observe(model, variables, cut(ticks, 0, context), keys_BT[:, :context])
        if randomly:
            action = uniform(model.actions, keys_for(ticks, seed, horizon, 'random actions'))
        else:
            whole = cut(ticks, 0, context + horizon)
            _, action = align(rollout.actions_of(model, variables, whole), context, horizon)
        _, out = rollout.imagine(model, variables, belief, keys_BT[:, context:], action=action, **dials)
        return Dreamed(out.observation, out.outcomes, out.index_BTN)

    return dream


def played(
    model: WorldModel, variables: PyTree, action_map: ActionMap, context: int, horizon: int, **dials: Any
) -> Dreamer:
    """The dream of a model with latent actions under the recorded real ones, translated by a map."""
    policy = Translated(model)

    def dream(ticks: Ticks, seed: int) -> Dreamed:
        keys_BT = keys_for(ticks, seed, context + horizon)
        belief, _ = rollout.observe(model, variables, cut(ticks, 0, context), keys_BT[:, :context])
        _, action = align(jnp.asarray(ticks.action), context, horizon)
        params = {'variables': variables, 'map': action_map.log_likelihood, 'policy': action}
        start = policy.initial(action.shape[0])
        _, out = rollout.imagine(
            model,
            variables,
            belief,
            keys_BT[:, context:],
            policy=policy,
            policy_params=params,
            policy_state=start,
            **dials,
        )
        return Dreamed(out.observation, out.outcomes, out.index_BTN)

    return dream


def redrawn(model: WorldModel, variables: PyTree, context: int, horizon: int) -> Dreamer:
    """True frames, seen and drawn again by the model's heart: what a perfect dream of this model would look like."""

    @jax.jit
    def draw(variables: PyTree, beliefs: Belief) -> dict[str, jax.Array]:
        return model.apply(variables, beliefs, method='render')

    def dream(ticks: Ticks, seed: int) -> Dreamed:
        ticks = cut(ticks, 0, context + horizon)
        _, trace = rollout.observe(model, variables, ticks, keys_for(ticks, seed, context + horizon))
        z, context_BHMD = jax.tree.map(lambda x: align(x, context, horizon)[1], (trace.z, trace.context_BTMD))
        z, context_XMD = rollout.fold_time((z, context_BHMD))
        frames = draw(variables, Belief(z, None, context_XMD))
        return Dreamed(rollout.unfold_time(frames, ticks.is_first.shape[0]), {})

    return dream


def reader(model: WorldModel, variables: PyTree) -> Callable[[dict[str, Array]], jax.Array] | None:
    """Frames (B, H, ...) -> the tokens (B, H, N) the heart gives them.

    None for a heart whose tokens depend on history.
    """
    if not model.heart.tokenizer or model.heart.classes is None:
        return None

    @jax.jit
    def encode(variables: PyTree, observation: dict[str, jax.Array]) -> jax.Array:
        return model.apply(variables, observation, method='encode').index_BN

    def read(observation: dict[str, Array]) -> jax.Array:
        batch = next(iter(observation.values())).shape[0]
        flat = rollout.fold_time(jax.tree.map(jnp.asarray, observation))
        return rollout.unfold_time(encode(variables, flat), batch)

    return read
