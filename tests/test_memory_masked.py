"""The masked memory: both forms, resets, what its loss asks and teaches, and slots that are hidden or cut."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import SPEC, config, noisy

from worldmodels import rng
from worldmodels.build import build_model
from worldmodels.memory.masked import Masked, draw_age, draw_seen
from worldmodels.nn import initializers
from worldmodels.training import flops
from worldmodels.types import Latent, Layout

B, T, N, E, K, A, S = 4, 7, 4, 5, 6, 2, 3
FIELDS = {'classes': K, 'layout': Layout(((2, 2),)), 'table': True, 'dtype': 'float32'}
SMALL = {'slots': S, 'width': 8, 'heads': 2, 'hidden': 8}
# Rows: none; at the start and once more; at the end; twice in a row.
RESET_BT = np.zeros((B, T), bool)
RESET_BT[1, 0] = RESET_BT[1, 4] = RESET_BT[2, -1] = RESET_BT[3, 3] = RESET_BT[3, 4] = True


def make(**fields):
    return Masked(**{**FIELDS, **SMALL, **fields})


@functools.cache
def setting():
    """A memory, noisy variables of it, its state, frames and actions."""
    memory = make()
    keys = jax.random.split(jax.random.key(0), 4)
    z = Latent(jax.random.randint(keys[0], (B, T, N), 0, K), jax.random.normal(keys[1], (B, T, N, E)))
    action = jax.random.normal(keys[2], (B, T, A))
    h = jax.random.normal(keys[3], memory.initial(B)[0].shape)
    return memory, variables_of(memory, z, action), h, z, action


def variables_of(memory, z, action):
    def touch(m):
        context = m.sequence(None, z, action, RESET_BT)[1]
        return m.losses(context, z, action, RESET_BT, keys_BT())

    return noisy(
        {'params': initializers.draw(lambda key: memory.init(key, method=touch), 1, jax.random.key(1))['params']}
    )


def keys_BT(step: int = 0):
    return rng.per_tick(rng.per_example(rng.stream(0, 'test'), step, jnp.arange(B)), T)


@functools.partial(jax.jit, static_argnums=0)
def sequence(memory, variables, h, z, action, reset):
    return memory.apply(variables, h, z, action, reset, method='sequence')


@functools.partial(jax.jit, static_argnums=0)
def steps(memory, variables, h, z, action, reset):
    def follow(h, tick):
        z, action, reset = tick
        return memory.apply(variables, memory.reset(h, reset), z, action, method='step')

    h, context = jax.lax.scan(follow, h, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (z, action, reset)))
    return h, jnp.swapaxes(context, 0, 1)


@functools.partial(jax.jit, static_argnums=0)
def losses(memory, variables, context, z, action, reset, keys):
    return memory.apply(variables, context, z, action, reset, keys, method='losses', mutable=['metrics'])


def recall(context, z, reset=RESET_BT, keys=None, memory=None):
    made, variables, _, _, action = setting()
    keys = keys_BT() if keys is None else keys
    terms, sown = losses(memory or made, variables, context, z, action, reset, keys)
    return *terms['recall'], sown['metrics']['recalled'][0]


# -- remembering -------------------------------------------------------------------------------------------------------


def test_scan_of_step_is_sequence():
    memory, variables, h, z, action = setting()
    h_step, stepped = steps(memory, variables, h, z, action, RESET_BT)
    h_sequence, context = sequence(memory, variables, h, z, action, RESET_BT)
    assert context.shape == (B, T, S, 8) == (B, T, memory.slots, memory.width)
    np.testing.assert_allclose(context, stepped, atol=1e-5)
    np.testing.assert_allclose(h_sequence, h_step, atol=1e-5)


def test_a_poisoned_past_changes_nothing_after_a_reset_and_stays_poisoned_without():
    memory, variables, h, z, action = setting()
    reset_BT = np.zeros((B, T), bool)
    reset_BT[:, 4] = True
    run = lambda h, z, action: sequence(memory, variables, h, z, action, reset_BT)
    clean_h, clean = run(h, z, action)
    dirty_z = dataclasses.replace(z, embedding_BNE=z.embedding_BNE.at[:, 1:4].set(np.nan))
    dirty_h, dirty = run(h, dirty_z, action.at[:, 1:4].set(np.nan))
    assert np.isnan(dirty[:, 1:4]).all()
    np.testing.assert_array_equal(dirty[:, :1], clean[:, :1])
    np.testing.assert_array_equal(dirty[:, 4:], clean[:, 4:])
    np.testing.assert_array_equal(dirty_h, clean_h)
    _, lost = run(h * np.nan, z, action)
    assert np.isnan(lost[:, :4]).all()
    np.testing.assert_array_equal(lost[:, 4:], clean[:, 4:])


def test_the_future_changes_nothing_before_it():
    memory, variables, h, z, action = setting()
    _, before = sequence(memory, variables, h, z, action, RESET_BT)
    reset_BT = RESET_BT.copy()
    reset_BT[:, 5:] = ~reset_BT[:, 5:]
    later = Latent(z.index_BN.at[:, 5:].set(0), z.embedding_BNE.at[:, 5:].set(7.0))
    _, after = sequence(memory, variables, h, later, action.at[:, 5:].set(-7.0), reset_BT)
    np.testing.assert_array_equal(after[:, :5], before[:, :5])
    assert (after[:, 5:] != before[:, 5:]).any()


def test_every_slot_begins_with_time_scales_from_one_tick_to_thousands():
    memory, variables, _, z, action = setting()
    rate = initializers.Spread(1, 16384).draw(None, (2 * S,))
    params = jax.tree.map(jnp.zeros_like, variables['params'])
    params['write']['rate'] = jnp.asarray(rate)
    log_a = memory.apply({'params': params}, z, action, method='_driven')[0][0, 0]
    scale = -1 / np.asarray(log_a)
    np.testing.assert_allclose(scale[:, 0], scale[:, 3], rtol=1e-5)  # a head's numbers share a gate
    np.testing.assert_allclose(scale[:, [0, 4]], 16384 ** (np.arange(6) / 5).reshape(2, 3).T, rtol=0.03)


# -- what is asked -----------------------------------------------------------------------------------------------------


def test_ages_are_of_the_episode_and_their_logarithm_is_uniform():
    keys = jax.random.split(jax.random.key(0), 4000)
    age = np.asarray(jax.jit(draw_age)(keys, jnp.full(4000, 63)))
    assert (age.min(), age.max()) == (1, 63)
    counts, _ = np.histogram(age, [1, 2, 4, 8, 16, 32, 64])  # six octaves
    assert counts.min() > 0.8 * 4000 / 6
    np.testing.assert_array_equal(draw_age(keys[:3], jnp.array([0, 1, 1])), [0, 1, 1])


def test_the_loss_is_of_ticks_with_a_past_and_never_reads_another_episode():
    memory, variables, h, z, action = setting()
    _, context = sequence(memory, variables, h, z, action, RESET_BT)
    loss, mask, (right, asked) = recall(context, z)
    assert mask.tolist() == [[0, *[1] * 6], [0, 1, 1, 1, 0, 1, 1], [0, *[1] * 5, 0], [0, 1, 1, 0, 0, 1, 1]]
    assert mask.sum() <= asked <= N * mask.sum()
    assert 0 <= right <= asked
    # Row 1 after its reset at 4, row 3 after 3 and 4: other frames before, other contexts, the same loss to the bit.
    other = Latent((z.index_BN + 1) % K, z.embedding_BNE * np.nan)
    early = np.zeros((B, T), bool)
    early[1, :4] = early[3, :4] = True
    keep = lambda a, b: jnp.where(early.reshape(B, T, *[1] * (a.ndim - 2)), a, b)
    changed, _, _ = recall(keep(context * np.nan, context), jax.tree.map(keep, other, z))
    np.testing.assert_array_equal(changed[~early], loss[~early])
    assert (changed[early] != loss[early]).any()
    # And nothing of the future: from 5 on all is other.
    late = np.broadcast_to(np.arange(T) >= 5, (B, T))
    keep = lambda a, b: jnp.where(late.reshape(B, T, *[1] * (a.ndim - 2)), a, b)
    changed, _, _ = recall(keep(context + 1, context), jax.tree.map(keep, other, z))
    np.testing.assert_array_equal(changed[~late], loss[~late])


def test_what_is_drawn_is_each_examples_own():
    memory, variables, h, z, action = setting()
    _, context = sequence(memory, variables, h, z, action, RESET_BT)
    loss, _, _ = recall(context, z)
    turn = lambda tree: jax.tree.map(lambda x: x[::-1], tree)
    turned, _, _ = recall(turn(context), turn(z), turn(RESET_BT), turn(keys_BT()))
    np.testing.assert_allclose(turned[::-1], loss, rtol=1e-4)
    assert (recall(context, z, keys=keys_BT(1))[0] != loss).mean() > 0.5


def test_recall_alone_trains_the_memory():
    memory, variables, h, z, action = setting()

    @jax.jit
    def gradient(params):
        def objective(params):
            both = lambda m: m.losses(m.sequence(h, z, action, RESET_BT)[1], z, action, RESET_BT, keys_BT())
            loss, mask = memory.apply({'params': params}, method=both, mutable=['metrics'])[0]['recall']
            return jnp.sum(loss * mask)

        return jax.grad(objective)(params)

    for path, g in jax.tree_util.tree_leaves_with_path(gradient(variables['params'])):
        assert np.isfinite(g).all()
        assert np.abs(g).max() > 1e-6, jax.tree_util.keystr(path)


def test_what_has_no_classes_is_filled_in_as_numbers_from_those_that_are_known():
    memory = make(classes=None, table=False, hide=0.0)
    _, _, _, z, action = setting()
    z = Latent(None, z.embedding_BNE)
    variables = variables_of(memory, z, action)

    @jax.jit
    def said(z, known):
        ask = lambda m: m.ask(z, known, jnp.ones(B, jnp.int32), jnp.ones((B, S, 8)))
        return memory.apply(variables, method=ask)

    first = Latent(None, z.embedding_BNE[:, 0])
    known = jnp.array([[True, False, False, False]] * B)
    numbers = said(first, known)
    assert numbers.shape == (B, N, E)
    hidden = Latent(None, first.embedding_BNE.at[:, 1:].set(9.0))
    np.testing.assert_array_equal(said(hidden, known), numbers)
    assert (said(Latent(None, first.embedding_BNE.at[:, 0].set(9.0)), known) != numbers).any((1, 2)).all()
    context = jnp.ones((B, T, S, 8))
    (loss, _), _ = losses(memory, variables, context, z, action, RESET_BT, keys_BT())[0]['recall'], None
    # Squares of what is asked: were all 10 times as large, about 100 times as much.
    large, _ = losses(memory, variables, context, Latent(None, 10 * z.embedding_BNE), action, RESET_BT, keys_BT())[0][
        'recall'
    ]
    assert 30 < float(large.mean() / loss.mean()) < 300


# -- slots that are hidden -----------------------------------------------------------------------------------------------


def test_a_suffix_of_slots_is_hidden_at_a_share_of_the_ticks():
    many = rng.per_tick(rng.per_example(rng.stream(0, 'test'), 0, jnp.arange(40)), 100)
    seen = np.asarray(jax.jit(lambda: draw_seen(many, 5, 0.5))())
    counts = np.bincount(seen.ravel(), minlength=6) / seen.size
    np.testing.assert_allclose(counts, [0, 0.125, 0.125, 0.125, 0.125, 0.5], atol=0.03)
    for slots, hide in ((5, 0.0), (1, 0.0)):
        assert (draw_seen(many[:2], slots, hide) == slots).all()


def test_hidden_slots_say_nothing_in_the_loss():
    memory, variables, h, z, action = setting()
    _, context = sequence(memory, variables, h, z, action, RESET_BT)
    loss, _, _ = recall(context, z)
    seen = np.asarray(draw_seen(rng.split(keys_BT(), 3)[2], S, memory.hide))
    assert {1, 2, 3} == set(seen.ravel().tolist())
    hidden = np.arange(S) >= seen[..., None]
    other, _, _ = recall(jnp.where(hidden[..., None], np.nan, context), z)
    np.testing.assert_array_equal(other, loss)
    moved, _, _ = recall(context.at[:, :, -1].add(1.0), z)
    assert ((moved != loss) == (seen == S))[RESET_BT == 0].mean() > 0.9


def test_slots_that_are_cut_change_nothing_of_those_before_them():
    memory, variables, h, z, action = setting()
    _, context = sequence(memory, variables, h, z, action, RESET_BT)
    _, other = sequence(memory, variables, h.at[:, 1:].add(1.0), z, action, RESET_BT & False)
    _, same = sequence(memory, variables, h, z, action, RESET_BT & False)
    np.testing.assert_array_equal(other[:, :, 0], same[:, :, 0])
    assert (other[:, :, 1:] != same[:, :, 1:]).all((2, 3)).any()
    cut = make(shown=2)  # the same variables
    cut_h, shown = sequence(cut, variables, h[:, :2], z, action, RESET_BT)
    np.testing.assert_allclose(shown[:, :, :2], context[:, :, :2], atol=1e-5)
    np.testing.assert_array_equal(shown[:, :, 2:], 0)
    assert (cut.slots, cut_h.shape) == (S, (B, 2, 8))
    assert cut.initial(B)[1].shape == (B, S, 8)


# -- its price, and what it refuses ----------------------------------------------------------------------------------------


def test_bytes_use_and_cost():
    memory, *_ = setting()
    assert memory.nbytes(3) == 3 * 4 * S * 8
    assert make(shown=1).nbytes() == 4 * 8
    h = jnp.ones((2, S, 8)).at[0, 1, :4].set(0.001)
    total, count = memory.use(h)['filled']
    np.testing.assert_allclose([total, count], [5 / 6 + 1, 2])
    whole = Masked(classes=512, layout=Layout(((8, 8),)), table=False, dtype='float32')
    z = Latent(jnp.zeros((1, 64), jnp.int32), jnp.zeros((1, 64, 16)))
    begin = lambda key: whole.init_with_output(key, whole.initial(1)[0], z, jnp.zeros((1, 4)), method='step')[0]
    assert whole.nbytes() == 4096
    assert round(flops.count(jax.make_jaxpr(begin)(jax.random.key(0))) / 1e6, 1) == 11.1


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'shown': 9}, 'memory.shown is 9: there are 8 slots to show; give no more, or 0 for all'),
        ({'slots': 1}, 'memory.hide is 0.5, and of one slot none can be hidden: give slots=2 or more, or hide=0'),
        ({'slots': 0}, 'model.memory.slots is 0; it takes a whole number from 1'),
        ({'hide': 1.5}, 'model.memory.hide is 1.5; it takes a share of at least 0 and below 1'),
        ({'heads': 3}, 'model.memory.heads is 3; it takes a divisor of its width, 128'),
        ({'slot': 3}, "model.memory.slot is no field of memory 'Masked'; did you mean 'slots'"),
    ],
)
def test_refused_in_one_sentence(fields, says):
    chosen = config('palette', 'masked', 'masked', 'frame', ('transition',), 'departure')
    chosen['memory'] = {'kind': 'masked', **fields}
    with pytest.raises(ValueError, match=says) as error:
        build_model(chosen, SPEC, 'float32')
    assert '\n' not in str(error.value)
