"""Recall by delay: a memory that keeps the cue answers always, one that keeps nothing by chance, across chunks."""

import types

import jax
import numpy as np
import pytest
from remembering import cue_model

from worldmodels import worlds
from worldmodels.build import build_model, init_variables
from worldmodels.evaluation import questions, recall
from worldmodels.types import ActionSpace

CUE = {'name': 'recall/Cue', 'low': 4, 'high': 64}
CHAIN = {'name': questions.CHAIN, 'memory_length': 32}


@pytest.fixture(scope='module')
def played():
    """Longer than one chunk."""
    return questions.play(CUE, 70, 24)


def test_what_is_played(played):
    T = played.answer_BT.shape[1]
    assert T % questions.CHUNK == 0
    assert (played.answer_BT.sum(1) == 1).all()
    assert (np.argmax(played.answer_BT, 1) == 72).all(), 'a cue, 70 frames, a question, the answer'
    cells = played.ticks.observation['grid'][:, :, 0, :, 0]
    assert (cells[:, 72, 1] == cells[:, 0, 1]).all()
    assert (played.inside_BT.sum(1) == 73).all()
    assert (played.ticks.outcomes['discount'][:, 72] == 0).all(), 'the ending stands beside the frame it led to'


def test_what_is_kept_is_answered_and_what_is_not_is_not(played):
    assert recall.judge(*cue_model(), played).all()
    assert not recall.judge(*cue_model('none', 'remembering:Answers'), played).any()


def test_a_belief_is_carried_from_chunk_to_chunk(played):
    model, variables = cue_model('recurrent', deter=16, hidden=8)
    contexts = [t.context_BTMD for _, t, _ in questions.follow(model, variables, played.ticks)]
    assert len(contexts) == 2
    from worldmodels import rollout

    keys_BT = jax.random.split(jax.random.key(0), played.answer_BT.shape)
    _, whole = rollout.observe(model, variables, played.ticks, keys_BT)
    np.testing.assert_allclose(np.concatenate(contexts, 1), whole.context_BTMD, atol=1e-5)


def test_the_chain_is_judged_by_its_reward():
    played = questions.play(CHAIN, 5, 24)
    assert played.asks == 'reward'
    at_answer = played.ticks.outcomes['reward'][played.answer_BT]
    assert set(at_answer) == {-1.0, 1.0}
    config = {
        'heart': {'kind': 'palette', 'codes': 8, 'embedding': 4},
        'filter': {},
        'transition': {'kind': 'categorical', 'hidden': 8},
        'memory': {'kind': 'none'},
        'outcome': {'reads': 'departure', 'units': 8},
        'context_to': ('transition', 'outcome'),
    }
    model = build_model(config, _chain_spec(), 'float32')
    right_B = recall.judge(model, init_variables(model, 0), played)
    # Fresh heads expect 0, which is not above 0.
    assert (right_B == (at_answer < 0)).all()


def _chain_spec():
    return worlds.make(questions.CHAIN, 1).spec


def test_the_corridor_is_judged_by_what_is_paid_at_its_end():
    """Half of the answers pay; heads that expect 0 say that none does."""
    world = {'name': 'xminigrid/MiniGrid-MemoryS16', 'max_steps': 96}
    played = questions.play(world, 8, 24)
    assert played.asks == 'reward'
    assert (played.answer_BT.sum(1) == 1).all()
    at_answer = played.ticks.outcomes['reward'][played.answer_BT]
    assert 0 < (at_answer > 0).sum() < 24
    assert (at_answer[at_answer > 0] > 0.5).all()
    assert (played.ticks.outcomes['discount'][played.answer_BT] == 0).all(), 'nobody ran out of time'
    config = {
        'heart': {'kind': 'palette', 'codes': 8, 'embedding': 4},
        'filter': {},
        'transition': {'kind': 'categorical', 'hidden': 8},
        'memory': {'kind': 'none'},
        'outcome': {'reads': 'departure', 'units': 8},
        'context_to': ('transition', 'outcome'),
    }
    model = build_model(config, worlds.make(world['name'], 1).spec, 'float32')
    right_B = recall.judge(model, init_variables(model, 0), played)
    assert (right_B == (at_answer == 0)).all()
    assert questions.delays(world) == (8, 16, 32, 64, 128)
    with pytest.raises(ValueError, match=r'delay 9: the corridors of .* are 8, 16, 32, 64, 128 cells long'):
        questions.at_delay(world, 9)


def test_a_report_has_a_column_for_every_delay():
    model, variables = cue_model()
    config = types.SimpleNamespace(world=CUE)
    trained = types.SimpleNamespace(name='kept', model=model, variables=variables, config=config, step=7)
    report = recall.run(trained, (4, 9), episodes=6)
    assert report['columns']['recall_4'] == report['columns']['recall_9'] == 1.0
    assert 0.5 < report['columns']['recall_9_low'] < 1.0, 'six episodes are no proof'
    assert report['columns']['bytes'] == model.memory.nbytes(1) == 8
    assert report['columns']['ms_per_tick'] > 0
    with pytest.raises(ValueError, match='delay 0 was asked for'):
        recall.run(trained, (0,), 6)
    with pytest.raises(ValueError, match='1 episodes of each delay'):
        recall.run(trained, (4,), 1)


def test_worlds_that_ask_nothing_are_refused():
    with pytest.raises(ValueError, match=r"'navix/Empty-5x5' asks no question .* recall/Cue"):
        questions.at_delay({'name': 'navix/Empty-5x5'}, 4)
    assert questions.at_delay(CHAIN, 9) == {**CHAIN, 'memory_length': 9}
    assert questions.at_delay({**CHAIN, 'shortest': 4}, 9) == {**CHAIN, 'memory_length': 9}
    assert questions.at_delay({**CUE, 'distractors': False}, 9) == {
        **{'name': 'recall/Cue', 'low': 9, 'high': 9},
        'distractors': False,
    }
    assert isinstance(_chain_spec().action, ActionSpace)
