r"""Recall: small worlds that ask for what they showed long before, and whose answers are known.

$$o_{q+1} = g(o_{\le q - d}), \qquad d \sim \exp \mathcal U(\ln d_{\min}, \ln d_{\max})$$

    Cue     a symbol; a delay; a question; the symbol again
    List    pairs of a key and a value, one a tick; a delay; a key; its value
    Place   a map of 6 x 6 symbols, walked on and seen through a window of 1 x 3 cells; away for a delay; back where it
            was left

The question is the last frame but one, its answer the last: what a world model foretells one tick after the question is
right or wrong, and only the cue says which. The copying and recall tasks of Hochreiter & Schmidhuber (1997), the keys
and values of Arora et al. (2023, arXiv 2312.04927), the known places of Memory Maze (Pasukonis et al., 2022, arXiv
2210.13383).

Every frame is one row of cells: a mark (`MARKS`), then contents, which are symbols (from `FIRST` on) or blank. A delay
of d is d frames between the last that tells of the answer's kind (cue, pair, place) and the question; they show random
symbols under a mark of their own, or blanks where `distractors` is off.

In Cue and List an action says a symbol: said at the question, the right one pays 1. In Place the actions walk, and
'away' leaves; after LOOK frames any action does. Delays are drawn log-uniformly from low to high, both included.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from worldmodels.types import ActionSpace, Modality, Spec
from worldmodels.worlds.options import Option

PACKAGES: dict[str, str] = {}
MARKS = ('blank', 'noise', 'shown', 'question', 'answer')
BLANK, NOISE, SHOWN, QUESTION, ANSWER = range(len(MARKS))
FIRST = len(MARKS)  # the first symbol
SYMBOLS = 8  # of cues, keys and values
CONTENTS = 4  # symbols that a cell of the map may hold
SIDE, VIEW, LOOK = 6, 3, 8  # of the map, of the window, and the most frames at home before leaving
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1), (0, 0))
WALK = ('up', 'right', 'down', 'left', 'away')
AWAY = WALK.index('away')
OPTIONS = {
    'low': Option(4, minimum=1, help='the shortest delay, in frames'),
    'high': Option(64, minimum=1, help='the longest; the same as low for one delay only'),
    'distractors': Option(True, help='random symbols during the delay, else blanks'),
}


def names() -> list[str]:
    """Cue, List and Place."""
    return ['Cue', 'List', 'Place']


def options(name: str) -> dict[str, Option]:
    """low, high and distractors; of List also pairs."""
    return OPTIONS | ({'pairs': Option(4, minimum=1, help='keys with values')} if name == 'List' else {})


def load(name: str, low: int, high: int, distractors: bool, pairs: int = 1) -> Told | Place:
    """One recall world. Raises ValueError for delays that end before they begin, and for more pairs than keys."""
    if low > high:
        raise ValueError(f'low={low} and high={high}: give a longest delay of at least the shortest.')
    if pairs > SYMBOLS:
        raise ValueError(f'pairs={pairs}: there are {SYMBOLS} keys, give no more pairs than that.')
    if name == 'Place':
        return Place(low, high, distractors)
    return Told(low, high, distractors, pairs, keyed=name == 'List')


def draw_delay(key: jax.Array, low: int, high: int) -> jax.Array:
    """int32 in low .. high, its logarithm uniform."""
    share = jax.random.uniform(key)
    return jnp.clip(jnp.floor(low * ((high + 1) / low) ** share).astype(jnp.int32), low, high)


def is_answer(observation: dict) -> jax.Array:
    """Which frames (...) of an observation {'grid': (..., 1, N, 1)} are answers."""
    return observation['grid'][..., 0, 0, 0] == ANSWER


class Told:
    """Cue, and with keys List. No batch axis: `worlds.lift` adds it.

    Its state: tick t, delay, key_P and value_P (symbols from 0), the pair asked for, the cells now shown.
    """

    def __init__(self, low: int, high: int, distractors: bool, pairs: int, keyed: bool):
        self.low, self.high, self.distractors, self.pairs, self.keyed = low, high, distractors, pairs, keyed
        self.max_steps = pairs + high + 1
        grid = Modality('grid', (1, 2 + keyed, 1), (FIRST + SYMBOLS,))
        said = tuple(f'say_{i}' for i in range(SYMBOLS))
        self.spec = Spec((('grid', grid),), ActionSpace('discrete', SYMBOLS, said))

    def reset(self, key: jax.Array):
        delay_key, key_key, value_key, asked_key, noise_key = jax.random.split(key, 5)
        state = {
            't': jnp.int32(0),
            'delay': draw_delay(delay_key, self.low, self.high),
            'key_P': jax.random.permutation(key_key, SYMBOLS)[: self.pairs].astype(jnp.int32),
            'value_P': jax.random.randint(value_key, (self.pairs,), 0, SYMBOLS),
            'asked': jax.random.randint(asked_key, (), 0, self.pairs),
        }
        state['cells'] = self._cells(state, noise_key)
        return state, _shown(state)

    def step(self, state: dict, action: jax.Array, key: jax.Array):
        asked = state['t'] == self.pairs + state['delay']
        reward = (asked & (action == state['value_P'][state['asked']])).astype(jnp.float32)
        state = {**state, 't': state['t'] + 1}
        state['cells'] = self._cells(state, key)
        return _stepped(state, reward, state['t'] > self.pairs + state['delay'])

    def truth(self, state: dict) -> dict[str, jax.Array]:
        """delay; answer (N,), the cells of the frame after the question; codes, all that was settled at the opening."""
        told = self._frame(ANSWER, state['key_P'][state['asked']], state['value_P'][state['asked']])
        codes = jnp.concatenate([state['delay'][None], state['asked'][None], state['key_P'], state['value_P']])
        return {'delay': state['delay'], 'answer': told, 'codes': codes}

    def _cells(self, state: dict, key: jax.Array) -> jax.Array:
        noise_2 = jax.random.randint(key, (2,), 0, SYMBOLS) if self.distractors else jnp.full((2,), BLANK - FIRST)
        pair = jnp.where(state['t'] < self.pairs, state['t'], state['asked'])
        name, value = state['key_P'][pair], state['value_P'][pair]
        after = state['t'] - self.pairs - state['delay']  # 0 at the question
        phase = jnp.where(state['t'] < self.pairs, 0, jnp.where(after < 0, 1, jnp.clip(after + 2, 2, 3)))
        frames = (
            self._frame(SHOWN, name, value),
            self._frame(NOISE, noise_2[0], noise_2[1]),
            self._frame(QUESTION, name, jnp.int32(BLANK - FIRST)),
            self._frame(ANSWER, name, value),
        )
        return jnp.stack(frames)[phase]

    def _frame(self, mark: int, name: jax.Array, value: jax.Array) -> jax.Array:
        contents = (name + FIRST, value + FIRST) if self.keyed else (value + FIRST,)
        return jnp.stack([jnp.int32(mark), *contents]).astype(jnp.int32)


class Place:
    """A map walked on, left, and come back to. No batch axis: `worlds.lift` adds it.

    Its state: tick t, delay, map (SIDE, SIDE) of symbols from 0, position (row, column), left (the first tick away, -1
    before), the cells now shown.
    """

    def __init__(self, low: int, high: int, distractors: bool):
        self.low, self.high, self.distractors = low, high, distractors
        self.max_steps = LOOK + high + 1
        grid = Modality('grid', (1, 1 + VIEW, 1), (FIRST + CONTENTS,))
        self.spec = Spec((('grid', grid),), ActionSpace('discrete', len(WALK), WALK))

    def reset(self, key: jax.Array):
        delay_key, map_key, row_key, column_key, noise_key = jax.random.split(key, 5)
        row = jax.random.randint(row_key, (), 0, SIDE)
        column = jax.random.randint(column_key, (), VIEW // 2, SIDE - VIEW // 2)
        state = {
            't': jnp.int32(0),
            'delay': draw_delay(delay_key, self.low, self.high),
            'map': jax.random.randint(map_key, (SIDE, SIDE), 0, CONTENTS),
            'position': jnp.stack([row, column]),
            'left': jnp.int32(-1),
        }
        state['cells'] = self._cells(state, noise_key)
        return state, _shown(state)

    def step(self, state: dict, action: jax.Array, key: jax.Array):
        t, home = state['t'] + 1, state['left'] < 0
        leaves = home & ((action == AWAY) | (t >= LOOK))
        # Walls all around: the window never shows what lies behind them.
        least, most = jnp.array([0, VIEW // 2]), jnp.array([SIDE - 1, SIDE - 1 - VIEW // 2])
        moved = jnp.clip(state['position'] + jnp.asarray(MOVES)[action], least, most)
        state = {
            **state,
            't': t,
            'position': jnp.where(home & ~leaves, moved, state['position']),
            'left': jnp.where(leaves, t, state['left']),
        }
        state['cells'] = self._cells(state, key)
        back = (state['left'] >= 0) & (t > state['left'] + state['delay'])
        return _stepped(state, jnp.float32(0), back)

    def truth(self, state: dict) -> dict[str, jax.Array]:
        """delay; answer (N,), the cells of the frame on coming back, if it left here; map, position; codes, the opening."""
        codes = jnp.concatenate([state['delay'][None], state['position'], state['map'].ravel()])
        answer = self._frame(ANSWER, self._view(state))
        return {k: state[k] for k in ('delay', 'map', 'position')} | {'answer': answer, 'codes': codes}

    def _cells(self, state: dict, key: jax.Array) -> jax.Array:
        blank = jnp.full((VIEW,), BLANK - FIRST)
        noise = jax.random.randint(key, (VIEW,), 0, CONTENTS) if self.distractors else blank
        away = state['t'] - state['left']  # frames since it left
        after = away - state['delay']  # 0 at the question
        phase = jnp.where(state['left'] < 0, 0, jnp.where(after < 0, 1, jnp.clip(after + 2, 2, 3)))
        view = self._view(state)
        shown = ((SHOWN, view), (NOISE, noise), (QUESTION, blank), (ANSWER, view))
        return jnp.stack([self._frame(mark, contents) for mark, contents in shown])[phase]

    def _view(self, state: dict) -> jax.Array:
        row, column = state['position']
        return jax.lax.dynamic_slice(state['map'], (row, column - VIEW // 2), (1, VIEW))[0]

    def _frame(self, mark: int, contents: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.array([mark]), contents + FIRST]).astype(jnp.int32)


def _shown(state: dict) -> dict[str, jax.Array]:
    return {'grid': state['cells'].astype(jnp.uint8)[None, :, None]}


def _stepped(state: dict, reward: jax.Array, over: jax.Array):
    outcomes = {'reward': reward, 'discount': 1.0 - over.astype(jnp.float32)}
    return state, _shown(state), outcomes, over, over
