"""The continuous heart: slots within bounds, hidden patches unseen, a perceptual term that knows edges, frames redrawn."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from worldmodels.heart import KINDS
from worldmodels.heart.continuous import EQUAL, edges
from worldmodels.nn.transformer import EmbedLatent
from worldmodels.types import ActionSpace, Layout, Modality, Spec

IMAGE = Modality('image', (16, 24, 3))
GRID = Modality('grid', (3, 2, 2), (4, 3))
VECTOR = Modality('vector', (5,))
SPEC = Spec((('image', IMAGE), ('grid', GRID), ('vector', VECTOR)), ActionSpace('discrete', 3))
FIELDS = {'width': 16, 'heads': 2, 'hidden': 16, 'encoder_depth': 1, 'decoder_depth': 1, 'size': 4}
B = 4


def frames(seed=0):
    random = np.random.default_rng(seed)
    return {
        'image': random.integers(0, 256, (B, *IMAGE.shape)).astype(np.uint8),
        'grid': random.integers(0, GRID.classes, (B, *GRID.shape)).astype(np.uint8),
        'vector': random.normal(size=(B, 5)).astype(np.float32),
    }


@pytest.fixture(scope='module', params=[3, 0], ids=['slots', 'patches'])
def heart(request):
    module = KINDS['continuous'](SPEC, 'float32', latents=request.param, **FIELDS)
    keys_B = jax.random.split(jax.random.key(0), B)
    variables = jax.jit(lambda: module.init(jax.random.key(1), frames(), keys_B, method='autoencode'))()
    return module, variables, keys_B


def test_latents_are_bounded_numbers_and_frames_come_back_in_their_form(heart):
    module, variables, _ = heart
    slots = 3 if module.latents else 13
    assert module.layout == (Layout(loose=3) if module.latents else Layout(((2, 3), (3, 2), (1, 1))))
    assert module.layout.tokens == slots
    z = module.apply(variables, frames(), method='encode')
    assert z.index_BN is None
    chex.assert_shape(z.embedding_BNE, (B, slots, module.embedding_size))
    far = jax.tree.map(lambda x: 1e3 * x, variables)
    assert np.abs(module.apply(far, frames(), method='encode').embedding_BNE).max() <= 1
    raw = module.render(module.apply(variables, z, jnp.zeros((B, 0, 1)), method='decode'))
    for name, modality in SPEC.observation:
        assert raw[name].shape == (B, *modality.shape)
        assert raw[name].dtype == modality.dtype


def test_hidden_patches_are_not_looked_at(heart):
    module, variables, _ = heart
    hidden_BN = jnp.zeros((B, 13), bool).at[:, 2].set(True)
    a, b = frames(), frames()
    b['image'] = b['image'].copy()
    b['image'][:, 0:8, 16:24] = 0  # patch 2
    encode = lambda x, hidden: module.apply(variables, x, hidden, method='encode').embedding_BNE
    np.testing.assert_array_equal(encode(a, hidden_BN), encode(b, hidden_BN))
    assert (encode(a, None) != encode(b, None)).any()


def test_hiding_is_per_example(heart):
    module, variables, keys_B = heart
    run = jax.jit(lambda x, k: module.apply(variables, x, k, method='autoencode'))
    batch = run(frames(), keys_B)
    assert set(batch) == {'reconstruction', 'perceptual'}
    alone = [run(jax.tree.map(lambda x, b=b: x[b : b + 1], frames()), keys_B[b : b + 1]) for b in range(B)]
    for name, loss_B in batch.items():
        np.testing.assert_allclose(loss_B, [x[name][0] for x in alone], rtol=1e-5)
    assert (batch['reconstruction'] != run(frames(), keys_B[::-1])['reconstruction']).any()


def test_without_images_there_is_nothing_to_perceive():
    spec = Spec((('grid', GRID),), SPEC.action)
    module = KINDS['continuous'](spec, 'float32', **FIELDS)
    seen = {'grid': frames()['grid']}
    shapes = jax.eval_shape(
        lambda: module.init_with_output(
            jax.random.key(0), seen, jax.random.split(jax.random.key(0), B), method='autoencode'
        )
    )[0]
    assert set(shapes) == {'reconstruction'}


# -- the perceptual term --------------------------------------------------------------------------------------------------


def test_edges_of_errors_worked_by_hand():
    step = jnp.zeros((1, 8, 8, 1)).at[:, :, 4:].set(0.8)
    # One difference of 0.8 in each row: of 7, of 3 and of 1 in the three sizes; none between rows.
    np.testing.assert_allclose(edges(step), [0.5 * 0.8 * (1 / 7 + 1 / 3 + 1) / 3], rtol=1e-6)
    # An error that is the same everywhere moves no edge.
    np.testing.assert_allclose(edges(jnp.full((2, 9, 6, 3), 0.3)), [0, 0], atol=1e-7)


def test_edges_see_misplaced_lines_where_squares_see_a_shade_alike():
    line = jnp.zeros((1, 16, 16, 1)).at[:, :, 8].set(1.0)
    shade = jnp.full((1, 16, 16, 1), jnp.sqrt(jnp.mean(line**2)))
    np.testing.assert_allclose(jnp.mean(line**2), jnp.mean(shade**2))
    assert edges(line) > 0.05
    assert edges(shade) < 1e-6


def test_both_terms_weigh_alike_at_the_error_named():
    noise = EQUAL * jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    ratio = EQUAL * float(edges(noise)[0]) / float(jnp.mean(noise**2))
    assert 0.5 < ratio < 2


# -- learning -------------------------------------------------------------------------------------------------------------


def test_a_few_slots_tell_frames_of_a_moving_square():
    spec = Spec((('image', Modality('image', (16, 16, 1))),), SPEC.action)
    module = KINDS['continuous'](spec, 'float32', latents=2, hide=0.0, **FIELDS | {'width': 32, 'hidden': 64})
    pictures = np.zeros((16, 16, 16, 1), np.uint8)
    for i in range(16):
        y, x = divmod(i, 4)
        pictures[i, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 160
    seen, keys_B = {'image': jnp.asarray(pictures)}, jax.random.split(jax.random.key(0), 16)
    variables = jax.jit(lambda: module.init(jax.random.key(0), seen, keys_B, method='autoencode'))()
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))

    @jax.jit
    def step(variables, opt_state):
        def total(variables):
            terms = module.apply(variables, seen, keys_B, method='autoencode')
            return sum(jnp.mean(x) for x in terms.values()), jnp.mean(terms['reconstruction'])

        (_, error), grads = jax.value_and_grad(total, has_aux=True)(variables)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(variables, updates), opt_state, error

    opt_state = optimizer.init(variables)
    for _ in range(400):
        variables, opt_state, error = step(variables, opt_state)
    same_for_all = np.var(pictures / 255, axis=0).sum()
    assert error < 0.4 * same_for_all, f'{error}, where one picture for all frames gives {same_for_all}'


def test_whoever_reads_latents_needs_no_index(heart):
    module, variables, _ = heart
    z = module.apply(variables, frames(), method='encode')
    x, _ = EmbedLatent(8, 'float32', None).init_with_output(jax.random.key(0), z)
    assert x.shape == (*z.embedding_BNE.shape[:2], 8)
