"""Tokens one after the other: cached and not, causal to the bit, its likelihood exact, a known distribution learned."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from worldmodels import rng
from worldmodels.filter import Posterior
from worldmodels.nn.distributions import categorical_draw
from worldmodels.transition.autoregressive import Autoregressive
from worldmodels.types import Latent, Layout

B, N, K, A, E, M = 3, 6, 5, 2, 4, 2
TOKENS = np.random.default_rng(0).integers(0, K, (B, N)).astype(np.int32)


def keys(count=B, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def given():
    """(z, action, context) of a departure, the context being two further slots."""
    random = np.random.default_rng(1)
    numbers = lambda *shape: random.normal(size=(B, *shape)).astype(np.float32)
    return (
        Latent(jnp.asarray(TOKENS[::-1]), jnp.asarray(numbers(N, E))),
        jnp.asarray(numbers(A)),
        jnp.asarray(numbers(M, E)),
    )


@functools.cache
def setting(dtype='float32'):
    """A module whose parameters have all been shaken, and a function of its methods."""
    module = Autoregressive(K, Layout(((2, 3),)), True, False, dtype, width=16, depth=2, heads=2, hidden=16)
    posterior = Posterior(given()[0], None)
    begin = lambda m: m.loss(m.predict(*given()), posterior, keys())
    variables = {'params': jax.jit(lambda: module.init(jax.random.key(0), method=begin))()['params']}
    leaves, tree = jax.tree.flatten(variables)
    random = np.random.default_rng(2)
    shaken = [jnp.asarray(x + 0.3 * random.normal(size=x.shape), dtype) for x in leaves]
    return module, tree.unflatten(shaken)


def forced(m, departure, index_BN):
    return m.logits(m.predict(*departure), index_BN)


def stepped(m, departure, index_BN):
    """The logits that drawing sees, had it drawn these tokens."""
    known = m.predict(*departure)

    def step(carry, inputs):
        slot, given_BD, index_B = inputs
        cache, logits_BK = m.network.step(carry[0], slot, given_BD, carry[1])
        return (cache, index_B), logits_BK

    inputs = (N + M + jnp.arange(N), known.given_BND.swapaxes(0, 1), index_BN.T)
    _, logits_NBK = jax.lax.scan(step, (m.network.begin(known), jnp.full(B, K)), inputs)
    return logits_NBK.swapaxes(0, 1) + m._stay(known)


def drawn(m, departure, keys_B, temperature=1.0):
    return m.sample(m.predict(*departure), keys_B, temperature=temperature)


def repeated(m, departure, keys_B, temperature):
    """Token n drawn from a whole pass over the tokens before it."""
    uniform_BN = rng.draw(lambda key: jax.random.uniform(key, (N,)), keys_B)

    def token(n, index_BN):
        logits_BNK = forced(m, departure, index_BN)
        drawn_BN = categorical_draw(logits_BNK, uniform_BN, temperature)
        return jnp.where(jnp.arange(N) == n, drawn_BN, index_BN)

    return jax.lax.fori_loop(0, N, token, jnp.zeros((B, N), jnp.int32))


@functools.cache
def compiled(method, dtype='float32', **static):
    module, variables = setting(dtype)
    return jax.jit(lambda *args: module.apply(variables, *args, **static, method=method))


def test_what_is_drawn_step_by_step_has_the_logits_of_one_pass():
    np.testing.assert_allclose(compiled(stepped)(given(), TOKENS), compiled(forced)(given(), TOKENS), atol=1e-5)


def test_a_cached_draw_is_the_draw_of_as_many_passes():
    """In float64 the same tokens."""
    with jax.enable_x64(True):
        departure = given()
        cached, passes = (compiled(f, 'float64', temperature=0.7) for f in (drawn, repeated))
        np.testing.assert_array_equal(cached(departure, keys()), passes(departure, keys()))


def test_without_temperature_every_token_is_the_most_likely_after_those_before_it():
    index_BN = compiled(drawn, temperature=0)(given(), keys())
    np.testing.assert_array_equal(index_BN, compiled(forced)(given(), index_BN).argmax(-1))


def test_no_token_is_told_of_itself_or_of_what_comes_after():
    """To the bit, and of all that comes before it each is told."""
    before = compiled(forced)(given(), TOKENS)
    for n in range(N):
        after = compiled(forced)(given(), np.where(np.arange(N) == n, (TOKENS + 1) % K, TOKENS))
        np.testing.assert_array_equal(after[:, : n + 1], before[:, : n + 1])
        assert all((after[:, m] != before[:, m]).any() for m in range(n + 1, N))


def test_every_token_is_told_of_the_whole_departure_the_action_and_the_context():
    z, action, context = given()
    before = compiled(forced)(given(), TOKENS)
    for changed in (
        (Latent((z.index_BN.at[:, -1].add(1)) % K, z.embedding_BNE), action, context),
        (Latent(z.index_BN, z.embedding_BNE.at[:, -1].add(1)), action, context),
        (z, action.at[:, 0].add(1), context),
        (z, action, context.at[:, -1].add(1)),
    ):
        assert (np.abs(compiled(forced)(changed, TOKENS) - before).max(-1) > 0).all()


def test_its_probabilities_of_all_frames_sum_to_one():
    frames_XN = jnp.asarray(list(itertools.product(range(3), repeat=2)))
    module = Autoregressive(3, Layout(loose=2), False, False, 'float32', width=8, depth=1, heads=2, hidden=8)
    X = len(frames_XN)
    z = Latent(jnp.zeros((X, 2), jnp.int32), jnp.zeros((X, 2, 1)))
    run = lambda m: m.log_prob(m.predict(z, jnp.zeros((X, 1)), jnp.zeros((X, 0, 1))), Latent(frames_XN, None))
    log_prob_X, _ = jax.jit(lambda: module.init_with_output(jax.random.key(0), method=run))()
    np.testing.assert_allclose(jnp.exp(log_prob_X).sum(), 1, rtol=1e-5)
    assert np.ptp(log_prob_X) > 0.1


def test_an_example_draws_alike_in_any_batch():
    whole = compiled(drawn)(given(), keys())
    back = lambda tree: jax.tree.map(lambda x: x[::-1], tree)
    np.testing.assert_array_equal(compiled(drawn)(back(given()), keys()[::-1]), whole[::-1])
    alone = compiled(drawn)(*jax.tree.map(lambda x: x[1:2], (given(), keys())))
    np.testing.assert_array_equal(alone[0], whole[1])
    assert (whole != compiled(drawn)(given(), keys(seed=7))).any()


def test_a_known_distribution_is_learned_and_drawn():
    """Two tokens that no product of independent ones can give: equal, and 0 three times as often as 1. Action 1 swaps them."""
    module = Autoregressive(2, Layout(loose=2), False, False, 'float32', width=16, depth=1, heads=2, hidden=16)
    batch = 128
    nothing = lambda action: (
        Latent(jnp.zeros((batch, 2), jnp.int32), jnp.zeros((batch, 2, 1))),
        jnp.full((batch, 1), action, jnp.float32),
        jnp.zeros((batch, 0, 1)),
    )

    def frames(key, action):
        coin_B = jax.random.bernoulli(key, 0.25, (batch,)).astype(jnp.int32)
        return jnp.stack([coin_B, coin_B], 1) ^ action

    def loss(m, key):
        terms = [
            m.loss(m.predict(*nothing(a)), Posterior(Latent(frames(key, a), None), None), keys(batch))['transition']
            for a in (0, 1)
        ]
        return jnp.mean(jnp.stack(terms))

    variables = jax.jit(lambda key: {'params': module.init(key, key, method=loss)['params']})(jax.random.key(0))
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(carry, key):
        variables, opt_state = carry
        grads = jax.grad(lambda v: module.apply(v, key, method=loss))(variables)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(variables, updates), opt_state), None

    carry = (variables, optimizer.init(variables))
    (variables, _), _ = jax.lax.scan(step, carry, jax.random.split(jax.random.key(1), 300))

    @jax.jit
    def asked(variables, action, pair_N):
        def ask(m):
            known = m.predict(*nothing(action))
            return m.sample(known, keys(batch, 9)), m.log_prob(known, Latent(jnp.tile(pair_N, (batch, 1)), None))

        return module.apply(variables, method=ask)

    for action in (0, 1):
        sampled, log_prob_B = asked(variables, action, jnp.full(2, action))
        assert (sampled[:, 0] == sampled[:, 1]).mean() > 0.97
        np.testing.assert_allclose((sampled == action).mean(), 0.75, atol=0.13)
        np.testing.assert_allclose(np.exp(log_prob_B), 0.75, atol=0.06)


def test_a_posterior_of_probabilities_learns_from_it_and_it_from_the_posterior():
    """By KLs of each token after tokens of the posterior, summed: `balanced_kl`, without free nats here."""
    module, variables = setting()
    logits_BNK = jnp.asarray(np.random.default_rng(3).normal(size=(B, N, K)), jnp.float32)

    def terms(variables, logits_BNK):
        log_q = jax.nn.log_softmax(logits_BNK)

        def loss(m):
            known = m.predict(*given())
            log_p = jax.nn.log_softmax(m.logits(known, TOKENS))
            by_hand = jnp.sum(jnp.exp(log_q) * (log_q - log_p), (1, 2))
            return m.loss(known, Posterior(Latent(TOKENS, None), log_q), keys()), by_hand

        found, by_hand = module.clone(free_nats=0.0).apply(variables, method=loss)
        return {k: jnp.sum(x) for k, x in found.items()}, (found, by_hand)

    slopes, (found, by_hand) = jax.jit(jax.jacrev(terms, argnums=(0, 1), has_aux=True))(variables, logits_BNK)
    np.testing.assert_allclose(found['dynamics'], by_hand, rtol=1e-5)
    np.testing.assert_allclose(found['representation'], by_hand, rtol=1e-5)
    size = lambda tree: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))
    assert size(slopes['dynamics'][0]) > 0
    assert size(slopes['representation'][1]) > 0
    assert size(slopes['dynamics'][1]) == size(slopes['representation'][0]) == 0
