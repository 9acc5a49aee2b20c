r"""What a transition is told of the next frame, slot by slot: the departure, the place, the context, the action.

$$g_n = W_z z_n + p_n + W_c c_n + W_a a$$

The masked, the autoregressive and the flow transition start from it, each with a network of its own. What such a
network says may be guided by the action (Ho and Salimans, 2022, arXiv 2207.12598): trained without it in a share of the
examples, it is asked both ways, and the difference counts for more,

$$\hat y = (1 + w)\,f(g, a) - w\,f(g, \varnothing)$$
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from worldmodels import rng
from worldmodels.nn import initializers
from worldmodels.nn.dense import Dense
from worldmodels.nn.readout import divide
from worldmodels.nn.transformer import EmbedLatent, dense
from worldmodels.types import Latent


@flax.struct.dataclass
class Known:
    """All that is known of the next frame.

    beside_BND: aligned with its slots: the departure's token, the place, the context that belongs to the token.
    action_BD: of all slots alike; zeros where nothing is said of it.
    context_BMD: further slots, M may be 0.
    departure: its own tokens, as indices (B, N), or as numbers (B, N, E) where latents have none.
    """

    beside_BND: jax.Array
    action_BD: jax.Array
    context_BMD: jax.Array
    departure: jax.Array

    @property
    def given_BND(self) -> jax.Array:
        """What stands beside each slot, the action included."""
        return self.beside_BND + self.action_BD[:, None]


class Slots(nn.Module):
    """(z, action, context) -> `Known`.

    Slots of the context that belong to the tokens are added to them; others become further known slots. `classes` is given
    where tokens are also looked up by index. A transition shares its scope with it (`nn.share_scope`).
    """

    width: int
    tokens: int
    classes: int | None
    aligned: bool
    dtype: str

    def setup(self) -> None:
        self.embed = EmbedLatent(self.width, self.dtype, self.classes)
        self.action = dense(self.width, self.dtype)
        self.context = dense(self.width, self.dtype)
        self.place = self.param('place', initializers.Normal(0.1), (self.tokens, self.width))

    def __call__(self, z: Latent, action_BA: jax.Array, context_BMD: jax.Array) -> Known:
        beside_BND = self.embed(z) + self.place.astype(self.dtype)
        further_BMD = beside_BND[:, :0]
        if context_BMD.shape[1]:
            own_BND, further_BMD = divide(self.context(context_BMD), self.tokens, self.aligned)
            beside_BND = beside_BND + own_BND if self.aligned else beside_BND
        departure = z.embedding_BNE.astype(jnp.float32) if z.index_BN is None else z.index_BN
        return Known(beside_BND, self.action(action_BA), further_BMD, departure)


def stay_gate(name: str | None = None) -> nn.Dense:
    """How strongly each slot holds on to what stood there, from what is known of it."""
    return Dense(1, dtype='float32', bias_init=initializers.Constant(2.0), name=name)


def persistence(gate: nn.Dense, known: Known, classes: int) -> jax.Array:
    """What a `stay_gate` adds to the logits (B, N, K) of the departure's own tokens."""
    stay_BN1 = jax.nn.softplus(gate(known.given_BND.astype(jnp.float32)))
    return stay_BN1 * jax.nn.one_hot(known.departure, classes)


def surrounding(index_BN: jax.Array, grid: tuple[int, int], nothing: int) -> jax.Array:
    """The tokens of the 3 x 3 cells around every cell of a grid, itself included: (B, N, 9); `nothing` beyond its edge."""
    (height, width), B = grid, index_BN.shape[0]
    index_BHW = jnp.pad(index_BN.reshape(B, height, width), ((0, 0), (1, 1), (1, 1)), constant_values=nothing)
    shifted = [index_BHW[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.stack(shifted, -1).reshape(B, height * width, 9)


def unsaid(known: Known, keys_B: jax.Array, rate: float) -> Known:
    """For training: a share `rate` of the examples is told nothing of the action."""
    if not rate:
        return known
    said_B = rng.draw(lambda key: jax.random.bernoulli(key, 1 - rate), rng.split(keys_B, 3)[2])
    return known.replace(action_BD=jnp.where(said_B[:, None], known.action_BD, 0))


def check_guidance(weight: float, drop_action: float) -> None:
    """Raises ValueError where a network is to be guided by an action it was never trained without."""
    if weight and not drop_action:
        raise ValueError(
            f'guidance is {weight} where drop_action is 0: a transition that was always told of the action cannot be asked '
            'without it; train with drop_action=0.1 or so, or take guidance=0.'
        )


def doubled(known: Known, weight: float) -> Known:
    """Every example, and behind them every example without its action, where there is a weight to guide by."""
    if not weight:
        return known
    mute = known.replace(action_BD=jnp.zeros_like(known.action_BD))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), known, mute)


def guide(said: jax.Array, weight: float) -> jax.Array:
    """What a network says of `doubled` examples (2B, ...) as one (B, ...)."""
    if not weight:
        return said
    told, untold = jnp.split(said, 2)
    return (1 + weight) * told - weight * untold


def guided(network: Callable[..., jax.Array], known: Known, weight: float) -> Callable[..., jax.Array]:
    """network(known, *arrays) as a function of the arrays (B, ...) alone, guided."""
    both = doubled(known, weight)
    twice = (lambda x: jnp.concatenate([x, x])) if weight else (lambda x: x)
    return lambda *arrays: guide(network(both, *map(twice, arrays)), weight)
