"""Copies from the cells around: what stood beside a token may be what stands there next."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from worldmodels.filter import Posterior
from worldmodels.nn.infill import Infill
from worldmodels.nn.slots import surrounding
from worldmodels.transition.masked import Masked
from worldmodels.types import Latent, Layout

B, H, W, K = 16, 4, 5, 200
GRID = Layout(((H, W),))


def test_the_cells_around_a_cell():
    index_BN = jnp.arange(6)[None].repeat(2, 0)  # 0 1 2 / 3 4 5
    around = np.asarray(surrounding(index_BN, (2, 3), 9))
    assert around.shape == (2, 6, 9)
    np.testing.assert_array_equal(around[0, 0], [9, 9, 9, 9, 0, 1, 9, 3, 4])
    np.testing.assert_array_equal(around[1, 4], [0, 1, 2, 3, 4, 5, 9, 9, 9])


def test_amounts_are_added_to_the_classes_pointed_at_and_to_no_other():
    infill = Infill(K, 8, 1, 2, 8, GRID, False, 'float32')
    keys = jax.random.split(jax.random.key(0), 2)
    given_BND = jax.random.normal(keys[0], (2, H * W, 8))
    known = (jnp.zeros((2, H * W), jnp.int32), jnp.zeros((2, H * W), bool), given_BND, given_BND[:, :0])
    source = surrounding(jax.random.randint(keys[1], (2, H * W), 0, K), (H, W), K)
    variables = jax.jit(infill.init)(jax.random.key(1), *known, source)
    added = infill.apply(variables, *known, source) - infill.apply(variables, *known)
    pointed = jax.nn.one_hot(source, K).sum(2) > 0
    assert (np.abs(added[pointed]) > 0).all()
    assert (added[~pointed] == 0).all()
    assert (infill.apply(variables, *known, jnp.full_like(source, K)) == infill.apply(variables, *known)).all()


def scrolled(seed: int):
    """Grids of tokens, the action, and the grids scrolled left by it, new tokens coming in from the right; or not."""
    rng = np.random.default_rng(seed)
    before = rng.integers(0, K, (B, H, W))
    moved = rng.integers(0, 2, B)
    after = np.concatenate([before[:, :, 1:], rng.integers(0, K, (B, H, 1))], 2)
    after = np.where(moved[:, None, None], after, before)
    return before.reshape(B, -1), jax.nn.one_hot(moved, 2), after.reshape(B, -1), moved


def foretold(moves: bool) -> float:
    """Share of the tokens that scrolled, of grids never seen, that a short training gets right."""
    sizes = {'width': 16, 'depth': 1, 'heads': 2, 'hidden': 32}
    transition = Masked(K, GRID, True, True, 'float32', neighbours=True, moves=moves, **sizes)
    known = lambda m, before, action: m.predict(Latent(before, jnp.zeros((B, H * W, 0))), action, jnp.zeros((B, 0, 1)))
    loss = lambda m, b, a, after, keys_B: m.loss(known(m, b, a), Posterior(Latent(after, None), None), keys_B)
    logits = lambda m, b, a: m.logits(known(m, b, a), b, jnp.zeros(b.shape, bool))

    params = jax.jit(lambda: transition.init(jax.random.key(0), *scrolled(0)[:2], method=logits))()['params']
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, opt_state, *batch):
        cost = lambda p: jnp.mean(transition.apply({'params': p}, *batch, method=loss)['transition'])
        updates, opt_state = optimizer.update(jax.grad(cost)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    opt_state = optimizer.init(params)
    for i in range(120):
        params, opt_state = step(params, opt_state, *scrolled(1 + i)[:3], jax.random.split(jax.random.key(i), B))
    before, action, after, moved = scrolled(1000)
    drawn = jnp.argmax(transition.apply({'params': params}, before, action, method=logits), -1)
    right = np.asarray(drawn == after).reshape(B, H, W)
    return float(right[moved == 1, :, :-1].mean())


def test_a_view_that_scrolls_is_learned_in_a_hundred_steps_with_copies_and_not_without():
    assert foretold(True) > 0.95
    assert foretold(False) < 0.5


def test_copies_need_a_grid():
    with pytest.raises(ValueError, match='lie on no single grid; take moves=false'):
        Masked(K, Layout(loose=4), True, True, 'float32', moves=True)
