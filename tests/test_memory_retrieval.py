"""The episodic bank: both forms, resets, gradients, bytes, and entries put in and out."""

from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import SPEC, config, noisy, shaken
from remembering import BANKS, cue_model

from worldmodels import rng, rollout
from worldmodels.build import build_model
from worldmodels.memory.retrieval import Retrieval
from worldmodels.types import ActionSpace, Latent, Layout, Modality, Spec, Ticks

B, T, N, E, A, S, M = 4, 12, 3, 5, 2, 4, 2
TWO = Spec(
    (('grid', Modality('grid', (1, 2, 1), (5,))), ('where', Modality('grid', (1, 1, 1), (5,)))),
    ActionSpace('discrete', A),
)
LAYOUT = Layout(((1, 2), (1, 1)))
# Rows: none; at the start and in the middle; at the end; twice in a row.
RESET_BT = np.zeros((B, T), bool)
RESET_BT[1, 0] = RESET_BT[1, 7] = RESET_BT[2, -1] = RESET_BT[3, 3] = RESET_BT[3, 4] = True
CHOICES = {**BANKS, 'place': {**BANKS['place'], 'place': 'where'}}


def make(**fields) -> Retrieval:
    small = {'capacity': S, 'entry': 6, 'keys': 8, 'slots': M, 'width': 16, 'embedding': 4}
    return Retrieval(TWO, 5, LAYOUT, True, 'float32', **{**small, **fields})


def experience(length, batch=B, kinds=6, seed=0):
    """Frames of a few kinds, so that some repeat."""
    keys = jax.random.split(jax.random.key(seed), 4)
    kind = jax.random.randint(keys[0], (batch, length), 0, kinds)
    index, embedding = jax.random.randint(keys[1], (kinds, N), 0, 5), jax.random.normal(keys[2], (kinds, N, E))
    return Latent(index[kind], embedding[kind]), jax.random.normal(keys[3], (batch, length, A))


def at(z, t):
    return jax.tree.map(lambda x: x[:, t], z)


@functools.cache
def setting(name):
    memory = make(**CHOICES[name])
    z, action = experience(T)
    variables = shaken(memory, z, action)
    traces = {'sequence': 0}

    @jax.jit
    def sequence(h, z, a, r):
        traces['sequence'] += 1
        return memory.apply(variables, h, z, a, r, method='sequence')

    @jax.jit
    def steps(h, z, action, reset):
        def follow(h, tick):
            z, action, reset = tick
            h = memory.apply(variables, h, reset, method='reset')
            return memory.apply(variables, h, z, action, method='step')

        swap = lambda tree: jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
        h, context = jax.lax.scan(follow, h, swap((z, action, reset)))
        return h, swap(context)

    h, _ = steps(memory.initial(B)[0], *experience(T, seed=2), np.zeros((B, T), bool))
    return types.SimpleNamespace(
        memory=memory, variables=variables, sequence=sequence, steps=steps, h=h, z=z, action=action, traces=traces
    )


def alive(h):
    """What of a bank counts: all that an entry that holds nothing says is left out."""
    there = h.book.alive_BS
    rows = (h.values, h.book.codes, h.book.written_BS, h.book.touched_BS, h.book.uses_BS)
    keep = lambda x: jnp.where(there.reshape(there.shape + (1,) * (x.ndim - 2)), x, jnp.zeros((), x.dtype))
    return jax.tree.map(keep, rows), there, h.book.now_B


@pytest.mark.parametrize('name', CHOICES)
def test_scan_of_step_is_sequence_in_one_trace(name):
    s = setting(name)
    h_step, stepped = s.steps(s.h, s.z, s.action, RESET_BT)
    h_sequence, context = s.sequence(s.h, s.z, s.action, RESET_BT)
    assert context.shape == (B, T, M, 16) == (B, T, s.memory.slots, s.memory.width)
    np.testing.assert_allclose(context, stepped, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), alive(h_sequence), alive(h_step))
    # And on from there, from either.
    none = RESET_BT & False
    on = s.sequence(h_sequence, s.z, s.action, none)[1]
    np.testing.assert_allclose(on, s.steps(h_step, s.z, s.action, none)[1], atol=1e-5)
    assert s.traces == {'sequence': 1}


