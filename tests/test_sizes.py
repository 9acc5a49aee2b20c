"""Our world model at DreamerV3's sizes has DreamerV3's number of parameters."""

import itertools
import math

import jax
import pytest

from worldmodels.build import abstract_variables, build_model
from worldmodels.sizes import DREAMER, dreamer
from worldmodels.types import ActionSpace, Modality, Spec

SPEC = Spec((('image', Modality('image', (64, 64, 3))),), ActionSpace('discrete', 17))


def published(deter, hidden, classes, depth, units):
    """Parameters of encoder, RSSM, decoder, reward and continue heads, for 64 x 64 x 3 images and 17 actions."""

    def dense(inputs, outputs, norm=False):
        return inputs * outputs + outputs + norm * outputs

    stoch, channels = 32 * classes, [3, *(depth * m for m in (2, 3, 4, 4))]
    convs = sum(25 * i * o + 2 * o for i, o in itertools.pairwise(channels))
    transposed = sum(25 * i * o + 2 * i for i, o in itertools.pairwise(channels)) - 3
    features = 16 * channels[-1]
    gru = sum(dense(n, hidden, True) for n in (deter, stoch, 17))
    gru += (deter // 8 + 3 * hidden) * deter + 2 * deter + 3 * deter * deter // 8 + 3 * deter
    prior = dense(deter, hidden, True) + dense(hidden, hidden, True) + dense(hidden, stoch)
    posterior = dense(deter + features, hidden, True) + dense(hidden, stoch)
    grid = dense(deter // 8, features) + dense(stoch, 2 * units, True) + dense(2 * units, features) + channels[-1]
    heads = sum(dense(deter + stoch, units, True) + dense(units, n) for n in (255, 1))
    return convs + transposed + gru + prior + posterior + grid + heads


@pytest.mark.parametrize('size', DREAMER)
def test_parameters(size):
    model = build_model(dreamer(size), SPEC, 'bfloat16')
    shapes = abstract_variables(model)
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
    assert 1 <= count / published(*DREAMER[size]) < 1.03


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match='choose one of 1m, 12m'):
        dreamer('13m')
