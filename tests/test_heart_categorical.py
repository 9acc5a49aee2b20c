"""DreamerV3's heart: shapes, losses against hand arithmetic, and what its decoder reads."""

import itertools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels.heart import KINDS
from worldmodels.types import ActionSpace, Latent, Layout, Modality, Spec

SPEC = Spec(
    observation=(
        ('image', Modality('image', (12, 20, 3))),
        ('grid', Modality('grid', (2, 3, 2), (4, 3))),
        ('vector', Modality('vector', (5,))),
    ),
    action=ActionSpace('discrete', 3),
)
B = 2


@pytest.fixture(scope='module')
def setting():
    heart = KINDS['categorical'](
        SPEC, 'float32', stoch=3, classes=4, depth=2, mults=(1, 2), units=8, layers=1, blocks=2
    )
    rng = np.random.default_rng(0)
    observation = {
        'image': rng.integers(0, 256, (B, 12, 20, 3)).astype(np.uint8),
        'grid': rng.integers(0, 3, (B, 2, 3, 2)).astype(np.uint8),
        'vector': rng.normal(size=(B, 5)).astype(np.float32),
    }
    z = Latent(index := jnp.array([[0, 1, 2], [3, 3, 0]]), jax.nn.one_hot(index, 4))
    context_BMD = jax.random.normal(jax.random.key(1), (B, 1, 6))

    def both(m, observation, z, context):
        return m.encode(observation), m.decode(z, context)

    variables = jax.jit(lambda *args: heart.init(jax.random.key(0), *args, method=both))(observation, z, context_BMD)
    return heart, variables, observation, z, context_BMD


def test_tokens_are_loose_groups_embedded_one_hot(setting):
    heart, variables, _, z, _ = setting
    assert (heart.layout, heart.classes, heart.embedding_size, heart.tokenizer) == (Layout(loose=3), 4, 4, False)
    embedding = heart.apply(variables, z.index_BN.at[0, 0].set(4), method='embed')
    np.testing.assert_array_equal(embedding[0], [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])


def test_features_join_modalities(setting):
    heart, variables, observation, _, _ = setting
    # the image ends 3 x 5 with 2 * 2 channels, either MLP has 8 units
    assert heart.apply(variables, observation, method='encode').shape == (B, 3 * 5 * 4 + 8 + 8)


def test_render_gives_raw_observations(setting):
    heart, variables, observation, z, context = setting
    prediction = heart.apply(variables, z, context, method='decode')
    raw = heart.render(prediction)
    for name, modality in SPEC.observation:
        assert raw[name].shape == observation[name].shape
        assert raw[name].dtype == modality.dtype


def test_reconstruction_by_hand(setting):
    heart, _, observation, _, _ = setting
    black = {'image': np.zeros_like(observation['image'])}
    observation = {
        'image': black['image'] + np.uint8(51),
        'grid': np.zeros_like(observation['grid']),
        'vector': np.full((B, 5), np.e - 1, np.float32),
    }
    prediction = {
        'image': jnp.full((B, 240, 3), 0.5),
        'grid': jnp.zeros((B, 6, 7)).at[..., 0].set(np.log(3.0)),
        'vector': jnp.zeros((B, 1, 5)),
    }
    image = 12 * 20 * 3 * (51 / 255 - 0.5) ** 2
    grid = 6 * (-np.log(3 / 6) - np.log(1 / 3))  # channel 0: 3 of 3 + 1 + 1 + 1; channel 1: one of three
    vector = 5 * 1.0**2  # symlog(e - 1) = 1
    loss = heart.losses(prediction, observation)
    assert loss.keys() == {'reconstruction'}
    np.testing.assert_allclose(loss['reconstruction'], image + grid + vector, rtol=1e-5)


def test_perfect_prediction_renders_what_was_seen(setting):
    heart, _, observation, *_ = setting
    patches = {name: codec.patches(observation[name]) for name, codec in heart.codecs.items()}
    raw = heart.render(patches)
    for name, value in observation.items():
        np.testing.assert_allclose(raw[name], value, rtol=1e-5)


def test_the_decoder_reads_the_context_it_is_shown(setting):
    heart, variables, _, z, context = setting
    shown, other = (heart.apply(variables, z, c, method='decode') for c in (context, -context))
    assert all(np.abs(shown[name] - other[name]).max() > 0 for name in shown)


