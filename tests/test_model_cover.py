"""A pairwise cover of the grid truly trains, dreams, saves and restores; with --grid, all of it (`make grid`)."""

from __future__ import annotations

import functools
import itertools
import operator
import random
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from models import AXES, MEMORIES, READERS, SPEC, experience, fitted, model, refusal

from worldmodels import rng, rollout
from worldmodels.build import init_variables
from worldmodels.training.losses import losses


def pairs(choice: tuple) -> set:
    """Pairs of values of different factors; of the parts that may read the memory, each is a factor."""
    heart, transition, memory, reads, context_to, outcome_reads = choice
    factors = (heart, transition, memory, reads, outcome_reads, *(reader in context_to for reader in READERS))
    return set(itertools.combinations(enumerate(factors), 2))


def grid() -> list[tuple]:
    """Every combination that makes sense."""
    return [c for c in itertools.product(*AXES) if not refusal(*c)]


@functools.cache
def cover() -> list[tuple]:
    """Combinations that hold every pair of values any valid combination holds: the fewest of some greedy choices."""
    valid = grid()
    held = {c: pairs(c) for c in valid}
    number = {pair: i for i, pair in enumerate(sorted(set().union(*held.values())))}
    bits = {c: sum(1 << number[pair] for pair in held[c]) for c in valid}
    together = lambda chosen: functools.reduce(operator.or_, (bits[c] for c in chosen), 0)
    tried = []
    for seed in range(20):
        order = random.Random(seed).sample(valid, len(valid))
        chosen, missing = [], (1 << len(number)) - 1
        while missing:
            chosen.append(max(order, key=lambda c: (bits[c] & missing).bit_count()))
            missing &= ~bits[chosen[-1]]
        for c in list(chosen):
            rest = [other for other in chosen if other != c]
            chosen = rest if together(rest) == together(chosen) else chosen
        tried.append(chosen)
    return min(tried, key=len)


def test_the_cover_covers_and_is_small():
    valid = grid()
    assert set().union(*(pairs(c) for c in cover())) == set().union(*(pairs(c) for c in valid))
    # Fewer than five per memory cannot be: three tokenizers, and a categorical heart that reads in two more ways.
    assert len(cover()) <= 5 * len(MEMORIES) + 1


def share(choices: list[tuple], part: str) -> list[tuple]:
    """Part 'i/n' of them, 1/n to n/n: every n-th, so that each part has something of all."""
    given = re.fullmatch(r'(\d+)/(\d+)', part)
    i, n = map(int, given.groups()) if given else (0, 0)
    if not 1 <= i <= n:
        raise pytest.UsageError(
            f'--grid={part}: give a part such as 3/20, from 1/20 to 20/20, or none for the whole grid.'
        )
    return choices[i - 1 :: n]


def test_the_parts_of_the_grid_are_the_grid():
    parts = [share(grid(), f'{i}/7') for i in range(1, 8)]
    assert sorted(map(repr, itertools.chain(*parts))) == sorted(map(repr, grid()))
    assert {c[0] for c in parts[3]} == {c[0] for c in grid()}


def pytest_generate_tests(metafunc):
    if 'choice' in metafunc.fixturenames:
        part = metafunc.config.getoption('grid')
        choices = share(grid(), part) if part else cover()
        name = lambda c: '-'.join('+'.join(x) if isinstance(x, tuple) else x for x in c)
        metafunc.parametrize('choice', choices, ids=name)


def test_trains_dreams_and_survives_a_checkpoint(choice, tmp_path):
    m = model(*choice)
    ticks = experience(3, 6, firsts=((0, 0), (1, 3)))
    variables = fitted(m, init_variables(m, 0), ticks)
    optimizer = optax.adam(3e-3)
    opt_state = optimizer.init(variables['params'])
    keys_B = rng.per_example(rng.stream(0, 'train'), 0, ticks.example_B)

    @jax.jit
    def step(params, opt_state):
        def total(params):
            terms, _, _ = losses(m, {**variables, 'params': params}, ticks, None, keys_B)
            return sum(jnp.sum(loss * mask) / jnp.sum(mask) for loss, mask in terms.values())

        loss, grads = jax.value_and_grad(total)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params, history = variables['params'], []
    for _ in range(25):
        params, opt_state, loss = step(params, opt_state)
        history.append(float(loss))
    assert np.isfinite(history).all()
    assert history[-1] < 0.98 * history[0], history
    assert step._cache_size() == 1

    trained = {**variables, 'params': params}
    checkpointer = ocp.StandardCheckpointer()
    checkpointer.save(tmp_path / 'saved', trained)
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(tmp_path / 'saved', jax.eval_shape(lambda: trained))
    chex.assert_trees_all_equal(restored, trained)

    def dream(variables):
        belief, _ = rollout.observe(m, variables, ticks, rng.per_tick(keys_B, 6))
        action = jnp.zeros((3, 8), jnp.int32)
        return rollout.imagine(m, variables, belief, rng.per_tick(keys_B, 8, 6), action=action)[1]

    dream = jax.jit(dream)
    dreamed = dream(jax.device_get(restored))
    assert dreamed.observation['image'].shape == (3, 8, 16, 16, 3)
    assert all(np.isfinite(dreamed.outcomes[k]).all() for k in SPEC.outcomes)
    chex.assert_trees_all_equal(dreamed, dream(jax.device_get(trained)))
    assert dream._cache_size() == 1
