r"""What a world model is trained to do: the losses of every part, one value per example and tick.

$$\mathcal L = \sum_i w_i \frac{\sum_{b,t} m^i_{bt}\,\ell^i_{bt}}{\sum_{b,t} m^i_{bt}}$$

with the weights of `train.weights`, as DreamerV3's world model is trained (Hafner et al., 2023, arXiv 2301.04104).

Each loss is a pair (loss_BT, mask_BT); the training step averages over the mask across all devices and weighs by name.
Which losses exist follows from the parts, so their names are known from `eval_shape` before any compute is spent.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from worldmodels import rng
from worldmodels.remat import apply as rematerialised
from worldmodels.rollout import Trace, fold_time, frames_before, observe, unfold_time
from worldmodels.training import signatures
from worldmodels.types import Belief, PyTree, Ticks
from worldmodels.world_model import PARTS, WorldModel

Losses = dict[str, tuple[jax.Array, jax.Array]]


def losses(
    model: WorldModel,
    variables: PyTree,
    ticks: Ticks,
    belief: Belief | None,
    keys_B: jax.Array,
    parts: tuple[str, ...] = PARTS,
    corruption: float = 0.0,
    remat: str = 'none',
) -> tuple[Losses, Belief | None, dict[str, tuple[jax.Array, jax.Array]]]:
    """All losses of one batch.

    Args:
      ticks: experience (B, T).
      belief: carried from the rows' previous segments, or None.
      keys_B: one key per example.
      parts: the parts being trained. A tokenizer and latent actions can be trained without the others: no memory, no
        transition. Left out they are frozen, and have no loss of their own.
      corruption: of what the model goes on from (`heart.corruption`), never of what it is to foretell or to draw.
      remat: what is kept for the gradient (`remat.POLICIES`).

    Returns:
      losses by name, the belief after the last tick (None when only the heart is trained), metrics as (sum, count), and
      under signatures.SUMS the sums of `signatures.sums`.
    """
    B, T = ticks.is_first.shape
    watch_B, heart_B, transition_B, memory_B, action_B = rng.split(keys_B, 5)
    everywhere_BT = jnp.ones((B, T), jnp.float32)
    out: Losses = {}
    observation = fold_time(ticks.observation)
    if model.heart.tokenizer and 'heart' in parts:
        keys_BT = rng.per_tick(heart_B, T).reshape(-1)
        code = lambda variables: model.apply(variables, method=lambda m: m.heart.autoencode(observation, keys_BT))
        terms = rematerialised(code, remat)(variables)
        out |= {k: (unfold_time(v, B), everywhere_BT) for k, v in terms.items()}
    carried = belief is not None
    metrics: dict[str, tuple[jax.Array, jax.Array]] = {}
    if model.action.latent and 'action' in parts:
        before = fold_time(frames_before(model, variables, ticks))
        keys_BT = rng.per_tick(action_B, T).reshape(-1)
        find = lambda m: m.action.losses(before, observation, keys_BT)
        found = lambda variables: model.apply(variables, method=find, mutable=['metrics'])
        terms, sown = rematerialised(found, remat)(variables)
        # What led to a row's first frame is not among its frames.
        led_BT = (~ticks.reset_BT.at[:, 0].set(True)).astype(jnp.float32)
        out |= {k: (unfold_time(v, B), led_BT) for k, v in terms.items()}
        metrics |= _sown(sown, 'action')
    if out and set(parts) <= {'heart', 'action'} and (model.heart.tokenizer or 'heart' not in parts):
        return out, None, metrics

    watch = lambda *given: observe(model, *given, 'auto', corruption, remat)
    belief, trace = rematerialised(watch, remat)(variables, ticks, rng.per_tick(watch_B, T), belief)
    folded: Trace = fold_time(trace)
    keys_BT = rng.per_tick(transition_B, T).reshape(-1)

    # An opening has the prior over openings to learn; a segment cut out of an episode has nothing before it to learn from.
    reset_BT = ticks.reset_BT if carried else ticks.reset_BT.at[:, 0].set(True)

    def terms(m: WorldModel, trace: Trace, folded: Trace) -> tuple[dict, dict, dict, dict]:
        z, action, context = folded.departure.z, folded.departure.action_BTA, folded.departure.context_BTMD
        prediction = folded.prediction
        if prediction is None:
            prediction = m.predict(z, action, context)
        posterior = folded.posterior if m.transition.likelihood else jax.lax.stop_gradient(folded.posterior)
        advance = m.transition.loss(prediction, posterior, keys_BT)
        outputs = m.outcomes(z, context, action, folded.z, folded.context_BTMD)
        paid = m.outcome.losses(outputs, fold_time(dict(ticks.outcomes)))
        seen = {}
        if not m.heart.tokenizer:
            seen = m.heart.losses(m.decode(folded.z, folded.context_BTMD), observation)
        kept = {}
        if 'memory' in parts:
            remembered = (trace.context_BTMD, trace.z, trace.departure.action_BTA, reset_BT)
            kept = m.memory.losses(*remembered, rng.per_tick(memory_B, T))
        return advance, paid, seen, kept

    judge = lambda variables, *traces: model.apply(variables, *traces, method=terms, mutable=['metrics'])
    (advance, paid, seen, kept), sown = rematerialised(judge, remat)(variables, trace, folded)
    follows_BT = (~reset_BT | ticks.is_first).astype(jnp.float32)
    paid_BT = (~reset_BT).astype(jnp.float32)
    out |= {k: (unfold_time(v, B), follows_BT) for k, v in advance.items()}
    out |= {k: (unfold_time(v, B), paid_BT) for k, v in paid.items()}
    out |= {k: (unfold_time(v, B), everywhere_BT) for k, v in seen.items()}
    out |= kept
    watched = signatures.sums(trace.context_BTMD, belief, model.memory.use(belief.h))
    return out, belief, metrics | _sown(sown, 'transition', 'memory') | {signatures.SUMS: watched}


def _sown(sown: PyTree, *parts: str) -> dict[str, tuple[jax.Array, jax.Array]]:
    found = flatten_dict({part: sown.get('metrics', {}).get(part, {}) for part in parts})
    return {path[-1]: pair[0] for path, pair in found.items()}