def test_the_strict_decoder_has_no_parameters_for_context(setting):
    heart, _, _, z, context = setting
    strict = heart.init(jax.random.key(0), z, context[:, :0], method='decode')
    assert not [path for path in flax.traverse_util.flatten_dict(strict['params']) if 'context' in path]
    assert heart.apply(strict, z, context[:, :0], method='decode')['image'].shape == (B, 240, 3)


def test_parameters_are_dreamerv3s():
    """Encoder and decoder of size12m on 64 x 64 x 3, counted from the published architecture."""
    spec = Spec((('image', Modality('image', (64, 64, 3))),), ActionSpace('discrete', 17))
    heart = KINDS['categorical'](spec, 'float32', stoch=32, classes=16, depth=16, units=256)
    z = Latent(None, jnp.zeros((1, 32, 16)))
    image = {'image': jnp.zeros((1, 64, 64, 3), jnp.uint8)}
    shapes = jax.eval_shape(
        lambda: heart.init(jax.random.key(0), method=lambda m: (m.encode(image), m.decode(z, jnp.zeros((1, 1, 2048)))))
    )
    channels = [3, 32, 48, 64, 64]
    pairs = list(itertools.pairwise(channels))
    encoder = sum(25 * i * o + 2 * o for i, o in pairs)  # kernel, bias, norm
    decoder = sum(25 * o * i + 2 * i for i, o in pairs) - 3  # the image has no norm
    grid = 4 * 4 * 64
    decoder += 2048 // 8 * grid + grid  # from the context, 8 blocks
    decoder += 512 * 512 + 512 + 512 + 512 * grid + grid + 64  # from z through 2 * units, norm; then the joint norm
    assert sum(x.size for x in jax.tree.leaves(shapes)) == encoder + decoder


def test_patches_are_read_and_drawn_alike_at_every_place(setting):
    _, _, observation, z, context_BMD = setting
    heart = KINDS['categorical'](SPEC, 'float32', stoch=3, classes=4, depth=2, mults=(1, 2), units=8, layers=1, patch=4)

    def both(m):
        return m.encode(observation), m.decode(z, context_BMD)

    variables = jax.jit(lambda: heart.init(jax.random.key(0), method=both))()
    read = lambda image: heart.apply(variables, {**observation, 'image': image}, method='encode')[:, : 3 * 5 * 4]
    image = observation['image']
    features = read(image).reshape(B, 3, 5, 4)
    # Rows of patches rolled by one are features rolled by one, and nothing else.
    np.testing.assert_array_equal(read(np.roll(image, 4, 1)).reshape(B, 3, 5, 4), np.roll(features, 1, 1))
    drawn = heart.apply(variables, z, context_BMD, method='decode')
    assert drawn['image'].shape == (B, 3 * 5, 4 * 4 * 3)
    assert heart.apply(variables, drawn, method='render')['image'].shape == image.shape
    # The same channels at two places are drawn the same: weights of the grid are made alike, and so are all patches.
    params = flax.core.unfreeze(variables)['params']
    for layer in ('coarse', 'context'):
        leaves = params['decoders_image'][layer]
        for name, x in leaves.items():
            leaves[name] = jnp.full_like(x, 0.3)
    alike = heart.apply({'params': params}, z, context_BMD, method='decode')['image']
    np.testing.assert_allclose(alike, np.broadcast_to(alike[:, :1], alike.shape), atol=1e-6)
    assert np.abs(drawn['image'][:, 0] - drawn['image'][:, 1]).max() > 1e-3
    losses = heart.apply(variables, drawn, observation, method='losses')
    patches = image.reshape(B, 3, 4, 5, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(B, 15, 48) / 255.0
    others = {k: v for k, v in drawn.items() if k != 'image'}
    rest = sum(heart.codecs[k].loss(v, observation[k]) for k, v in others.items())
    np.testing.assert_allclose(
        losses['reconstruction'], np.square(drawn['image'] - patches).sum((1, 2)) + rest, rtol=1e-5
    )


def test_patches_must_tile():
    heart = KINDS['categorical'](SPEC, 'float32', patch=5)
    with pytest.raises(ValueError, match='patches of 5 pixels do not tile'):
        heart.codecs  # noqa: B018
