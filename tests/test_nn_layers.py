"""The rearranged convolutions are the convolutions they stand for; block matmuls are block-diagonal ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels.nn import chunks, convolution
from worldmodels.nn.convolution import ConvDown, ConvUp, convolve, plain_convolve
from worldmodels.nn.dense import flat_dot
from worldmodels.nn.layers import MLP, BlockLinear


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


@pytest.mark.parametrize('patches_bytes', [1, 10_000, 10**9])
def test_gradients_of_a_convolution_are_those_of_xla(patches_bytes, monkeypatch):
    """The kernel's is written by hand, in chunks of 1, 2 and all 6 frames."""
    monkeypatch.setattr(convolution, 'PATCHES_BYTES', patches_bytes)
    x, kernel = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(6, 5, 4, 3), (3, 3, 3, 7)]))
    loss = lambda convolve: lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel)))
    mine, theirs = (jax.grad(loss(f), (0, 1))(x, kernel) for f in (convolve, plain_convolve))
    for a, b in zip(mine, theirs):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_kernels_gradient_in_bfloat16_is_summed_in_float32(monkeypatch):
    """4,096 ones: a bfloat16 sum of chunks would stop at 256."""
    monkeypatch.setattr(convolution, 'PATCHES_BYTES', 1)
    x, kernel = jnp.ones((4096, 1, 1, 1), jnp.bfloat16), jnp.ones((3, 3, 1, 1), jnp.bfloat16)
    slope = jax.grad(lambda kernel: jnp.sum(convolve(x, kernel).astype(jnp.float32)))(kernel)
    assert slope.dtype == jnp.bfloat16
    assert float(slope[1, 1, 0, 0]) == 4096


def test_the_gradient_of_the_pool_goes_to_the_largest():
    x = jax.random.normal(jax.random.key(1), (2, 8, 6, 3))
    layer = ConvDown(5, 'float32')
    params = with_bias(layer, x)

    def pooled(params, x):
        return jnp.sum(jnp.sin(plain_conv(x, params).reshape(2, 4, 2, 3, 2, 5).max((2, 4))))

    mine = jax.grad(lambda params, x: jnp.sum(jnp.sin(layer.apply({'params': params}, x))), (0, 1))(params, x)
    theirs = jax.grad(pooled, (0, 1))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), mine, theirs)


@pytest.mark.parametrize('chunk_bytes', [1, 800, 10**9])
def test_a_layer_in_chunks_is_the_layer(chunk_bytes, monkeypatch):
    """Values, gradients by parameters and input, and parameters at initialisation; rows in chunks of 1, 2 and all 6."""
    monkeypatch.setattr(chunks, 'CHUNK_BYTES', chunk_bytes)

    class Whole(nn.Module):
        chunked: bool

        @nn.compact
        def __call__(self, x):
            layer = ConvDown(5, 'float32')
            return chunks.in_chunks(layer, 400, x) if self.chunked else layer(x)

    x = jax.random.normal(jax.random.key(1), (6, 4, 4, 3))
    variables = Whole(True).init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, Whole(False).init(jax.random.key(0), x))
    loss = lambda chunked: lambda v, x: jnp.sum(jnp.sin(Whole(chunked).apply(v, x)))
    mine, theirs = (jax.value_and_grad(loss(chunked), (0, 1))(variables, x) for chunked in (True, False))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), mine, theirs)
    assert ('scan' in str(jax.make_jaxpr(loss(True))(variables, x))) == (chunk_bytes < 6 * 400)


def test_a_flat_product_is_the_product_whatever_stands_before_the_last_axis():
    kernel = jax.random.normal(jax.random.key(0), (4, 5))
    for lead in ((), (3,), (2, 3), (2, 0, 3)):
        x = jax.random.normal(jax.random.key(1), (*lead, 4))
        np.testing.assert_allclose(flat_dot(x, kernel, None), x @ kernel, atol=1e-6)


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