@pytest.mark.parametrize('name', CHOICES)
def test_a_poisoned_past_changes_nothing_after_a_reset_and_the_future_nothing_before_it(name):
    s = setting(name)
    reset_BT = RESET_BT & False
    reset_BT[:, 6] = True
    clean_h, clean = s.sequence(s.h, s.z, s.action, reset_BT)
    lost = s.h.replace(values=s.h.values * np.nan)
    bad = s.z.replace(embedding_BNE=s.z.embedding_BNE.at[:, 2:6].set(np.nan))
    dirty_h, dirty = s.sequence(lost, bad, s.action, reset_BT)
    assert np.isnan(dirty[:, :6]).any((0, 2, 3)).all()
    np.testing.assert_array_equal(dirty[:, 6:], clean[:, 6:])
    jax.tree.map(np.testing.assert_array_equal, alive(dirty_h), alive(clean_h))
    _, stepped = s.steps(lost, bad, s.action, reset_BT)
    np.testing.assert_array_equal(stepped[:, 6:], s.steps(s.h, s.z, s.action, reset_BT)[1][:, 6:])
    other = s.z.replace(embedding_BNE=s.z.embedding_BNE.at[:, 9:].set(7.0), index_BN=s.z.index_BN.at[:, 9:].set(0))
    _, later = s.sequence(s.h, other, s.action.at[:, 9:].set(-7.0), reset_BT)
    np.testing.assert_array_equal(later[:, :9], clean[:, :9])
    assert (later[:, 9:] != clean[:, 9:]).any()


def test_a_reset_costs_a_counter():
    s = setting('content')
    reset = jax.eval_shape(lambda h: s.memory.reset(h, jnp.ones(B, bool)), s.h)
    assert jax.tree.map(lambda x: x.shape, reset) == jax.tree.map(lambda x: x.shape, s.h)
    jaxpr = jax.make_jaxpr(lambda h: s.memory.reset(h, jnp.ones(B, bool)))(s.h).jaxpr
    assert all(v.aval.shape in ((), (B,)) for eqn in jaxpr.eqns for v in eqn.outvars)


def test_a_longer_segment_and_a_larger_bank_are_no_longer_programs():
    def size(length, capacity):
        memory = make(**CHOICES['content'] | {'capacity': capacity})
        z, action = experience(length)
        reset = np.zeros((B, length), bool)
        run = lambda v: memory.apply(v, None, z, action, reset, method='sequence')
        return str(jax.make_jaxpr(run)(setting('content').variables)).count(' = ')

    assert size(8, 4) == size(64, 32)


def test_the_gradient_reaches_what_was_retrieved_and_nothing_else_of_the_past():
    s = setting('content')
    none = RESET_BT & False
    read = jax.jit(lambda z: s.memory.apply(s.variables, None, z, s.action, none, method='decisions'))(s.z)
    last = jax.tree.map(lambda x: np.asarray(x[:, -1]), read)
    ticks = [set((T - 1 - last.age_BM[b][last.there_BM[b]]).tolist()) for b in range(B)]
    shown_TBM = jax.random.normal(jax.random.key(3), (B, M, 16))

    @jax.jit
    def grads(variables, z):
        def loss(variables, embedding):
            z_ = z.replace(embedding_BNE=embedding)
            return jnp.sum(shown_TBM * s.memory.apply(variables, None, z_, s.action, none, method='sequence')[1][:, -1])

        return jax.grad(loss, (0, 1))(variables, z.embedding_BNE)

    of_params, of_z = grads(s.variables, s.z)
    moved_BT = np.abs(of_z).sum((2, 3)) > 0
    for b in range(B):
        assert set(np.flatnonzero(moved_BT[b]).tolist()) == ticks[b] | {T - 1}
    for name in ('value', 'key', 'query', 'shown', 'frame'):
        assert np.abs(of_params['params'][name]['kernel']).sum() > 0, name
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(of_params))
    # Decisions are integers and truths: nothing to differentiate.
    assert not any(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(read))


