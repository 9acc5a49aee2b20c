"""Memory intact, reset and swapped: by a model whose likelihoods are known by hand."""

import math
import types

import numpy as np
import pytest
from remembering import SURE, cue_model

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
