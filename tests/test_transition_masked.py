"""The masked network: what is masked, how it is filled in, and that a cached dream is the uncached one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import experience, model

from worldmodels import rng, rollout
from worldmodels.build import init_variables
from worldmodels.filter import Posterior
from worldmodels.nn.infill import SCHEDULES, decode, draw_known, mask_rate, ranks
from worldmodels.nn.slots import Known, guided, unsaid
from worldmodels.types import Latent

B, N, K = 3, 16, 7
CONTEXT, HORIZON = 4, 8
CHOICES = [
    ('tokens', 'masked', 'window', 'frame', ('transition', 'outcome'), 'departure'),
    ('palette', 'categorical', 'window', 'frame', ('transition',), 'arrival'),
    ('palette', 'autoregressive', 'window', 'frame', ('transition', 'outcome'), 'departure'),
]
GUIDED = [CHOICES[0], CHOICES[2], ('continuous', 'flow', 'none', 'frame', ('transition',), 'departure')]


def keys(count=B, seed=0):
    return jax.random.split(jax.random.key(seed), count)


# -- masks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('schedule', 'low', 'high', 'mean'), [('cosine', 0, 1, 2 / np.pi), ('upper_half', 0.5, 1, 0.75)]
)
def test_mask_schedules(schedule, low, high, mean):
    rate = mask_rate(jnp.linspace(0, 1, 10_001), schedule)
    assert low - 1e-6 <= rate.min()
    assert rate.max() <= high
    np.testing.assert_allclose(rate.mean(), mean, atol=1e-3)


@pytest.mark.parametrize('schedule', ['cosine', 'upper_half'])
def test_training_always_asks_for_something(schedule):
    known = np.asarray(draw_known(keys(2000), N, schedule))
    asked = N - known.sum(1)
    assert asked.min() >= (1 if schedule == 'cosine' else N // 2)
    assert asked.max() == N
    # No place is favoured.
    np.testing.assert_allclose(known.mean(0), known.mean(), atol=0.06)


# -- decoding -----------------------------------------------------------------------------------------------------------


def test_rounds_keep_the_cosine_share_and_never_change_what_is_known():
    seen = []

    def logits_of(index, known):
        jax.debug.callback(lambda i, k: seen.append((np.array(i), np.array(k))), index, known, ordered=True)
        return jax.random.normal(jax.random.key(1), (B, N, K))

    out = np.asarray(decode(logits_of, keys(), N, steps=4))
    jax.effects_barrier()
    known = [k.sum(1).tolist() for _, k in seen]
    assert known == [[N - int(N * np.cos(np.pi / 2 * i / 4))] * B for i in range(4)]
    for index, mask in seen:
        np.testing.assert_array_equal(index[mask], out[mask])


@pytest.mark.parametrize('steps', [1, 3, N])
def test_no_temperature_takes_the_most_likely(steps):
    logits = jax.random.normal(jax.random.key(1), (B, N, K))
    out = decode(lambda i, k: logits, keys(), N, steps=steps, temperature=0.0)
    np.testing.assert_array_equal(out, jnp.argmax(logits, -1))


def test_confident_tokens_come_first():
    logits = jnp.zeros((1, N, K)).at[0, :, 0].set(jnp.arange(N, dtype=float))
    first = []

    def logits_of(index, known):
        jax.debug.callback(lambda k: first.append(np.array(k[0])), known, ordered=True)
        return logits

    decode(logits_of, keys(1), N, steps=4, temperature=0.0, choice=0.0)
    jax.effects_barrier()
    for known in first:
        assert known.tolist() == sorted(known.tolist())  # the last, surest places are the known ones


def test_independent_tokens_are_drawn_from_their_distribution():
    p = jnp.array([0.1, 0.2, 0.7])
    logits = jnp.broadcast_to(jnp.log(p), (4000, 2, 3))
    out = np.asarray(decode(lambda i, k: logits, keys(4000), 2, steps=1))
    share = np.stack([(out == c).mean(0) for c in range(3)], -1)
    np.testing.assert_allclose(share, np.tile(p, (2, 1)), atol=0.03)


def test_an_example_draws_alike_in_any_batch():
    logits = jax.random.normal(jax.random.key(1), (B, N, K))
    whole = decode(lambda i, k: logits, keys(), N, steps=3)
    alone = decode(lambda i, k: logits[1:2], keys()[1:2], N, steps=3)
    np.testing.assert_array_equal(whole[1:2], alone)


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match='at least 1'):
        decode(lambda i, k: None, keys(), N, steps=0)


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_schedules_keep_ever_more_and_end_with_all(schedule):
    share = [SCHEDULES[schedule](t / 8) for t in range(9)]
    np.testing.assert_allclose([share[0], share[-1]], [1, 0], atol=1e-12)
    assert (np.diff(share) < 0).all()
    half = {'linear': 0.5, 'square': 0.75, 'root': 1 - 0.5**0.5, 'cosine': 0.5**0.5}[schedule]
    np.testing.assert_allclose(share[4], half)


def turns(**dials):
    """After how many rounds each token of each example is known, for logits that are surest of the last tokens."""
    logits = jnp.zeros((B, N, K)).at[:, :, 0].set(jnp.arange(N, dtype=float))
    known = []

    def logits_of(index, mask):
        jax.debug.callback(lambda k: known.append(np.array(k)), mask, ordered=True)
        return logits

    decode(logits_of, keys(), N, steps=N, schedule='linear', choice=0.0, temperature=0.0, **dials)
    jax.effects_barrier()
    assert [int(k.sum(1).max()) for k in known] == list(range(N))
    return N - np.sum(known, 0)


def test_the_order_decides_which_tokens_are_kept_first():
    np.testing.assert_array_equal(turns(order='raster'), np.tile(1 + np.arange(N), (B, 1)))
    np.testing.assert_array_equal(turns(order='confidence'), np.tile(N - np.arange(N), (B, 1)))
    np.testing.assert_array_equal(turns(order='halton', grid=(4, 4)), np.tile(1 + ranks('halton', N, (4, 4)), (B, 1)))
    random = turns(order='random')
    assert (np.sort(random) == 1 + np.arange(N)).all()
    assert (random[0] != random[1]).any(), 'each example has its own'


@pytest.mark.parametrize('grid', [(8, 8), (4, 6), None])
def test_haltons_order_is_spread_over_the_grid_from_its_first_tokens_on(grid):
    tokens = np.prod(grid or (40,))
    order = np.argsort(ranks('halton', tokens, grid))
    assert sorted(order) == list(range(tokens))
    height, width = grid or (tokens, 1)
    first = order[: 2 * tokens // 4]
    halves = [(first // width < height / 2).mean()] + ([(first % width < width / 2).mean()] if grid else [])
    np.testing.assert_allclose(halves, 0.5, atol=0.15)


def test_decodings_that_there_are_not_are_refused():
    for wrong, says in (
        ({'schedule': 'cosin'}, "schedule 'cosin'; take one of cosine"),
        ({'order': 'last'}, "order 'last'"),
    ):
        with pytest.raises(ValueError, match=says):
            decode(lambda i, k: None, keys(), N, steps=2, **wrong)
        with pytest.raises(ValueError, match=says):
            model(*CHOICES[0]).transition.clone(**wrong)
    with pytest.raises(ValueError, match="mask 'cos'; take one of cosine, upper_half"):
        model(*CHOICES[0]).transition.clone(mask='cos')


# -- guidance -----------------------------------------------------------------------------------------------------------


def test_the_action_is_left_unsaid_in_its_share_of_training_and_nothing_else_is():
    known = Known(jnp.ones((4000, 2, 3)), jnp.ones((4000, 3)), jnp.ones((4000, 1, 3)), jnp.zeros((4000, 2), jnp.int32))
    after = unsaid(known, keys(4000), 0.25)
    said_B = np.asarray(after.action_BD).all(1)
    assert (np.asarray(after.action_BD).any(1) == said_B).all()
    np.testing.assert_allclose(said_B.mean(), 0.75, atol=0.03)
    np.testing.assert_array_equal(after.given_BND[:, 0, 0], 1 + said_B)
    assert (after.context_BMD == 1).all()
    assert unsaid(known, None, 0.0) is known


def test_guidance_counts_what_the_action_adds_once_more():
    known = Known(jnp.ones((2, 3, 4)), jnp.arange(8.0).reshape(2, 4), jnp.ones((2, 1, 4)), jnp.zeros((2, 3), jnp.int32))
    network = lambda known, x_B: known.given_BND.sum((1, 2)) * x_B
    told, untold = network(known, 1.0), network(known.replace(action_BD=jnp.zeros((2, 4))), 1.0)
    for weight in (0.0, 0.5, 2.0):
        said = guided(network, known, weight)(jnp.ones(2))
        np.testing.assert_allclose(said, (1 + weight) * told - weight * untold)


@pytest.mark.parametrize('choice', GUIDED, ids=lambda c: c[1])
def test_guidance_is_a_dial_of_transitions_that_were_trained_for_it(choice):
    m = model(*choice)
    with pytest.raises(ValueError, match='train with drop_action'):
        m.transition.clone(guidance=1.0)
    transition = m.transition.clone(drop_action=0.2)
    assert 'guidance' in transition.DIALS
    tokens = (B, m.heart.layout.tokens)
    numbers = jnp.asarray(np.random.default_rng(0).normal(size=(*tokens, m.heart.embedding_size)), jnp.float32)
    z = Latent(None if m.heart.classes is None else jnp.ones(tokens, jnp.int32), numbers)
    nothing_BMD = jnp.zeros((B, 0, 1))

    def train(module):
        return module.loss(module.predict(z, jnp.zeros((B, 5)), nothing_BMD), Posterior(z, None), keys())

    variables = jax.jit(lambda: {'params': transition.init(jax.random.key(0), method=train)['params']})()

    @jax.jit
    def draw(action_BA):
        def ask(module):
            known = module.predict(z, action_BA, nothing_BMD)
            return [module.sample(known, keys(), temperature=0, guidance=w) for w in (0.0, 3.0)]

        return transition.apply(variables, method=ask)

    plain, strong = draw(8.0 * jax.nn.one_hot(jnp.arange(B), 5))
    assert (plain != strong).any()
    # Where nothing is said there is nothing to add.
    for one, two in zip(*draw(jnp.zeros((B, 5)))):
        np.testing.assert_allclose(one, two, atol=1e-5)


# -- cached = uncached --------------------------------------------------------------------------------------------------


def uncached(m, variables, ticks, actions, keys_BT):
    """A dream that keeps nothing: for every frame the whole history is remembered again from its first tick."""
    indices = m.apply(variables, rollout.fold_time(ticks.observation), method='encode').index_BN
    history, contexts = rollout.unfold_time(indices, B), []
    vectors = m.spec.action.vector(jnp.concatenate([ticks.action, actions], 1))
    for t in range(HORIZON):
        length = CONTEXT + t
        reset = jnp.zeros((B, length), bool).at[:, 0].set(True).at[1, 2].set(True)
        led = jnp.where(reset[..., None], 0.0, vectors[:, :length])

        def dream(model, history=history, led=led, reset=reset, length=length, t=t):
            z = model.latent(history)
            context = model.memory.sequence(None, z, led, reset)[1][:, -1]
            last = jax.tree.map(lambda x: x[:, -1], z)
            prediction = model.predict(last, vectors[:, length], context)
            key = rng.split(rng.split(keys_BT[:, t], 2)[1], 2)[0]
            return model.transition.sample(prediction, key), context

        index, context = jax.jit(lambda v, dream=dream: m.apply(v, method=dream))(variables)
        history = jnp.concatenate([history, index[:, None]], 1)
        contexts.append(context)
    return history[:, CONTEXT:], jnp.stack(contexts, 1)


def cached(m, variables, ticks, actions, keys_BT):
    belief, _ = rollout.observe(m, variables, ticks, rng.per_tick(keys(B, 5), CONTEXT))
    contexts, tokens = [], []
    for t in range(HORIZON):
        contexts.append(belief.context_BMD)
        belief, dream = rollout.imagine(m, variables, belief, keys_BT[:, t : t + 1], action=actions[:, t : t + 1])
        tokens.append(dream.index_BTN[:, 0])
    return jnp.stack(tokens, 1), jnp.stack(contexts, 1)


@pytest.mark.parametrize('choice', CHOICES, ids=lambda c: f'{c[0]}-{c[1]}')
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_a_cached_dream_is_the_uncached_one(choice, dtype):
    """Contexts and logits to 1e-5 where the histories agree; in float64 the same tokens throughout, past the window."""
    with jax.enable_x64(dtype == 'float64'):
        m = model(*choice, dtype=dtype)
        variables = init_variables(m, 1)
        if dtype == 'float64':
            wide = lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
            variables = jax.tree.map(wide, variables)
        ticks = experience(B, CONTEXT, firsts=((0, 0), (1, 2)))
        actions = jax.random.randint(jax.random.key(3), (B, HORIZON), 0, 5)
        keys_BT = rng.per_tick(keys(B, 7), HORIZON)
        kept, contexts = cached(m, variables, ticks, actions, keys_BT)
        again, recomputed = uncached(m, variables, ticks, actions, keys_BT)

        def logits(z_BTN, context_BTMD):
            """Of every frame, given nothing of it: what the first round of decoding sees."""

            def read(model, index_BN, context_BMD):
                z = model.latent(index_BN)
                known = model.predict(z, jnp.zeros((len(index_BN), 5)), context_BMD)
                unknown = jnp.zeros(index_BN.shape, bool)
                if not hasattr(model.transition, 'logits'):
                    return known
                return model.transition.logits(known, index_BN, *[unknown] * hasattr(model.transition, 'infill'))

            return m.apply(variables, *rollout.fold_time((z_BTN, context_BTMD)), method=read)

        alike = int(np.cumprod((np.asarray(kept) == np.asarray(again)).all((0, 2))).sum())
        assert alike == HORIZON if dtype == 'float64' else alike >= 1
        np.testing.assert_allclose(contexts[:, :alike], recomputed[:, :alike], atol=1e-5)
        for a, b in zip(*(jax.tree.leaves(logits(kept[:, :alike], c[:, :alike])) for c in (contexts, recomputed))):
            np.testing.assert_allclose(a, b, atol=1e-5)