def test_the_first_frame_is_found_after_a_thousand_ticks_where_distractors_repeat():
    """Eight kinds of distractors and the cue are nine entries, of sixteen; a bank that writes them all has lost it."""
    z, action = experience(1024, batch=1, kinds=8)
    cue = jax.tree.map(lambda x: x.at[:, 0].set(9 - x[:, 0]), z.replace(index_BN=z.index_BN % 4))
    none = np.zeros((1, 1024), bool)
    variables = setting('content').variables
    for write, kept in (('novelty', True), ('all', False)):
        memory = make(write=write, capacity=16)
        run = jax.jit(lambda z, m=memory: m.apply(variables, None, z, action, none, method='sequence')[0])
        held = memory.entries(run(cue))
        ticks = np.asarray(held['tick'])[np.asarray(held['there'])].tolist()
        assert (0 in ticks) == kept
        assert len(ticks) == (9 if kept else 16)


# -- looking into it, and changing it ----------------------------------------------------------------------------------


def test_entries_can_be_deleted_and_inserted_and_what_is_read_follows():
    s = setting('content')
    z, action = at(s.z, 0), s.action[:, 0]
    look = jax.jit(lambda h: s.memory.apply(s.variables, h, z, action, method='look'))
    insert = jax.jit(lambda h, z: s.memory.apply(s.variables, h, z, action, 3, method='insert'))
    h, _ = jax.jit(lambda h: s.memory.apply(s.variables, h, z, action, method='step'))(s.h)
    h = s.memory.delete(h, jnp.arange(S) == 0)  # so that one entry is free
    read, shown = look(h)
    best_B = np.asarray(read.entry_BM[:, 0])
    # Without the best entry, the second comes first.
    gone, _ = look(s.memory.delete(h, np.arange(S) == best_B[:, None]))
    np.testing.assert_array_equal(gone.entry_BM[:, 0], read.entry_BM[:, 1])
    assert not (np.asarray(gone.entry_BM) == best_B[:, None])[np.asarray(gone.there_BM)].any()
    # A frame put in stands in the free place, and is found there.
    other, _ = experience(1, seed=5)
    more = insert(h, at(other, 0))
    held = s.memory.entries(more)
    assert np.asarray(held['there'][:, 0]).all()
    np.testing.assert_array_equal(held['tick'][:, 0], h.book.now_B - 4)
    found, differs = look(more)
    assert (np.asarray(found.entry_BM) == 0).any()
    assert np.abs(differs - shown).max() > 1e-3
    np.testing.assert_array_equal(jax.tree.leaves(more)[0][:, 1:], jax.tree.leaves(h)[0][:, 1:])
    with pytest.raises(ValueError, match='an entry of age 0 was to be inserted'):
        s.memory.apply(s.variables, h, z, action, 0, method='insert')


def test_looking_again_shows_what_the_tick_showed():
    s = setting('place')
    h = s.memory.initial(B)[0]
    for t in range(2):
        step = jax.jit(lambda h, z, a: s.memory.apply(s.variables, h, z, a, method='step'))
        h, context = step(h, at(s.z, t), s.action[:, t])
    _, again = jax.jit(lambda: s.memory.apply(s.variables, h, at(s.z, 1), s.action[:, 1], method='look'))()
    np.testing.assert_allclose(again, context, atol=1e-6)


