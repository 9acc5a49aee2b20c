"""Tokenizers: patches there and back, quantised without collapse, fitted exactly; a frame's tokens depend on it alone."""

from __future__ import annotations

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels.heart import KINDS
from worldmodels.heart.codec import Codec, codecs, layout_of
from worldmodels.heart.tokens import EDGE, Quantiser, saturation
from worldmodels.types import ActionSpace, Layout, Modality, Spec

IMAGE = Modality('image', (16, 24, 3))
GRID = Modality('grid', (3, 2, 2), (4, 3))
VECTOR = Modality('vector', (5,))
SPEC = Spec((('image', IMAGE), ('grid', GRID), ('vector', VECTOR)), ActionSpace('discrete', 3))
B = 4


def frames(seed=0, batch=B):
    random = np.random.default_rng(seed)
    return {
        'image': random.integers(0, 256, (batch, *IMAGE.shape)).astype(np.uint8),
        'grid': random.integers(0, GRID.classes, (batch, *GRID.shape)).astype(np.uint8),
        'vector': random.normal(size=(batch, 5)).astype(np.float32),
    }


# -- codecs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('name', 'modality'), SPEC.observation)
def test_patches_render_back_to_the_frame(name, modality):
    codec = Codec(modality, 8)
    x = frames()[name]
    patches = codec.patches(x)
    assert patches.shape == (B, codec.grid[0] * codec.grid[1], codec.values)
    back = codec.render(patches)
    assert back.dtype == modality.dtype
    np.testing.assert_allclose(back, x, rtol=1e-5)


def test_a_patch_is_a_square_of_its_image():
    x = frames()['image']
    patches = Codec(IMAGE, 8).patches(x)
    np.testing.assert_allclose(patches[:, 4].reshape(B, 8, 8, 3) * 255, x[:, 8:16, 8:16], rtol=1e-6)


def test_layout_lists_grids_in_order():
    assert layout_of(codecs(SPEC, 8)) == Layout(((2, 3), (3, 2), (1, 1)))


def test_patches_that_do_not_tile_are_refused():
    with pytest.raises(ValueError, match='do not tile an image'):
        Codec(IMAGE, 7)


# -- the quantiser ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('levels', [(4, 4, 4), (8, 5, 5, 5), (2, 3)])
def test_every_code_can_be_reached_and_embeds_to_its_values(levels):
    quantiser = Quantiser(levels)
    assert quantiser.classes == np.prod(levels)
    # Halfway between levels in the tanh's range lie all codes.
    axes = [np.arctanh(np.linspace(-1, 1, n) * np.tanh(EDGE)) for n in levels]
    z = quantiser(jnp.asarray(list(itertools.product(*axes))))
    assert sorted(z.index_BN.tolist()) == list(range(quantiser.classes))
    np.testing.assert_allclose(quantiser.embed(z.index_BN), z.embedding_BNE, atol=1e-6)
    expected = list(itertools.product(*(np.linspace(-1, 1, n) for n in levels)))
    np.testing.assert_allclose(z.embedding_BNE, expected, atol=1e-6)


def test_far_out_is_the_outermost_level():
    z = Quantiser((4, 5))(jnp.array([[50.0, -50.0], [-50.0, 50.0]]))
    np.testing.assert_allclose(z.embedding_BNE, [[1, -1], [-1, 1]], atol=1e-6)


def test_rounding_is_straight_through():
    quantiser = Quantiser((4,))
    x = jnp.array([[0.3]])
    slope = jax.grad(lambda x: quantiser(x).embedding_BNE.sum())(x)
    np.testing.assert_allclose(slope, (1 - np.tanh(0.3) ** 2) / np.tanh(EDGE), rtol=1e-5)


def test_saturation_is_what_lies_beyond_one():
    x = jnp.array([[[0.5, -1.0], [3.0, -2.0]]])
    np.testing.assert_allclose(saturation(x), [(4 + 1) / 4])
    assert jax.grad(lambda x: saturation(x).sum())(x)[0, 0].tolist() == [0, 0]


# -- the masked autoencoder ---------------------------------------------------------------------------------------------

