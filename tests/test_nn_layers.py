"""The rearranged convolutions are the convolutions they stand for; block matmuls are block-diagonal ones."""

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.nn.layers import MLP, BlockLinear, ConvDown, ConvUp


def plain_conv(x, params):
    numbers = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(x, params['kernel'], (1, 1), 'SAME', dimension_numbers=numbers) + params['bias']


def with_bias(layer, x):
    params = layer.init(jax.random.key(0), x)['params']
    return params | {'bias': jnp.arange(1.0, 1 + layer.units)}


def test_conv_down_is_convolution_then_pool():
    x = jax.random.normal(jax.random.key(1), (2, 8, 6, 3))
    layer = ConvDown(5, 'float32')
    params = with_bias(layer, x)
    assert params['kernel'].shape == (5, 5, 3, 5)
    expected = plain_conv(x, params).reshape(2, 4, 2, 3, 2, 5).max((2, 4))
    np.testing.assert_allclose(layer.apply({'params': params}, x), expected, atol=1e-5)


def test_conv_up_is_repetition_then_convolution():
    x = jax.random.normal(jax.random.key(1), (2, 3, 4, 5))
    layer = ConvUp(2, 'float32')
    params = with_bias(layer, x)
    assert params['kernel'].shape == (5, 5, 5, 2)
    expected = plain_conv(x.repeat(2, 1).repeat(2, 2), params)
    np.testing.assert_allclose(layer.apply({'params': params}, x), expected, atol=1e-5)


def test_block_linear_keeps_groups_apart():
    x = jax.random.normal(jax.random.key(1), (3, 8))
    layer = BlockLinear(4, 2, 'float32')
    variables = layer.init(jax.random.key(0), x)
    kernel = variables['params']['kernel']
    assert kernel.shape == (2, 4, 2)
    dense = jax.scipy.linalg.block_diag(kernel[0], kernel[1])
    np.testing.assert_allclose(layer.apply(variables, x), x @ dense, atol=1e-6)


def test_block_linear_share_sets_the_variance():
    x = jnp.ones((1, 1600))
    whole, part = (BlockLinear(1600, 4, 'float32', share=s).init(jax.random.key(0), x) for s in (1.0, 0.25))
    # variance 1 / fan-in, fan-in being 400, and a quarter of it
    assert abs(float(jnp.std(whole['params']['kernel'])) * 20 - 1) < 0.01
    assert abs(float(jnp.std(part['params']['kernel'])) * 40 - 1) < 0.01


def test_mlp_layer_by_hand():
    # silu of (3, 4) over its root mean square, sqrt(12.5)
    layer = MLP(1, 2, 'float32')
    x = jnp.array([[3.0, 4.0]])
    params = jax.tree.map(lambda p: jnp.eye(2) if p.ndim == 2 else p, layer.init(jax.random.key(0), x)['params'])
    y = np.array([3.0, 4.0]) / np.sqrt(12.5)
    np.testing.assert_allclose(layer.apply({'params': params}, x)[0], y / (1 + np.exp(-y)), rtol=1e-4)
