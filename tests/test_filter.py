"""The filter reads what its switch says, and draws with each example's own key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from worldmodels import rng
from worldmodels.filter import Filter, Tokenized
from worldmodels.types import Latent, Layout

B = 3
KEYS_B = rng.per_example(rng.stream(0, 'test'), 0, jnp.arange(B))


@pytest.mark.parametrize(
    ('reads', 'seen'), [('frame', 1), ('memory', 2), ('prediction', 3)], ids=['frame', 'memory', 'prediction']
)
def test_reads(reads, seen):
    """Whatever is beyond the switch may be anything, NaN included."""
    model = Filter(classes=4, layout=Layout(loose=2), dtype='float32', reads=reads, hidden=8)
    inputs = [jnp.ones((B, 5)), jnp.ones((B, 1, 6)), {'x': jnp.ones((B, 2, 3)), 'i': jnp.ones((B, 7), jnp.int32)}]
    variables = model.init(jax.random.key(0), *inputs, KEYS_B)

    def logits(inputs):
        return model.apply(variables, *inputs, KEYS_B).logits_BNK

    for i in range(3):
        poisoned = list(inputs)
        poisoned[i] = jax.tree.map(lambda x: x * np.nan if x.dtype == jnp.float32 else x, inputs[i])
        assert bool(np.isnan(logits(poisoned)).any()) == (i < seen)


def test_posterior():
    model = Filter(classes=4, layout=Layout(loose=2), dtype='float32', reads='frame', hidden=8, unimix=0.04)
    features = 1e3 * jax.random.normal(jax.random.key(1), (B, 5))
    posterior, _ = model.init_with_output(jax.random.key(0), features, None, None, KEYS_B)
    probs = np.exp(posterior.logits_BNK)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-5)
    assert probs.min() >= 0.0099  # a share of 4% over 4 classes
    assert posterior.latent.index_BN.dtype == jnp.int32
    one_hot = np.eye(4)[posterior.latent.index_BN]
    np.testing.assert_allclose(posterior.latent.embedding_BNE, one_hot, atol=1e-6)


def test_a_draw_belongs_to_its_example():
    model = Filter(classes=4, layout=Layout(loose=8), dtype='float32', reads='frame', hidden=8)
    features = jnp.ones((B, 5))
    both, variables = model.init_with_output(jax.random.key(0), features, None, None, KEYS_B)
    alone = model.apply(variables, features[1:2], None, None, KEYS_B[1:2])
    np.testing.assert_array_equal(alone.latent.index_BN[0], both.latent.index_BN[1])
    assert np.any(np.asarray(both.latent.index_BN[0] != both.latent.index_BN[1]))


def test_a_tokenizers_latent_passes_as_it_is():
    latent = Latent(jnp.zeros((B, 2), jnp.int32), jnp.ones((B, 2, 3)))
    posterior = Tokenized().apply({}, latent, None, None, KEYS_B)
    assert posterior.latent is latent
    assert posterior.logits_BNK is None
