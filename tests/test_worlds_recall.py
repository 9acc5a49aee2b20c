"""Recall worlds: the answer is what was shown, comes one tick after the question, and is nowhere in between."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels import interaction, worlds
from worldmodels.control.random import Random
from worldmodels.worlds import recall

NAMES = [f'recall/{name}' for name in recall.names()]


@functools.cache
def played(name, low=3, high=9, distractors=True):
    """64 episodes from opening to end: the cells (T, N) and records of each."""
    world = worlds.make(name, 64, low=low, high=high, distractors=distractors)
    key = jax.random.key(0)
    pool = interaction.prepare(world, key, world.batch)
    _, records = interaction.interact(world, Random(world.spec.action), None, key, world.max_steps + 1, pool)
    records = {**records, 'cells': records.pop('observation')['grid'][:, :, 0, :, 0], 'extras': None}
    records = {k: np.asarray(x) for k, x in records.items()}
    stops = np.argmax(records['is_last'], 0) + 1
    return [{k: x[:stop, lane] for k, x in records.items() if x.ndim} for lane, stop in enumerate(stops)]


@pytest.mark.parametrize('name', NAMES)
def test_a_question_and_its_answer_end_every_episode(name):
    for episode in played(name):
        marks = episode['cells'][:, 0]
        assert marks[-1] == recall.ANSWER
        assert marks[-2] == recall.QUESTION
        assert episode['is_terminal'][-1]
        assert episode['discount'][-2] == 0
        shown = int((marks == recall.SHOWN).sum())
        assert (marks[:shown] == recall.SHOWN).all(), 'what is to be known comes first'
        assert 3 <= (marks == recall.NOISE).sum() <= 9
        assert len(marks) == shown + (marks == recall.NOISE).sum() + 2
        assert (episode['cells'][:-2, 1:] >= recall.FIRST).all()


def test_answers_are_what_was_shown():
    for episode in played('recall/Cue'):
        assert episode['cells'][-1, 1] == episode['cells'][0, 1]
        assert episode['cells'][-2, 1] == recall.BLANK
    for episode in played('recall/List'):
        known = dict(episode['cells'][:4, 1:])
        assert len(known) == 4, 'no key twice'
        asked, nothing = episode['cells'][-2, 1:]
        assert nothing == recall.BLANK
        assert tuple(episode['cells'][-1, 1:]) == (asked, known[asked])
    for episode in played('recall/Place'):
        home = episode['cells'][episode['cells'][:, 0] == recall.SHOWN]
        assert (episode['cells'][-1, 1:] == home[-1, 1:]).all(), 'back where it was left'


def test_saying_the_answer_pays_and_nothing_else_does():
    paid = []
    for episode in played('recall/Cue'):
        said = episode['action'][-2] == episode['cells'][0, 1] - recall.FIRST
        assert episode['reward'][-2] == said
        assert episode['reward'].sum() == said
        paid.append(said)
    assert 0 < sum(paid) < 30


def test_the_map_is_walked_on_and_left():
    world = recall.load('Place', 4, 4, True)
    state, observation = world.reset(jax.random.key(3))
    step = jax.jit(world.step)
    kept = np.asarray(state['map'])
    for t, move in enumerate(('up', 'up', 'right', 'down', 'right', 'right', 'left')):
        state, observation, *_ = step(state, jnp.int32(recall.WALK.index(move)), jax.random.key(t))
        row, column = np.asarray(state['position'])
        assert tuple(observation['grid'][0, 1:, 0] - recall.FIRST) == tuple(kept[row, column - 1 : column + 2])
    assert (np.asarray(state['map']) == kept).all()
    state, observation, *_ = step(state, jnp.int32(0), jax.random.key(9))
    assert observation['grid'][0, 0, 0] == recall.NOISE, f'after {recall.LOOK} frames it leaves by any action'
    early, *_ = step(world.reset(jax.random.key(3))[0], jnp.int32(recall.AWAY), jax.random.key(0))
    assert early['left'] == 1


@pytest.mark.parametrize('name', NAMES)
def test_truth_tells_the_answer_before_the_question(name):
    world = worlds.make(name, 64, low=3, high=9)
    step = jax.jit(world.step)
    state, _ = world.reset(jax.random.key(1))
    leave = jnp.full((64,), recall.AWAY)
    state, observation, *_ = step(state, leave, jax.random.key(0))
    told = np.asarray(world.truth(state)['answer'])
    for t in range(world.max_steps - 1):
        state, observation, _, _, is_last = step(state, leave, jax.random.key(t))
        now = np.asarray(recall.is_answer(observation)) & np.asarray(is_last)
        assert (np.asarray(observation['grid'])[now, 0, :, 0] == told[now]).all()


def test_delays_are_log_uniform():
    draws = np.asarray(jax.vmap(lambda k: recall.draw_delay(k, 4, 63))(jax.random.split(jax.random.key(0), 4000)))
    assert draws.min() == 4
    assert draws.max() == 63
    octaves = np.histogram(draws, [4, 8, 16, 32, 64])[0] / 4000
    assert np.abs(octaves - 0.25).max() < 0.03
    assert set(np.asarray(jax.vmap(lambda k: recall.draw_delay(k, 7, 7))(jax.random.split(jax.random.key(0), 9)))) == {
        7
    }


def test_the_delay_is_of_noise_or_of_nothing():
    for episode in played('recall/Cue', 8, 8, False):
        assert (episode['cells'][1:9] == [recall.NOISE, recall.BLANK]).all()
        assert len(episode['cells']) == 11
    noise = np.concatenate([e['cells'][1:-2, 1] for e in played('recall/Cue')])
    assert np.bincount(noise - recall.FIRST, minlength=recall.SYMBOLS).min() > len(noise) / 16, 'all symbols alike'


@pytest.mark.parametrize(
    ('name', 'options', 'sentence'),
    [
        ('recall/Cue', {'low': 9, 'high': 8}, 'low=9 and high=8: give a longest delay'),
        ('recall/List', {'pairs': 9}, 'pairs=9: there are 8 keys'),
        ('recall/Cue', {'pairs': 2}, "no option 'pairs'"),
        ('recall/Cues', {}, "did you mean 'recall/Cue'"),
        ('recall/Cue', {'low': 0}, 'low=0: give a whole number of at least 1'),
    ],
)
def test_what_makes_no_sense_is_refused(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        worlds.make(name, 1, **options)
