"""Memory intact, reset and swapped: by a model whose likelihoods are known by hand."""

import dataclasses
import math
import types

import jax
import numpy as np
import pytest
from remembering import SURE, cue_model

from worldmodels import rollout
from worldmodels.evaluation import anchoring, questions
from worldmodels.worlds import recall as worlds

CUE = {'name': 'recall/Cue', 'low': 4, 'high': 64}
CLASSES = worlds.FIRST + worlds.SYMBOLS


def trained(*parts, **fields):
    model, variables = cue_model(*parts, **fields)
    return types.SimpleNamespace(
        name='x', model=model, variables=variables, config=types.SimpleNamespace(world=CUE), step=0
    )


def test_by_hand():
    columns = anchoring.run(trained(), delay=6, episodes=40)['columns']
    right, wrong = -math.log(SURE), -math.log((1 - SURE) / (CLASSES - 1))
    symbol_B = questions.play(CUE, 6, 40).ticks.observation['grid'][:, 0, 0, 1, 0]
    same = float(np.mean(symbol_B == np.roll(symbol_B, 1)))
    assert 0 < same < 0.4
    # The mark is always right; the symbol if the right cue is remembered, which at a reset is no symbol at all.
    assert columns['nll_intact_answer'] == pytest.approx(2 * right, rel=1e-4)
    assert columns['nll_reset_answer'] == pytest.approx(right + wrong, rel=1e-4)
    assert columns['nll_swapped_answer'] == pytest.approx(right + same * right + (1 - same) * wrong, rel=1e-4)
    assert [columns[f'right_{c}_answer'] for c in anchoring.CONDITIONS] == pytest.approx([1.0, 0.0, same])
    assert columns['reset_above_intact_answer_low'] == pytest.approx(wrong - right, rel=1e-4)
    # 8 ticks after the opening, of which only the last shows an answer and is right.
    assert columns['right_intact_all'] == pytest.approx(1 / 8)
    assert columns['nll_is'] == 'negative log-likelihood'


def test_without_memory_nothing_changes():
    columns = anchoring.run(
        trained(
            'none',
            'masked',
        ),
        delay=6,
        episodes=8,
    )['columns']
    assert columns['nll_intact_all'] == columns['nll_reset_all'] == columns['nll_swapped_all'] > 0
    assert columns['reset_above_intact_answer'] == 0
    assert columns['nll_is'] == 'training loss at fixed keys'


@pytest.mark.parametrize('memory', ['recurrent', 'window'])
def test_a_past_is_changed_and_nothing_else(memory):
    sizes = {
        'recurrent': {'deter': 16, 'hidden': 8},
        'window': {'length': 4, 'depth': 1, 'width': 8, 'heads': 2, 'hidden': 8},
    }
    model, variables = cue_model(memory, 'categorical', **sizes[memory])
    played = questions.play(CUE, 70, 4)  # longer than a chunk

    def rows(index):
        taken = {
            f.name: jax.tree.map(lambda x: x[index], getattr(played, f.name)) for f in dataclasses.fields(played)[:3]
        }
        return dataclasses.replace(played, **taken)

    sums = lambda played: anchoring.measure(model, variables, played)
    both = sums(rows(np.array([0, 1])))
    # Where the neighbour is the same episode its past is one's own.
    alike = sums(rows(np.array([0, 0])))
    for where in ('answer', 'all'):
        np.testing.assert_allclose(alike[where, 'swapped', 'nll'], alike[where, 'intact', 'nll'], rtol=1e-5)
        np.testing.assert_allclose(alike[where, 'intact', 'nll'][0], both[where, 'intact', 'nll'][0], rtol=1e-5)
        assert abs(both[where, 'swapped', 'nll'] - both[where, 'intact', 'nll']).min() > 1e-6
    # A reset memory has seen the frame before it as an opening: so has one whose every tick opens an episode.
    opens = dataclasses.replace(played.ticks, is_first=np.ones_like(played.ticks.is_first))
    keys_BT = jax.random.split(jax.random.key(0), played.answer_BT.shape)
    _, seen = rollout.observe(model, variables, played.ticks, keys_BT)
    _, anew = rollout.observe(model, variables, opens, keys_BT)
    context_BTMD = np.concatenate([anew.context_BTMD[:, :1], anew.context_BTMD[:, :-1]], 1)
    scores = anchoring._scores(model, variables, seen, {'reset': context_BTMD}, keys_BT)['reset']['nll']
    inside_BT = played.inside_BT & ~played.ticks.is_first
    np.testing.assert_allclose((scores * inside_BT).sum(1), sums(played)['all', 'reset', 'nll'], rtol=1e-4)