FIELDS = {'levels': (4, 3), 'width': 16, 'heads': 2, 'hidden': 16, 'encoder_depth': 1, 'decoder_depth': 1}


@pytest.fixture(scope='module')
def tokens():
    heart = KINDS['tokens'](SPEC, 'float32', hide=1.0, **FIELDS)
    keys_B = jax.random.split(jax.random.key(0), B)
    init = jax.jit(lambda *args: heart.init(jax.random.key(1), *args, method='autoencode'))
    return heart, init(frames(), keys_B), keys_B


def test_tokens_of_all_modalities(tokens):
    heart, variables, _ = tokens
    z = heart.apply(variables, frames(), method='encode')
    assert (heart.layout.tokens, heart.classes, heart.embedding_size) == (6 + 6 + 1, 12, 2)
    chex.assert_shape(z.index_BN, (B, 13))
    assert z.index_BN.min() >= 0
    assert z.index_BN.max() < 12
    raw = heart.render(heart.apply(variables, z, jnp.zeros((B, 0, 1)), method='decode'))
    for name, modality in SPEC.observation:
        assert raw[name].shape == (B, *modality.shape)
        assert raw[name].dtype == modality.dtype


def test_hidden_patches_are_not_looked_at(tokens):
    heart, variables, _ = tokens
    hidden_BN = jnp.zeros((B, 13), bool).at[:, 2].set(True)
    a, b = frames(), frames()
    b['image'] = b['image'].copy()
    b['image'][:, 0:8, 16:24] = 0  # patch 2
    code = lambda x, hidden: heart.apply(variables, x, hidden, method='code')
    np.testing.assert_array_equal(code(a, hidden_BN), code(b, hidden_BN))
    assert (code(a, None) != code(b, None)).any()


def test_hiding_is_per_example_and_never_more_than_asked(tokens):
    hiding, variables, keys_B = tokens
    run = lambda heart: jax.jit(lambda x, k: heart.apply(variables, x, k, method='autoencode')['reconstruction'])
    shown = run(hiding.clone(hide=0.0))
    # Where nothing is hidden, no key matters.
    chex.assert_trees_all_equal(shown(frames(), keys_B), shown(frames(), keys_B[::-1]))
    run = run(hiding)
    batch = run(frames(), keys_B)
    alone = [run(jax.tree.map(lambda x, b=b: x[b : b + 1], frames()), keys_B[b : b + 1])[0] for b in range(B)]
    np.testing.assert_allclose(batch, alone, rtol=1e-5)
    assert (batch != shown(frames(), keys_B)).any()


# -- the fitted palette -------------------------------------------------------------------------------------------------


def test_a_palette_redraws_what_it_was_fitted_on():
    heart = KINDS['palette'](SPEC, 'float32', codes=64, embedding=6)
    variables = heart.init(jax.random.key(0), frames(), method=lambda m, x: m.decode(m.encode(x), jnp.zeros((B, 0, 1))))
    seen = frames()
    variables = {**variables, 'constants': heart.fit([seen])}
    z = heart.apply(variables, seen, method='encode')
    raw = heart.render(heart.apply(variables, z, jnp.zeros((B, 0, 1)), method='decode'))
    for name, x in seen.items():
        np.testing.assert_allclose(raw[name], x, rtol=1e-5)
    # Codes of modalities do not meet.
    np.testing.assert_array_equal(z.index_BN // 64, np.repeat([0, 1, 2], [6, 6, 1])[None].repeat(B, 0))


def test_a_full_palette_gives_the_nearest_code():
    spec = Spec((('image', Modality('image', (8, 8, 1))),), SPEC.action)
    heart = KINDS['palette'](spec, 'float32', codes=2, embedding=4)
    flat = lambda *levels: {'image': np.stack([np.full((8, 8, 1), v, np.uint8) for v in levels])}
    variables = heart.init(jax.random.key(0), flat(0), method='encode')
    variables = {**variables, 'constants': heart.fit([flat(0, 200, 100)])}
    index = heart.apply(variables, flat(10, 190, 0, 255), method='encode').index_BN[:, 0]
    assert index.tolist() == [0, 1, 0, 1]
