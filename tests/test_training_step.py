"""The step: what it optimises, what it skips, what it leaves alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_fake as fake

from worldmodels.training import config as config_lib
from worldmodels.training import flops, parallel, state, step
from worldmodels.training.optimizer import clip_by_parameter_norm, make_optimizer, make_schedule


@functools.cache
def _make(items):
    config = fake.config(**dict(items))
    step_config = config_lib.step_config(config)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    variables = fake.init()
    belief = fake.MODEL.apply(variables, config.data.batch_size, method='initial')
    start = state.create(variables, optimizer, step_config.parts, step_config.ema, belief)
    bound = {'model': fake.MODEL, 'config': step_config, 'losses': fake.losses}
    run = functools.partial(step.train_step, optimizer=optimizer, **bound)
    return start, run, bound, jax.jit(run)


def make(**fields):
    """(state, step, what it is bound to, jitted step) of a tiny experiment, compiled once for all that share it."""
    return _make(tuple(sorted(fields.items())))


def same(a, b):
    return all(
        np.array_equal(x, y, equal_nan=True) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_the_loss_is_the_weighted_sum_of_masked_means():
    start, _, _, run = make()
    ticks = next(fake.Batches(8, 4, True))
    _, metrics = run(start, ticks)
    mean = {k: metrics[f'loss/{k}'][0] / metrics[f'loss/{k}'][1] for k in ('reconstruction', 'reward')}
    assert metrics['loss/reward'][1] == (~ticks.is_first).sum()
    np.testing.assert_allclose(metrics['loss'][0], mean['reconstruction'] + 0.5 * mean['reward'], rtol=1e-6)


def test_gradients_are_those_of_that_loss():
    start, _, _, run = make()
    ticks = next(fake.Batches(8, 4, True))
    from worldmodels import rng

    keys_B = rng.per_example(rng.stream(0, 'train'), 0, ticks.example_B)

    def loss(params):
        terms, *_ = fake.losses(
            fake.MODEL, {'params': params, 'constants': start.constants}, ticks, start.belief, keys_B, ()
        )
        mean = {k: (v * m).sum() / m.sum() for k, (v, m) in terms.items()}
        return mean['reconstruction'] + 0.5 * mean['reward']

    expected = optax.global_norm(jax.jit(jax.grad(loss))(start.params))
    np.testing.assert_allclose(run(start, ticks)[1]['grad_norm'][0], expected, rtol=1e-5)


@pytest.mark.parametrize('where', ['data', 'belief', 'overflow'])
def test_what_is_not_finite_is_skipped_and_counted(where):
    start, _, _, run = make()
    good = next(fake.Batches(8, 4, True))
    start, _ = run(start, good)
    ticks = good
    if where == 'data':
        ticks = next(fake.Batches(8, 4, True, bad=(0,)))
    elif where == 'belief':
        start = start.replace(belief=start.belief.replace(h=start.belief.h.at[3].set(jnp.inf)))
        ticks = good.replace(continues_B=np.ones(8, bool), is_first=np.zeros((8, 4), bool))
    else:  # every gradient is finite, its norm is not
        start = start.replace(
            params={**start.params, 'memory': jax.tree.map(lambda x: x * 1e18, start.params['memory'])}
        )
    after, metrics = run(start, ticks)
    assert after.step == 2
    assert after.skipped == after.skipped_in_a_row == metrics['skipped_in_a_row'][0] == 1
    for name in ('params', 'opt_state', 'slow_params', 'belief'):
        assert same(getattr(after, name), getattr(start, name)), name
    if where == 'data':
        again, _ = run(after, good)
        assert again.skipped == 1
        assert again.skipped_in_a_row == 0
        assert not same(again.params, after.params)


def test_only_the_trained_parts_move_and_have_an_optimizer():
    start, _, _, run = make(**{'train.parts': ('memory', 'outcome')})
    after, _ = run(start, next(fake.Batches(8, 4, True)))
    assert same(after.params['heart'], start.params['heart'])
    assert not same(after.params['memory'], start.params['memory'])
    sizes = [x.shape for x in jax.tree.leaves(start.opt_state)]
    assert (3, fake.WIDTH) not in sizes
    assert set(start.slow_params) == {'memory', 'outcome'}
    assert set(state.evaluated(after)['params']) == {'heart', 'memory', 'outcome'}


def test_slow_parameters_are_a_moving_average():
    start, _, _, run = make()
    batches = fake.Batches(8, 4, True)
    slow, now = start.slow_params['memory']['b'], start
    for i in range(12):
        now, _ = run(now, next(batches))
        decay = min(0.9, (1 + i) / (10 + i))
        slow = decay * slow + (1 - decay) * now.params['memory']['b']
    np.testing.assert_allclose(now.slow_params['memory']['b'], slow, rtol=1e-5)


def test_losses_and_weights_must_have_the_same_names():
    start, _, bound, _ = make()
    weights = (('reconstruction', 1.0), ('rewrd', 1.0))
    bound = {**bound, 'config': dataclasses.replace(bound['config'], weights=weights)}
    with pytest.raises(ValueError, match='no weight for the loss reward; no loss for the weight rewrd'):
        step.check_losses(start, next(fake.Batches(8, 4, True)), **bound)


def test_the_step_is_traced_once_transfers_nothing_and_refuses_other_shapes():
    start, run, _, _ = make()
    devices = parallel.Devices(jax.local_devices()[:1])
    placed = devices.place(start)
    batches = fake.Batches(8, 4, True)
    compiled = parallel.train(functools.partial(run, axis_name=parallel.AXIS), devices)
    compiled.compile(placed, devices.abstract(next(batches)))
    for _ in range(4):
        ticks = devices.shard(next(batches))
        with jax.transfer_guard('disallow'):
            placed, _ = compiled(placed, ticks)
    assert compiled.traces == 1
    assert compiled.memory_bytes > 0
    assert int(placed.step) == 4
    with pytest.raises(ValueError, match='does not compile twice'):
        compiled(placed, devices.shard(next(fake.Batches(8, 5, True))))


def test_the_compiled_step_is_the_step():
    start, run, _, jitted = make()
    devices = parallel.Devices(jax.local_devices()[:1])
    ticks = next(fake.Batches(8, 4, True))
    expected, wanted = jitted(start, ticks)
    compiled = parallel.train(functools.partial(run, axis_name=parallel.AXIS), devices)
    after, metrics = compiled.compile(devices.place(start), devices.abstract(ticks))(
        devices.place(start), devices.shard(ticks)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), metrics, wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), after.params, expected.params)
    assert same(jax.tree.map(np.shape, after.belief), jax.tree.map(np.shape, expected.belief))


def test_a_batch_that_cannot_be_dealt_out_is_refused():
    with pytest.raises(ValueError, match=r'batch_size is 6, expected a multiple of the 4 devices'):
        parallel.Devices(jax.local_devices()[:1] * 4).check_batch(6)


# -- the optimizer -----------------------------------------------------------------------------------------------------


def test_warmup_then_cosine():
    config = fake.config(
        **{'optimizer.warmup': 4, 'optimizer.schedule': 'cosine', 'optimizer.learning_rate': 1.0}
    ).optimizer
    rate = [float(make_schedule(config, 14)(i)) for i in range(15)]
    np.testing.assert_allclose(rate[:5], [0.25, 0.5, 0.75, 1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rate[9], 0.5, rtol=1e-6)  # half way down: (9 - 4) / (14 - 4)
    np.testing.assert_allclose(rate[14], 0.0, atol=1e-6)


def test_adaptive_clipping_bounds_each_tensor_by_its_parameter():
    params = {'a': jnp.full((2, 2), 2.0), 'b': jnp.zeros(3)}  # norms 4 and 0
    grads = {'a': jnp.full((2, 2), 5.0), 'b': jnp.ones(3) * 0.1}
    clip = clip_by_parameter_norm(0.5)
    out, _ = clip.update(grads, clip.init(params), params)
    np.testing.assert_allclose(jnp.linalg.norm(out['a']), 2.0, rtol=1e-6)  # 0.5 * 4
    np.testing.assert_allclose(jnp.linalg.norm(out['b']), 0.5e-3, rtol=1e-5)  # 0.5 * the floor


def test_weight_decay_spares_vectors_and_laprop_starts_with_unit_updates():
    config = fake.config(
        **{'optimizer.kind': 'laprop', 'optimizer.weight_decay': 0.1, 'optimizer.clip_norm': 0.0}
    ).optimizer
    params = {'w': jnp.full((2, 2), 3.0), 'b': jnp.full(2, 3.0)}
    grads = {'w': jnp.full((2, 2), 7.0), 'b': jnp.full(2, -7.0)}
    optimizer = make_optimizer(config, 10)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    # Normalised by its own size the first gradient is its sign; decay adds 0.1 * 3 to matrices.
    np.testing.assert_allclose(updates['w'], -1e-2 * (1 + 0.3), rtol=1e-5)
    np.testing.assert_allclose(updates['b'], 1e-2, rtol=1e-5)


@pytest.mark.parametrize(
    ('field', 'value', 'says'),
    [
        ('kind', 'adam', 'expected one of adamw, laprop'),
        ('schedule', 'linear', 'expected one of constant, cosine'),
        ('learning_rate', 0.0, 'expected a positive number'),
        ('clip_norm', -1.0, 'expected 0'),
        ('b2', 1.0, 'below 1'),
    ],
)
def test_optimizer_fields_are_checked(field, value, says):
    with pytest.raises(ValueError, match=says):
        make_optimizer(fake.config(**{f'optimizer.{field}': value}).optimizer, 10)


# -- operations --------------------------------------------------------------------------------------------------------


def test_flops_of_products_loops_branches_and_gradients():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    product = 2 * 3 * 4 * 5
    assert flops.count(jax.make_jaxpr(jnp.matmul)(a, b)) == product
    # The product and the two of its backward pass; jit hides nothing.
    value = jax.make_jaxpr(jax.value_and_grad(jax.jit(lambda a, b: jnp.square(a @ b).sum()), argnums=(0, 1)))(a, b)
    assert flops.count(value) == 3 * product
    remat = jax.checkpoint(lambda a: jnp.sin(a @ b).sum())
    assert flops.count(jax.make_jaxpr(jax.grad(remat))(a)) == 3 * product  # forward, again, and one backward

    def loop(a):
        return jax.lax.scan(lambda c, _: (c + a @ b @ b.T, None), jnp.zeros((3, 4)), None, length=7)[0]

    assert flops.count(jax.make_jaxpr(loop)(a)) == 7 * 2 * product

    def branch(a):
        return jax.lax.cond(a.sum() > 0, lambda: (a @ b) @ b.T @ b, lambda: a @ b)

    assert flops.count(jax.make_jaxpr(branch)(a)) == 3 * product


def test_flops_of_convolutions():
    x, k = jnp.ones((2, 8, 8, 3)), jnp.ones((4, 4, 3, 5))
    how = {'window_strides': (2, 2), 'padding': 'SAME', 'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')}
    forward = 2 * (2 * 4 * 4 * 5) * (4 * 4 * 3)
    assert flops.count(jax.make_jaxpr(functools.partial(jax.lax.conv_general_dilated, **how))(x, k)) == forward
    how = {'strides': how.pop('window_strides'), **how}
    up = functools.partial(jax.lax.conv_transpose, **how)
    assert flops.count(jax.make_jaxpr(up)(x, k)) == 2 * (2 * 16 * 16 * 5) * (4 * 4 * 3) // 4
