r"""What a memory is worth to the next prediction: the same ticks with its past intact, reset, and another episode's.

$$\mathcal A(c) = -\frac{1}{n} \sum_{b,t} \ln p(z_{b,t+1} \mid z_{b,t}, a_{b,t}, c_{b,t}),
\qquad c_{b,t} = f(\tilde h_{b,t}, z_{b,t}, a_{b,t-1}), \quad \tilde h_{b,t} \in \{h_{b,t-1},\ h_0,\ h_{b-1,t-1}\}$$

Only what was remembered before the present frame changes; that frame is remembered in all three, and frame, action and
target stay. So each context is one that the memory shows at some time: after a reset that of an opening with this frame. A
memory that holds what the next frame depends on is better intact than reset, and worse than reset where its past is
another's: that one remembers something else, and is believed. A transition without likelihood is judged by its training loss
at fixed keys, the same three times, and the report says so. It asks of the memory of *From Masks to Worlds* (Bai et al.,
2025, arXiv 2510.20668, section 2.2) whether the rest of the model leans on it.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.evaluation import intervals, questions, recall
from worldmodels.evaluation.examine import Trained
from worldmodels.filter import Posterior
from worldmodels.rollout import Trace, fold_time, swap, unfold_time
from worldmodels.types import Latent, PyTree
from worldmodels.world_model import WorldModel

CONDITIONS = ('intact', 'reset', 'swapped')


def run(trained: Trained, delay: int = 16, episodes: int = 200, seed: int = 0) -> dict[str, Any]:
    """The report of one model, for JSON; `columns` is its row in a table.

    Of every condition: `nll` (nats a frame) and `right` (share of frames whose most likely tokens are all true), over the
    ticks that answer a question and over all but openings. reset_above_intact and swapped_above_reset are the differences in
    nll with the bounds of their 95 percent intervals over episodes.

    Raises ValueError for a model or world whose recall cannot be judged.
    """
    recall.check(trained, (delay,), episodes)
    played = questions.play(trained.config.world, delay, episodes, seed)
    sums = measure(trained.model, trained.variables, played)
    columns: dict[str, Any] = {'delay': delay}
    for where in ('answer', 'all'):
        count_B1 = sums[where, 'count'][:, None]
        nll = {c: sums[where, c, 'nll'][:, None] for c in CONDITIONS}
        for c in CONDITIONS:
            columns[f'nll_{c}_{where}'] = float(nll[c].sum() / count_B1.sum())
            columns[f'right_{c}_{where}'] = float(sums[where, c, 'right'].sum() / count_B1.sum())
        for worse, better in (('reset', 'intact'), ('swapped', 'reset')):
            apart = intervals.difference((nll[worse], count_B1), (nll[better], count_B1))
            name = f'{worse}_above_{better}_{where}'
            columns |= {name: float(apart.value_H[0])}
            columns |= {f'{name}_low': float(apart.low_H[0]), f'{name}_high': float(apart.high_H[0])}
    likelihood = trained.model.transition.likelihood
    columns['nll_is'] = 'negative log-likelihood' if likelihood else 'training loss at fixed keys'
    return {'world': dict(trained.config.world), 'columns': columns, **recall.about(trained)}


def measure(model: WorldModel, variables: PyTree, played: questions.Played) -> dict[tuple, np.ndarray]:
    """Sums over ticks (B,): by (where, 'count') and by (where, condition, 'nll' | 'right')."""
    inside_BT = played.inside_BT & ~played.ticks.is_first  # before an opening there is nothing to remember
    places = {'answer': played.answer_BT & inside_BT, 'all': inside_BT}
    sums = {(where, 'count'): mask_BT.sum(1).astype(float) for where, mask_BT in places.items()}
    start = model.apply(variables, inside_BT.shape[0], method='initial')
    carry = start.h, dict.fromkeys(CONDITIONS[1:], start.context_BMD)
    for when, trace, keys_BT in questions.follow(model, variables, played.ticks):
        if not inside_BT[:, when].any():
            break
        first_BT = jnp.asarray(played.ticks.is_first[:, when])
        carry, contexts = _contexts(model, variables, carry, trace, first_BT)
        contexts['intact'] = trace.departure.context_BTMD
        for condition, scores in _scores(model, variables, trace, contexts, keys_BT).items():
            for name, value_BT in scores.items():
                for where, mask_BT in places.items():
                    # Where nothing is counted anything may stand, NaN too.
                    counted_B = np.where(mask_BT[:, when], np.asarray(value_BT, np.float64), 0.0).sum(1)
                    key = (where, condition, name)
                    sums[key] = sums.get(key, 0.0) + counted_B
    return sums


@functools.partial(jax.jit, static_argnames=('model',))
def _contexts(
    model: WorldModel, variables: PyTree, carry: tuple[PyTree, dict], trace: Trace, first_BT: jax.Array
) -> tuple[tuple[PyTree, dict], dict[str, jax.Array]]:
    """(carry after the last tick, {'reset', 'swapped'}: contexts (B, T, M, D) that each tick departs from).

    The carry is h, of each row's own past, and the contexts shown last.
    """

    def remember(m: WorldModel, h: PyTree, z: Latent, action_BA: jax.Array, first_B: jax.Array) -> tuple[PyTree, dict]:
        h = m.memory.reset(h, first_B)
        anew, _ = m.memory.initial(first_B.shape[0])
        other = jax.tree.map(lambda x: jnp.roll(x, 1, 0), h)
        shown = {
            'reset': m.memory.step(anew, z, jnp.zeros_like(action_BA))[1],
            'swapped': m.memory.step(other, z, action_BA)[1],
        }
        return m.memory.step(h, z, action_BA)[0], shown

    def tick(carry: tuple[PyTree, dict], inputs: tuple) -> tuple[tuple[PyTree, dict], dict]:
        h, before = carry
        return model.apply(variables, h, *inputs, method=remember), before

    carry, departed = jax.lax.scan(tick, carry, swap((trace.z, trace.departure.action_BTA, first_BT)))
    return carry, swap(departed)


@functools.partial(jax.jit, static_argnames=('model',))
def _scores(
    model: WorldModel, variables: PyTree, trace: Trace, contexts: dict[str, jax.Array], keys_BT: jax.Array
) -> dict[str, dict[str, jax.Array]]:
    """{condition: {'nll', 'right'}}, each (B, T)."""
    B = keys_BT.shape[0]
    z, departure = fold_time(trace.z), fold_time(trace.departure)
    keys = keys_BT.reshape(-1)

    def score(m: WorldModel, context_BMD: jax.Array) -> tuple[jax.Array, jax.Array]:
        prediction = m.predict(departure.z, departure.action_BTA, context_BMD)
        if m.transition.likelihood:
            nll = -m.transition.log_prob(prediction, z)
        else:
            nll = sum(m.transition.loss(prediction, Posterior(z, None), keys).values())
        drawn = m.transition.sample(prediction, keys, temperature=0)
        true = z.embedding_BNE if z.index_BN is None else z.index_BN
        right = jnp.all((drawn == true).reshape(drawn.shape[0], -1), 1)
        return nll, right

    out = {}
    for name, context_BTMD in contexts.items():
        nll, right = model.apply(variables, fold_time(context_BTMD), method=score)
        out[name] = unfold_time({'nll': nll, 'right': right}, B)
    return out
