"""A policy meets a world: the loop π, then the world's step, emitting RLDS records.

One compiled scan (`interact`) where the world is a function, one Python loop around the compiled policy (`play`) where
it lives outside JAX. Both give the same records.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels import rng
from worldmodels.types import Array, PyTree, select


@flax.struct.dataclass
class Moment:
    """The present of B worlds, before anything is done about it. Leaves (B, ...).

    action    the raw action that led here, null at an opening
    outcomes  what it paid; at an opening 0, and discount 1
    truth     what the world says is really there
    """

    observation: dict[str, Array]
    action: Array
    outcomes: dict[str, Array]
    is_first: Array
    is_last: Array
    is_terminal: Array
    truth: dict[str, Array]


@flax.struct.dataclass
class Playing:
    """What goes from one call of `interact` to the next."""

    state: PyTree
    moment: Moment
    policy_state: PyTree
    tick: Array


@functools.partial(jax.jit, static_argnames=('world', 'size'))
def prepare(world: Any, key: jax.Array, size: int) -> PyTree:
    """A pool of at least `size` starts: {'state', 'observation', 'truth'}, leaves (P, ...), P a multiple of the batch.

    Worlds reset here and nowhere else: a reset inside the loop would be compiled into it and run at every step.
    """

    def one(_, key):
        state, observation = world.reset(key)
        return None, {'state': state, 'observation': observation, 'truth': world.truth(state)}

    rounds = -(-size // world.batch)
    _, pool = jax.lax.scan(one, None, jax.random.split(key, rounds))
    return jax.tree.map(lambda x: x.reshape((x.shape[0] * x.shape[1], *x.shape[2:])), pool)


def begin(world: Any, policy: Any, key: jax.Array, pool: PyTree) -> Playing:
    """Every lane at a start drawn from the pool."""
    state, moment = _opening(world, pool, rng.per_example(key, 0, jnp.arange(world.batch)))
    return Playing(state, moment, policy.initial(world.batch), jnp.int32(0))


@functools.partial(jax.jit, static_argnames=('world', 'policy', 'steps'))
def interact(
    world: Any, policy: Any, params: PyTree, key: jax.Array, steps: int, pool: PyTree, playing: Playing | None = None
) -> tuple[Playing, dict[str, Any]]:
    """`steps` frames of each of the world's lanes under a policy (`worldmodels.control`), from a pool (`prepare`).

    Returns what a next call goes on from, and records with leaves (steps, B, ...), one per frame, in RLDS order:
    observation, action (the one taken here), the world's outcomes (what it paid), is_first, is_last, is_terminal,
    extras. A frame with is_last has zeros for action and outcomes; the lane's next record is an opening drawn from the
    pool. Lane by lane the draws depend on (key, tick, lane) alone; interacting twice with the carry is interacting
    once for as long.
    """
    act_key, world_key, start_key = rng.split(key, 3)
    lane_B = jnp.arange(world.batch)

    def tick(playing: Playing, _):
        moment, t = playing.moment, playing.tick
        policy_state = select(moment.is_first, policy.initial(world.batch), playing.policy_state)
        action, policy_state, extras = policy(params, moment, policy_state, rng.per_example(act_key, t, lane_B))
        state, observation, outcomes, is_terminal_B, is_last_B = world.step(
            playing.state, action, jax.random.fold_in(world_key, t)
        )
        blank = lambda x: select(moment.is_last, jnp.zeros_like(x), x)
        record = _record(moment, jax.tree.map(blank, (action, outcomes)), extras)
        false_B = jnp.zeros((world.batch,), bool)
        went_on = Moment(observation, action, outcomes, false_B, is_last_B, is_terminal_B, world.truth(state))
        fresh_state, opening = _opening(world, pool, rng.per_example(start_key, t, lane_B))
        state, moment = select(moment.is_last, (fresh_state, opening), (state, went_on))
        return Playing(state, moment, policy_state, t + 1), record

    if playing is None:
        playing = begin(world, policy, jax.random.fold_in(start_key, 1), pool)
    return jax.lax.scan(tick, playing, None, steps)


def _opening(world: Any, pool: PyTree, keys_B: jax.Array) -> tuple[PyTree, Moment]:
    size = jax.tree.leaves(pool)[0].shape[0]
    chosen_B = rng.draw(lambda key: jax.random.randint(key, (), 0, size), keys_B)
    start = jax.tree.map(lambda x: x[chosen_B], pool)
    true_B, false_B = jnp.ones(chosen_B.shape, bool), jnp.zeros(chosen_B.shape, bool)
    moment = Moment(
        observation=start['observation'],
        action=jnp.asarray(world.spec.action.null(chosen_B.shape)),
        outcomes={name: jnp.full(chosen_B.shape, name == 'discount', jnp.float32) for name in world.spec.outcomes},
        is_first=true_B,
        is_last=false_B,
        is_terminal=false_B,
        truth=start['truth'],
    )
    return start['state'], moment


def _record(moment: Moment, done: tuple[Array, dict[str, Array]], extras: Any) -> dict[str, Any]:
    """A moment in RLDS form: with what was done in it, (action, outcomes), blank where it was the last."""
    action, outcomes = done
    return {
        'observation': moment.observation,
        'action': action,
        **outcomes,
        'is_first': moment.is_first,
        'is_last': moment.is_last,
        'is_terminal': moment.is_terminal,
        'extras': extras,
    }


class WorldRaised(Exception):
    """What a world outside JAX raised, and when. `error` is what it was, `tick` the step (-1: the reset)."""

    def __init__(self, error: Exception, tick: int):
        super().__init__(f'{type(error).__name__}: {error}')
        self.error, self.tick = error, tick


def play(
    world: Any,
    policy: Any,
    params: PyTree,
    key: jax.Array,
    steps: int,
    playing: Playing | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> tuple[Playing, dict[str, Any]]:
    """`interact` with a world outside JAX (`worlds.host`): the same policies, compiled once, and the same records, in numpy.

    A lane that has ended begins anew inside the world, so there is no pool; `Playing.state` is empty, as the world keeps
    its own. `advance(1)` is called after every tick.

    Raises WorldRaised where the world raises.
    """
    act_key, world_key, start_key = rng.split(key, 3)
    if playing is None:
        observation = _ask(world.reset, -1, jax.random.fold_in(start_key, 1))
        policy_state = jax.tree.map(jnp.asarray, policy.initial(world.batch))
        playing = Playing((), _host_opening(world, observation), policy_state, np.int32(0))
    moment, policy_state, first = playing.moment, playing.policy_state, int(playing.tick)
    null_B, kept = _host_opening(world, moment.observation), None
    for i in range(steps):
        t = np.int32(first + i)
        action, policy_state, extras, step_key = _act(policy, params, moment, policy_state, act_key, world_key, t)
        action = np.asarray(action)
        observation, outcomes, is_terminal_B, is_last_B = _ask(world.step, first + i, action, step_key)
        blank = lambda x, last_B=moment.is_last: _where(last_B, np.zeros_like(x), x)
        record = _record(moment, jax.tree.map(blank, (action, outcomes)), extras)
        if kept is None:
            # Lanes first: who keeps episodes reads them lane by lane.
            kept = jax.tree.map(lambda x: np.empty((world.batch, steps, *x.shape[1:]), x.dtype), record)
        jax.tree.map(lambda all_BT, x_B, i=i: all_BT.__setitem__((slice(None), i), x_B), kept, record)
        over_B = moment.is_last
        moment = Moment(
            observation,
            _where(over_B, null_B.action, action),
            {name: np.where(over_B, null_B.outcomes[name], value) for name, value in outcomes.items()},
            over_B,
            is_last_B,
            is_terminal_B,
            world.truth(),
        )
        advance(1)
    playing = Playing((), moment, policy_state, np.int32(first + steps))
    return playing, jax.tree.map(lambda x_BT: np.swapaxes(x_BT, 0, 1), kept)


@functools.partial(jax.jit, static_argnames=('policy',))
def _act(policy, params, moment, policy_state, act_key, world_key, t):
    batch = moment.is_first.shape[0]
    policy_state = select(moment.is_first, policy.initial(batch), policy_state)
    keys_B = rng.per_example(act_key, t, jnp.arange(batch))
    action, policy_state, extras = policy(params, moment, policy_state, keys_B)
    return action, policy_state, extras, jax.random.fold_in(world_key, t)


def _ask(method: Callable, tick: int, *args) -> Any:
    try:
        return method(*args)
    except Exception as error:
        raise WorldRaised(error, tick) from error


def _host_opening(world: Any, observation: dict[str, np.ndarray]) -> Moment:
    true_B, false_B = np.ones((world.batch,), bool), np.zeros((world.batch,), bool)
    outcomes = {name: np.full((world.batch,), name == 'discount', np.float32) for name in world.spec.outcomes}
    action = world.spec.action.null((world.batch,))
    return Moment(observation, action, outcomes, true_B, false_B, false_B, world.truth())


def _where(mask_B: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return np.where(mask_B.reshape(mask_B.shape + (1,) * (old.ndim - 1)), new, old)
