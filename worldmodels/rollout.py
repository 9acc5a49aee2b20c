r"""Moving a model through time: `observe` what happened, `imagine` what would, `interact` with a world.

$$b_t = \mathrm{tick}(b_{t-1}, a_{t-1}, o_t), \qquad b_t = \mathrm{tick}(b_{t-1}, a_{t-1})$$

The interactive loop of *From Masks to Worlds* (Bai et al., 2025, arXiv 2510.20668, section 2.2), open and closed.

Nothing else does. All three are pure, take params explicitly and are compiled once per (model, shapes).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from worldmodels import rng
from worldmodels.filter import Posterior
from worldmodels.interaction import begin, interact, prepare
from worldmodels.remat import apply as rematerialised
from worldmodels.types import Belief, Latent, PyTree, Ticks
from worldmodels.world_model import WorldModel

Policy = Callable[..., tuple[jax.Array, PyTree, PyTree]]


@flax.struct.dataclass
class Departure:
    """Where each tick left from: the belief's visible half and the action taken there, initial at resets. (B, T, ...)."""

    z: Latent
    action_BTA: jax.Array
    context_BTMD: jax.Array


@flax.struct.dataclass
class Trace:
    """An observed sequence, leaves (B, T, ...). `prediction` is None unless the filter had to compute it."""

    departure: Departure
    z: Latent
    context_BTMD: jax.Array
    posterior: Posterior
    prediction: PyTree
    features: PyTree


@flax.struct.dataclass
class Dream:
    """An imagined sequence, leaves (B, T, ...): raw frames by modality, expected outcomes, tokens, actions taken, extras."""

    observation: dict[str, jax.Array]
    outcomes: dict[str, jax.Array]
    index_BTN: jax.Array | None
    action: jax.Array
    extras: PyTree


def fold_time(tree: PyTree) -> PyTree:
    """(B, T, ...) -> (B * T, ...)."""
    return jax.tree.map(lambda x: x.reshape((x.shape[0] * x.shape[1], *x.shape[2:])), tree)


def unfold_time(tree: PyTree, batch: int) -> PyTree:
    """(B * T, ...) -> (B, T, ...)."""
    return jax.tree.map(lambda x: x.reshape((batch, -1, *x.shape[1:])), tree)


def swap(tree: PyTree) -> PyTree:
    """(B, T, ...) <-> (T, B, ...)."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


@partial(jax.jit, static_argnames=('model', 'execution', 'corruption', 'remat'))
def observe(
    model: WorldModel,
    variables: PyTree,
    ticks: Ticks,
    keys_BT: jax.Array,
    belief: Belief | None = None,
    execution: str = 'auto',
    corruption: float = 0.0,
    remat: str = 'none',
) -> tuple[Belief, Trace]:
    """Follows what happened: the belief after the last tick, and the trace of all of them.

    Args:
      model, variables: the world model.
      ticks: experience (B, T).
      keys_BT: one key per example and tick.
      belief: carried in from the row's previous segment; None starts anew whatever `continues_B` says.
      execution: 'scan' follows tick by tick; 'parallel' encodes and remembers all ticks at once, which only a filter that
        reads the frame alone allows; 'auto' takes the parallel one where it can. They mean the same.
      corruption: of what memory and departures are given of each frame (`heart.corruption`), for training; the trace's z and
        posterior, and the z of the belief returned, are as they were seen.
      remat: what each tick of the scan keeps for its gradient (`remat.POLICIES`).

    Raises:
      ValueError: 'parallel' with a filter that reads more than the frame.
    """
    parallel = model.filter.reads == 'frame'
    if execution == 'parallel' and not parallel:
        raise ValueError(
            f"execution='parallel' was asked for, but filter.reads='{model.filter.reads}' needs the tick before: use 'scan'."
        )
    B, T = ticks.is_first.shape
    carried = belief is not None
    reset_BT = ticks.reset_BT if carried else ticks.reset_BT.at[:, 0].set(True)
    action_BTA = model.actions.vector(actions_of(model, variables, ticks, belief))
    action_BTA = jnp.where(reset_BT[..., None], 0.0, action_BTA)
    features = unfold_time(model.apply(variables, fold_time(ticks.observation), method='encode'), B)
    start = _cleaned(belief, reset_BT[:, 0]) if carried else model.apply(variables, B, method='initial')
    if parallel and execution != 'scan':

        def follow_all(m: WorldModel) -> tuple[Posterior, Latent, PyTree, jax.Array]:
            nothing_BMD = jnp.zeros((B * T, 0, 1), jnp.float32)
            posterior = m.perceive(fold_time(features), nothing_BMD, None, keys_BT.reshape(-1))
            posterior = unfold_time(posterior, B)
            h = start.h if carried else None
            z = m.corrupted(posterior.latent, corruption, keys_BT)
            return posterior, z, *m.memory.sequence(h, z, action_BTA, reset_BT)

        posterior, remembered, h, context_BTMD = model.apply(variables, method=follow_all)
        prediction = None
    else:

        def follow(belief: Belief, inputs: PyTree) -> tuple[Belief, PyTree]:
            belief, out = model.apply(variables, belief, *inputs, corruption, method='follow')
            return belief, (belief.z, belief.context_BMD, out)

        inputs = swap((action_BTA, keys_BT, features, reset_BT))
        belief, outs = jax.lax.scan(rematerialised(follow, remat, looped=True), start, inputs)
        h = belief.h
        remembered, context_BTMD, (posterior, prediction) = swap(outs)
    z = posterior.latent
    belief = Belief(jax.tree.map(lambda x: x[:, -1], z), h, context_BTMD[:, -1])
    before = _before(model, variables, start, (remembered, context_BTMD), reset_BT)
    trace = Trace(Departure(before[0], action_BTA, before[1]), z, context_BTMD, posterior, prediction, features)
    return belief, trace


def frames_before(model: WorldModel, variables: PyTree, ticks: Ticks, belief: Belief | None = None) -> PyTree:
    """The frame that stood before each tick's, (B, T, ...) by modality, raw.

    Before the first tick of a row stands the belief's own drawing of what it saw last, and its own frame where no belief is
    carried in: nothing led to it.
    """
    first = {k: jnp.asarray(x)[:, 0] for k, x in ticks.observation.items()}
    if belief is not None:
        first = model.apply(variables, belief, method='render')
    shift = lambda first, x: jnp.concatenate([first[:, None], jnp.asarray(x)[:, :-1]], 1)
    return {k: shift(first[k], x) for k, x in ticks.observation.items()}


def actions_of(model: WorldModel, variables: PyTree, ticks: Ticks, belief: Belief | None = None) -> jax.Array:
    """The raw actions (B, T, ...) that led to the ticks' frames, as the model is told of them: recorded, or found in frames.

    Found ones carry no gradient; those before an opening are null.
    """
    if not model.action.latent:
        return jnp.asarray(ticks.action)
    before = frames_before(model, variables, ticks, belief)
    code_X = model.apply(variables, fold_time(before), fold_time(ticks.observation), method='infer')
    reset_BT = ticks.reset_BT if belief is not None else ticks.reset_BT.at[:, 0].set(True)
    return jnp.where(reset_BT, -1, jax.lax.stop_gradient(code_X).reshape(reset_BT.shape))


def _cleaned(belief: Belief, reset_B: jax.Array) -> Belief:
    """A belief without the numbers of rows that are reset. No row sees them, but a gradient's 0 times NaN would be NaN."""

    def clean(x: jax.Array) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return jnp.where(reset_B.reshape(reset_B.shape + (1,) * (x.ndim - 1)), 0, x)

    return jax.tree.map(clean, belief)