def test_a_dream_changes_with_what_its_bank_holds():
    model, variables = cue_model('retrieval', 'categorical', write='all', capacity=4, slots=2, entry=8, keys=8, width=8)
    rows, length = 2, 4
    symbol = jnp.arange(rows * length).reshape(rows, length) % 8
    grid = jnp.stack([jnp.ones_like(symbol), symbol + 5], -1)[:, :, None, :, None].astype(jnp.uint8)
    none = jnp.zeros((rows, length), bool)
    outcomes = {k: jnp.zeros((rows, length)) for k in model.spec.outcomes}
    ticks = Ticks(
        {'grid': grid}, jnp.zeros((rows, length), jnp.int32), outcomes, none, none, none, none[:, 0], symbol[:, 0]
    )
    keys_BT = rng.per_tick(rng.per_example(rng.stream(0, 'dream'), 0, ticks.example_B), length)
    variables = {**variables, 'params': noisy(variables['params'])}
    belief, trace = rollout.observe(model, variables, ticks, keys_BT)
    vector_BA = model.actions.vector(ticks.action[:, -1])
    look = jax.jit(lambda h: model.apply(variables, h, belief.z, vector_BA, method=lambda m, *x: m.memory.look(*x)))
    insert = jax.jit(lambda h, z: model.apply(variables, h, z, vector_BA, method=lambda m, *x: m.memory.insert(*x)))
    dreamed = lambda start: rollout.imagine(model, variables, start, keys_BT, action=ticks.action)[1].outcomes['reward']
    edited = lambda h: dreamed(belief.replace(h=h, context_BMD=look(h)[1]))
    read, context = look(belief.h)
    np.testing.assert_allclose(context, belief.context_BMD, atol=1e-5)
    same = dreamed(belief)
    # Rewards are read through symexp, which makes large numbers, and their rounding, of shaken parameters.
    np.testing.assert_allclose(edited(belief.h), same, rtol=1e-4)
    # Of one row the entry read first is deleted: its dream changes, from the first frame on, and the other's does not.
    best = (np.arange(4) == np.asarray(read.entry_BM[:, :1])) & (np.arange(rows) == 0)[:, None]
    less = edited(model.memory.delete(belief.h, best))
    apart = lambda a, b: np.abs(a - b) / np.abs(b)
    assert apart(less[0, 0], same[0, 0]) > 1e-2
    np.testing.assert_allclose(less[1], same[1], rtol=1e-4)
    more = edited(insert(belief.h, at(trace.z, 1)))
    assert (apart(more, same).max(1) > 1e-2).all()


def test_bytes_and_use():
    assert make(**CHOICES['place']).nbytes(3) == 3 * (S * (4 * 6 + 3 * 8 + 16) + 8)
    assert make(write='all').nbytes() == S * (4 * 6 + 8 + 16) + 8
    memory = make()
    h = memory.initial(2)[0]
    h = h.replace(book=h.book.replace(episode_BS=jnp.array([[0, 0, -1, -1], [-1, 0, -1, -1]])))
    total, count = memory.use(h)['filled']
    assert (float(total), float(count)) == (3 / S, 2)


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'write': 'novel'}, "model.memory.write is 'novel'; did you mean 'novelty'"),
        ({'retrieve': 'x'}, "model.memory.retrieve is 'x'; Valid: content, recency, place"),
        ({'update': 'replaced'}, "model.memory.update is 'replaced'; did you mean 'replace'"),
        ({'forget': 'old'}, "model.memory.forget is 'old'; did you mean 'oldest'"),
        ({'threshold': 1.5}, 'model.memory.threshold is 1.5; it takes a share'),
        ({'slots': 300}, 'memory.slots is 300, and the bank has 256 entries'),
        ({'capacity': 0}, 'model.memory.capacity is 0; it takes a whole number from 1'),
        ({'write': 'novelty', 'update': 'replace'}, 'has nothing to replace'),
        ({'retrieve': 'place', 'place': 'imag'}, "memory.place is 'imag'; did you mean 'image'"),
        ({'retrieve': 'place'}, "memory.place is ''; Valid: image"),
    ],
)
def test_refused_in_one_sentence(fields, says):
    chosen = config('palette', 'masked', 'retrieval', 'frame', ('transition',), 'departure')
    chosen['memory'] = {'kind': 'retrieval', **fields}
    with pytest.raises(ValueError, match=says) as error:
        build_model(chosen, SPEC, 'float32')
    assert '\n' not in str(error.value)


def test_places_need_tokens_of_one_modality():
    chosen = config('categorical', 'categorical', 'retrieval', 'frame', ('transition',), 'departure')
    chosen['memory'] = {'kind': 'retrieval', 'retrieve': 'place', 'place': 'image'}
    with pytest.raises(ValueError, match="this heart's tokens are of the whole frame"):
        build_model(chosen, SPEC, 'float32')
    kept = build_model({**chosen, 'heart': {'kind': 'palette'}, 'transition': {'kind': 'masked'}, 'filter': {}}, SPEC)
    assert kept.memory.place == 'image'
