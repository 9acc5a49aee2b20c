r"""How long a model remembers: is the frame that answers a question foretold, d ticks after what tells it was shown?

$$\mathrm{recall}(d) = \frac{1}{B} \sum_b [\hat o_{q_b + 1} = o_{q_b + 1}]$$

over episodes of delay d, after watching everything up to the question $q_b$; $\hat o$ is the transition's most likely
frame (temperature 0), and all of it must be right. In bsuite's MemoryChain (Osband et al., 2020, arXiv 1908.03568) and in
MiniGrid's Memory the answer is no frame but the reward, the higher or the lower of two: it is the outcome's mean that is
judged, by the side of their middle it lies on. Beside it stands the price:
bytes carried from tick to tick, milliseconds of a tick acting alone, and of a trained step.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels import rng
from worldmodels.data import making
from worldmodels.evaluation import curves, intervals, questions
from worldmodels.evaluation.examine import Trained
from worldmodels.evaluation.machine import machine
from worldmodels.evaluation.speeds import seconds
from worldmodels.rollout import Trace
from worldmodels.types import PyTree
from worldmodels.world_model import WorldModel


def check(trained: Trained, delays: Sequence[int], episodes: int) -> None:
    """Raises ValueError for a model or a world whose recall cannot be judged."""
    for delay in delays:
        if delay < 1:
            raise ValueError(f'delay {delay} was asked for: give a number of frames, at least 1.')
        questions.at_delay(trained.config.world, delay)
    if episodes < 2:
        raise ValueError(f'{episodes} episodes of each delay were asked for: give at least 2.')
    if not trained.model.heart.tokenizer:
        raise ValueError(
            f"The heart of '{trained.name}' is no tokenizer: what it foretells cannot be drawn before it is seen; "
            "recall is judged with a tokenizer, such as heart 'palette'."
        )


def run(
    trained: Trained,
    delays: Sequence[int],
    episodes: int = 200,
    seed: int = 0,
    advance: Callable[[int], None] = lambda delay: None,
) -> dict[str, Any]:
    """The report of one model, for JSON; `columns` is its row in a table. Raises ValueError as `check` does."""
    check(trained, delays, episodes)
    columns: dict[str, Any] = {}
    by_delay = {}
    for delay in delays:
        right_B = judge(trained.model, trained.variables, questions.play(trained.config.world, delay, episodes, seed))
        found = intervals.ratio(right_B[:, None].astype(float), np.ones((episodes, 1)))
        value, low, high = (float(x[0]) for x in (found.value_H, found.low_H, found.high_H))
        by_delay[str(delay)] = {'value': value, 'low': low, 'high': high, 'episodes': episodes}
        columns |= {f'recall_{delay}': value, f'recall_{delay}_low': low, f'recall_{delay}_high': high}
        advance(delay)
    columns |= {
        'bytes': trained.model.memory.nbytes(1),
        'ms_per_tick': 1e3 * float(np.median(tick_seconds(trained.model, trained.variables))),
    }
    return {'world': dict(trained.config.world), 'recall': by_delay, 'columns': columns, **about(trained)}


def about(trained: Trained) -> dict[str, Any]:
    """What every report of a model says of where it was made."""
    return {
        'model': trained.name,
        'step': trained.step,
        'hardware': machine()['hardware'],
        'versions': {'jax': jax.__version__},
    }


def step_ms(workdir: str) -> float:
    """Milliseconds of a trained step, the mean of a run since its first one; NaN where it took only one."""
    _, rates = curves.read(workdir).get('steps_per_second', ([], []))
    return 1e3 / rates[-1] if rates else float('nan')


def write(report: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with making.whole(str(path)) as temporary:
        Path(temporary).write_text(json.dumps(report, indent=2) + '\n')


def judge(model: WorldModel, variables: PyTree, played: questions.Played) -> np.ndarray:
    """bool (B,): whether the answer of each episode was foretold."""
    B = played.answer_BT.shape[0]
    right_B, seen_B = np.zeros(B, bool), np.zeros(B, bool)
    answers_B = played.ticks.outcomes['reward'][played.answer_BT]
    middle = (answers_B.min() + answers_B.max()) / 2
    for when, trace, keys_BT in questions.follow(model, variables, played.ticks):
        here_BT = played.answer_BT[:, when]
        if here_BT.any():
            shown = {k: x[:, when] for k, x in played.ticks.observation.items()}
            paid_BT = played.ticks.outcomes['reward'][:, when]
            foretold_B = _foretold(model, variables, trace, keys_BT, here_BT, shown, paid_BT, middle, played.asks)
            right_B |= np.asarray(foretold_B) & here_BT.any(1)
            seen_B |= here_BT.any(1)
    assert seen_B.all(), 'every episode has an answer'
    return right_B


@functools.partial(jax.jit, static_argnames=('model', 'asks'))
def _foretold(model, variables, trace: Trace, keys_BT, here_BT, shown: dict, paid_BT, middle, asks: str) -> jax.Array:
    """bool (B,), of the tick of each row that `here_BT` marks; anything in rows that it does not."""
    index_B = jnp.argmax(here_BT, 1)
    at = lambda tree: jax.tree.map(lambda x: x[jnp.arange(x.shape[0]), index_B], tree)
    departure = at(trace.departure)
    action_BA, context_BMD = departure.action_BTA, departure.context_BTMD

    def frame(m: WorldModel) -> dict[str, jax.Array]:
        prediction = m.predict(departure.z, action_BA, context_BMD)
        z = m.latent(m.transition.sample(prediction, at(keys_BT), temperature=0))
        return m.heart.render(m.decode(z, context_BMD))

    def reward(m: WorldModel) -> jax.Array:
        outputs = m.outcomes(departure.z, context_BMD, action_BA, at(trace.z), at(trace.context_BTMD))
        return m.outcome.mean(outputs)['reward']

    if asks == 'reward':
        paid_B = at(paid_BT)
        return (model.apply(variables, method=reward) > middle) == (paid_B > middle)
    drawn, real = model.apply(variables, method=frame), at(shown)
    return jnp.all(jnp.stack([jnp.all((drawn[k] == real[k]).reshape(index_B.size, -1), 1) for k in real]), 0)


def tick_seconds(model: WorldModel, variables: PyTree, repeats: int = 50) -> np.ndarray:
    """Seconds (repeats,) of one tick that watches a frame, batch 1: heart, filter, transition, outcome and memory."""
    belief = model.apply(variables, 1, method='initial')
    observation = {k: jnp.zeros((1, *m.shape), m.dtype) for k, m in model.spec.observation}
    action_BA = jnp.zeros((1, model.spec.action.size))
    keys_B = rng.stream(0, 'recall/tick')[None]

    @jax.jit
    def tick(variables, belief):
        return model.apply(variables, belief, action_BA, keys_B, observation, method='tick')[0]

    return seconds(lambda: tick(variables, belief), repeats)