def _before(model: WorldModel, variables: PyTree, start: Belief, arrivals: PyTree, reset_BT: jax.Array) -> PyTree:
    """Shift arrivals (B, T, ...) by one tick: what stood before each, initial at resets."""
    initial = model.apply(variables, reset_BT.shape[0], method='initial')

    def shift(first: jax.Array, initial: jax.Array, x: jax.Array) -> jax.Array:
        shifted = jnp.concatenate([first[:, None].astype(x.dtype), x[:, :-1]], 1)
        initial = jnp.broadcast_to(initial[:, None].astype(x.dtype), x.shape)
        return jnp.where(reset_BT.reshape(reset_BT.shape + (1,) * (x.ndim - 2)), initial, shifted)

    return jax.tree.map(shift, (start.z, start.context_BMD), (initial.z, initial.context_BMD), arrivals)


@partial(jax.jit, static_argnames=('model', 'policy', 'dials'))
def _imagine(model, variables, belief, action, keys_BT, policy, policy_params, policy_state, is_first_B, dials):
    def step(carry, inputs):
        belief, policy_state, first = carry
        keys_B, recorded = inputs
        act_B, tick_B = rng.split(keys_B, 2)
        if policy is None:
            action, extras = recorded, None
        else:
            action, policy_state, extras = policy(policy_params, belief, policy_state, act_B)
        vector_BA = model.actions.vector(action)
        belief, tick = model.apply(variables, belief, vector_BA, tick_B, is_first_B=first, method='tick', **dict(dials))
        frame = model.apply(variables, belief, method='render')
        first = None if first is None else jnp.zeros_like(first)
        return (belief, policy_state, first), (frame, tick.outcomes, belief.z.index_BN, action, extras)

    inputs = swap((keys_BT, action))
    (belief, policy_state, _), outs = jax.lax.scan(step, (belief, policy_state, is_first_B), inputs)
    return belief, policy_state, Dream(*swap(outs))


def imagine(
    model: WorldModel,
    variables: PyTree,
    belief: Belief,
    keys_BT: jax.Array,
    *,
    action: jax.Array | None = None,
    policy: Policy | None = None,
    policy_params: PyTree = None,
    policy_state: PyTree = None,
    is_first_B: jax.Array | None = None,
    **dials: Any,
) -> tuple[Belief, Dream]:
    """Dreams T ticks on from a belief, under recorded actions or a policy.

    Args:
      model, variables: the world model.
      belief: where the dream starts, for example what `observe` returned.
      keys_BT: one key per example and tick; T is the length of the dream.
      action: raw actions (B, T, ...) of `model.actions`, action[:, t] being taken before the t-th dreamed frame. Or
      policy: policy(params, belief, state, keys_B) -> (raw action, state, extras).
      is_first_B: where the first dreamed frame is to be an opening, drawn from the prior over openings.
      **dials: sampling options of the transition, static (steps=8, temperature=1.0).

    Raises:
      ValueError: neither or both of action and policy given.
    """
    if (action is None) == (policy is None):
        raise ValueError('imagine needs either recorded actions (action=) or a policy (policy=), and not both.')
    if action is not None and action.shape[:2] != keys_BT.shape:
        raise ValueError(
            f'actions are {action.shape[:2]} (batch, ticks) but keys are {keys_BT.shape}: give one key a tick.'
        )
    dials = tuple(sorted(dials.items()))
    belief, _, dream = _imagine(
        model, variables, belief, action, keys_BT, policy, policy_params, policy_state, is_first_B, dials
    )
    return belief, dream


__all__ = [
    'Departure',
    'Dream',
    'Policy',
    'Trace',
    'actions_of',
    'begin',
    'fold_time',
    'frames_before',
    'imagine',
    'interact',
    'observe',
    'prepare',
    'swap',
    'unfold_time',
]
