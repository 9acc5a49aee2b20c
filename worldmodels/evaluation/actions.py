r"""Whether a dream does what it is told, and whether what was found in frames is what was done.

$$\Delta_t\,\mathrm{PSNR} = \mathrm{PSNR}(x_t, \hat x_t) - \mathrm{PSNR}(x_t, \hat x'_t)$$

with $\hat x$ dreamed under the actions of what happened and $\hat x'$ under random ones, t = 4 (Bruce et al., 2024, arXiv
2402.15391): 0 for a dream that does not listen. The mean squared error of values in 0 to 1 is floored at 1e-5, so an exact
frame has 50 dB.

Latent actions are compared with real ones by their adjusted mutual information (`agreement`), over the ticks whose frame
differs from the one before: the others look alike whatever was done.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from worldmodels import rollout
from worldmodels.control.translated import ActionMap
from worldmodels.data.pipeline import Episodes
from worldmodels.evaluation import agreement, dreams, frames
from worldmodels.evaluation.intervals import ratio
from worldmodels.types import PyTree, Ticks
from worldmodels.world_model import WorldModel

TICK = 4  # of Delta PSNR, as published
FLOOR = 1e-5  # of the mean squared error, values in 0 to 1
ROWS = 32  # frames looked at together


def delta_psnr(
    model: WorldModel,
    variables: PyTree,
    windows: Ticks,
    context: int,
    *,
    tick: int = TICK,
    batch: int = 64,
    group_B: Any = None,
    **dials: Any,
) -> dict[str, Any]:
    """Delta PSNR by modality that is a picture: {'tick', 'starts', name: estimate as JSON, in dB}, one dream of each kind a
    start. Starts whose episode ends before the tick are left out.
    """
    names = [name for name, modality in model.spec.observation if modality.kind == 'image']
    told, random = (
        dreams.imagined(model, variables, context, tick, randomly=randomly, **dials) for randomly in (False, True)
    )
    gains: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for ticks, count in dreams.batches(windows, batch) if names else ():
        pair = [jax.tree.map(np.asarray, dream(ticks, 0).observation) for dream in (told, random)]
        for name in names:
            true = np.asarray(ticks.observation[name])[:, context + tick - 1]
            good, bad = (_psnr(x[name][:, -1], true) for x in pair)
            gains[name].append((good - bad)[:count])
    valid_B = frames.judged(windows.is_first, windows.is_last, context, tick)[:, -1:]
    out: dict[str, Any] = {'tick': tick, 'starts': int(valid_B.sum())}
    for name in names:
        gain_B1 = np.where(valid_B, np.concatenate(gains[name])[:, None], 0.0)
        estimate = ratio(gain_B1, valid_B.astype(np.float64), group_B, share=False).to_json()
        out[name] = {k: v[0] for k, v in estimate.items()}
    return out


def _psnr(dreamed: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(B,) in dB."""
    return np.minimum(frames.psnr(frames.squared_error(dreamed, true)), -10 * np.log10(FLOOR))


def told_and_found(model: WorldModel, variables: PyTree, windows: Ticks, batch: int = 64) -> tuple[np.ndarray, ...]:
    """(real action, latent action, whether the frame changed), each (n,), of all ticks that an action led to."""
    find = jax.jit(lambda variables, ticks: rollout.actions_of(model, variables, ticks))
    real, code, changed = [], [], []
    for ticks, count in dreams.batches(windows, batch):
        found_BT = np.asarray(find(variables, ticks))[:count, 1:]
        led_BT = (found_BT >= 0) & ~np.asarray(ticks.is_last)[:count, :-1]
        moved_BT = np.zeros(led_BT.shape, bool)
        for x in ticks.observation.values():
            x = np.asarray(x)[:count]
            moved_BT |= (x[:, 1:] != x[:, :-1]).reshape(*led_BT.shape, -1).any(-1)
        real.append(np.asarray(ticks.action)[:count, 1:][led_BT])
        code.append(found_BT[led_BT])
        changed.append(moved_BT[led_BT])
    return np.concatenate(real), np.concatenate(code), np.concatenate(changed)


def found(model: WorldModel, variables: PyTree, windows: Ticks, space: Any) -> dict[str, Any]:
    """What latent actions are like: {'codes', 'usage' of each, and, where real actions of `space` are known and discrete,
    'changed_ticks', 'agreement' over these, and 'rows': [name of a real action, how often it stood with each code]}.
    """
    real, code, changed = told_and_found(model, variables, windows)
    K = model.actions.size
    share = np.bincount(code, minlength=K) / max(len(code), 1)
    out: dict[str, Any] = {'codes': K, 'usage': [float(x) for x in share]}
    if space.kind == 'discrete' and space.known:
        table = agreement.contingency(real[changed], code[changed], space.size, K)
        score = agreement.adjusted_mutual_information(table) if changed.any() else None
        names = list(space.names) or [str(i) for i in range(space.size)]
        rows = [[name, row] for name, row in zip(names, table.tolist()) if sum(row)]
        out |= {'changed_ticks': int(changed.sum()), 'agreement': score, 'rows': rows}
    return out


def fit_map(model: WorldModel, variables: PyTree, labelled: Episodes, steps: int) -> ActionMap:
    """The map from real to latent actions, from the first `steps` steps of a dataset whose actions are known.

    Raises:
      ValueError: the model's actions are the data's own, the dataset is of other observations, its actions are not known or
        not discrete, or it has fewer steps.
    """
    space = labelled.spec.action
    if not model.action.latent:
        raise ValueError("model.action.kind is 'given': its actions are the world's own, and there is nothing to map.")
    if labelled.spec.observation != model.spec.observation:
        raise ValueError(
            f'The labelled data show {labelled.spec.to_json()["observation"]}, and the model knows '
            f'{model.spec.to_json()["observation"]}: give data of the same world.'
        )
    if space.kind != 'discrete' or not space.known:
        what = 'are continuous' if space.kind == 'continuous' else 'are not known'
        raise ValueError(f'The actions of the labelled data {what}: a map takes discrete ones.')
    there = int(labelled.lengths.sum()) - len(labelled.lengths)
    if steps < 1 or steps > there:
        raise ValueError(f'{steps} labelled steps were asked for, expected 1 to {there}, which the data have.')
    counts = np.zeros((space.size, model.actions.size), np.int64)
    infer = jax.jit(lambda variables, *pair: model.apply(variables, *pair, method='infer'))
    left, index = steps, 0
    while left:
        episode = labelled[index]
        frames_, action = episode['observation'], np.asarray(episode['action'])
        for start in range(0, min(left, len(action) - 1), ROWS):
            # Always as many rows, so that nothing is compiled twice.
            rows = np.minimum(np.arange(start, start + ROWS), len(action) - 2)
            pair = ({k: x[rows + i] for k, x in frames_.items()} for i in (0, 1))
            taken = min(ROWS, len(action) - 1 - start, left)
            code = np.asarray(infer(variables, *pair))[:taken]
            counts += agreement.contingency(action[start : start + taken], code, *counts.shape)
            left -= taken
            if not left:
                break
        index += 1
    return ActionMap(space, tuple(tuple(row) for row in counts.tolist()))
