r"""The world model: six parts and the tick that joins them.

$$p(o, r, z \mid a) = \prod_t p(z_t \mid z_{t-1}, a_{t-1}, c_{t-1})\,p(o_t \mid z_t)\,p(r_t \mid z_{t-1}, a_{t-1}, c_{t-1})$$

From the symbols of *From Masks to Worlds* (Bai et al., 2025, arXiv 2510.20668, section 2.2 and appendix A) to files:

    symbol                  name                       file
    ----------------------  -------------------------  ----------------------------------------
    G                       generative heart           heart/  transition/  outcome.py
    p(o | z)                observation model          heart/         decode
    p(z' | z, a)            dynamics model             transition/    predict, sample, loss
    p(r, gamma | z, a)      outcome model              outcome.py
    F, C                    interactive loop           rollout.py     observe, imagine, interact
    q(z | h-, o)            inference filter           filter.py
    pi(a | z, h)            policy                     control/
    M: h = f(h-, z, a-)     memory system              memory/        step, sequence
    o, a, r, gamma          observation, action, ...   types.py       Ticks
    a, found in frames      latent action              action/        infer
    z, h                    latent, memory state       types.py       Latent, Belief

The paper's critical path, perceive -> remember -> act -> advance, is a cycle. It is cut after *remember*, where nothing
is pending, so that what crosses the cut is small and complete: the `Belief` (z, h, context).

    tick(belief, a, key, o' = None) -> belief', out
      advance    p(z' | z, a, context);  (r, gamma, ...) ~ outcome
      perceive   z' ~ q(z' | context, prediction, o'), or z' ~ p when nothing is observed: imagining
      remember   h', context' = f(h, z', a)

A reset is the first thing a tick does: where `is_first`, the belief and the action become their initial values, and the
transition then predicts openings. No part resets itself.

Three switches choose among formalisms. `filter.reads`: 'frame' (a tokenizer), 'memory' (the paper), 'prediction'
(DreamerV3). `context_to`: the parts beside the filter that read the memory; empty is the strict paper. `outcome.reads`:
'departure' (the paper's p(r, gamma | z, a)) or 'arrival' (DreamerV3's, read where the action led).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from worldmodels import rng
from worldmodels.filter import Posterior
from worldmodels.heart.corruption import corrupt
from worldmodels.types import ActionSpace, Belief, Latent, PyTree, Spec, select

PARTS = ('heart', 'action', 'filter', 'transition', 'memory', 'outcome')
"""The parts of a world model, which are the top-level names of its parameters."""
CONTEXT_READERS = ('transition', 'outcome', 'decoder')


@flax.struct.dataclass
class Tick:
    """What a tick says beside the next belief: expected outcomes (B,) by name, the prediction, and the posterior if it saw."""

    outcomes: dict[str, jax.Array]
    prediction: PyTree
    posterior: Posterior | None


class WorldModel(nn.Module):
    """Heart, action, filter, transition, memory and outcome behind one tick. Hashable: a static argument of jitted functions.

    Every method takes arrays with one leading axis B. Use through `model.apply(variables, ..., method='tick')`, with
    variables = {'params': {part: ...}, 'constants': {...}}.
    """

    spec: Spec
    heart: nn.Module
    action: nn.Module
    filter: nn.Module
    transition: nn.Module
    memory: nn.Module
    outcome: nn.Module
    context_to: tuple[str, ...] = CONTEXT_READERS

    @property
    def actions(self) -> ActionSpace:
        """What a dream takes: the world's own actions, or those found in its frames."""
        return self.action.space

    # -- belief ---------------------------------------------------------------------------------------------------------

    def no_latent(self, batch: int) -> Latent:
        """The latent before any frame: index K, zero embedding. (B, N), (B, N, E)."""
        N = self.heart.layout.tokens
        index_BN = None if self.heart.classes is None else jnp.full((batch, N), self.heart.classes, jnp.int32)
        return Latent(index_BN, jnp.zeros((batch, N, self.heart.embedding_size), jnp.float32))

    def initial(self, batch: int) -> Belief:
        """The belief before an opening frame."""
        h, context_BMD = self.memory.initial(batch)
        return Belief(self.no_latent(batch), h, context_BMD)

    def restart(self, belief: Belief, reset_B: jax.Array) -> Belief:
        """The initial belief where `reset_B`, the same belief elsewhere."""
        batch = reset_B.shape[0]
        _, context_BMD = self.memory.initial(batch)
        return Belief(
            z=select(reset_B, self.no_latent(batch), belief.z),
            h=self.memory.reset(belief.h, reset_B),
            context_BMD=select(reset_B, context_BMD, belief.context_BMD),
        )

    def context_for(self, part: str, context_BMD: jax.Array) -> jax.Array:
        """The context as `part` sees it: all of it, or no slots at all where `context_to` leaves the part out."""
        return context_BMD if part in self.context_to else context_BMD[:, :0]

    # -- the tick -------------------------------------------------------------------------------------------------------

    def tick(
        self,
        belief: Belief,
        action_BA: jax.Array,
        keys_B: jax.Array,
        observation: dict[str, jax.Array] | None = None,
        is_first_B: jax.Array | None = None,
        **dials: Any,
    ) -> tuple[Belief, Tick]:
        """One tick of the world: from a belief and the action taken in it to the next belief.

        Args:
          belief: where the world stands.
          action_BA: action vectors, the action taken there (`actions.vector` of a raw one).
          keys_B: one key per example.
          observation: the frame that followed, raw; None to imagine it.
          is_first_B: where a new episode opens with this tick.
          **dials: sampling options of the transition (steps, temperature), static.

        Returns:
          The next belief, and a `Tick`.
        """
        features = None if observation is None else self.heart.encode(observation)
        if is_first_B is not None:
            belief = self.restart(belief, is_first_B)
            action_BA = jnp.where(is_first_B[:, None], 0.0, action_BA)
        prediction = self.predict(belief.z, action_BA, belief.context_BMD)
        if features is None:
            posterior = None
            z = self.latent(self.transition.sample(prediction, rng.split(keys_B, 2)[0], **dials))
        else:
            posterior = self.perceive(features, belief.context_BMD, prediction, keys_B)
            z = posterior.latent
        h, context_BMD = self.memory.step(belief.h, z, action_BA)
        after = Belief(z, h, context_BMD)
        outputs = self.outcomes(belief.z, belief.context_BMD, action_BA, z, context_BMD)
        return after, Tick(self.outcome.mean(outputs), prediction, posterior)

    def follow(
        self,
        belief: Belief,
        action_BA: jax.Array,
        keys_B: jax.Array,
        features: PyTree,
        reset_B: jax.Array,
        corruption: float = 0.0,
    ) -> tuple[Belief, tuple[Posterior, PyTree]]:
        """`tick` for training: features are encoded beforehand, outcomes are left to be read in parallel afterwards.

        The belief is about what the frame was, corrupted (`corrupted`); the posterior is not.
        """
        belief = self.restart(belief, reset_B)
        action_BA = jnp.where(reset_B[:, None], 0.0, action_BA)
        prediction = None
        if self.filter.reads == 'prediction':
            prediction = self.predict(belief.z, action_BA, belief.context_BMD)
        posterior = self.perceive(features, belief.context_BMD, prediction, keys_B)
        z = self.corrupted(posterior.latent, corruption, keys_B)
        h, context_BMD = self.memory.step(belief.h, z, action_BA)
        return Belief(z, h, context_BMD), (posterior, prediction)

    # -- its pieces -----------------------------------------------------------------------------------------------------

    def encode(self, observation: dict[str, jax.Array]) -> PyTree:
        return self.heart.encode(observation)

    def infer(self, before: dict[str, jax.Array], after: dict[str, jax.Array]) -> jax.Array:
        """The latent actions (B,) that led from frames to frames."""
        return self.action.infer(before, after)

    def predict(self, z: Latent, action_BA: jax.Array, context_BMD: jax.Array) -> PyTree:
        """All that is known of the next frame: p(z' | z, a, context), computed once."""
        return self.transition.predict(z, action_BA, self.context_for('transition', context_BMD))

    def perceive(self, features: PyTree, context_BMD: jax.Array, prediction: PyTree, keys_B: jax.Array) -> Posterior:
        """q(z' | what the filter reads)."""
        return self.filter(features, context_BMD, prediction, rng.split(keys_B, 2)[1])

    def corrupted(self, z: Latent, rate: float, keys: jax.Array) -> Latent:
        """What is given to memory and transition in training (`heart.corruption`): z itself where the rate is 0."""
        return corrupt(z, rate, rng.split(keys, 3)[2], self.heart.classes, self.latent) if rate else z

    def latent(self, tokens: jax.Array) -> Latent:
        """A sample of the transition as a latent: indices (B, N) are embedded, continuous tokens (B, N, E) are themselves."""
        if jnp.issubdtype(tokens.dtype, jnp.integer):
            return Latent(tokens, self.heart.embed(tokens))
        return Latent(None, tokens)

    def outcomes(
        self, z: Latent, context_BMD: jax.Array, action_BA: jax.Array, next_z: Latent, next_context_BMD: jax.Array
    ) -> dict[str, jax.Array]:
        """Head outputs by name, read at the departure or at the arrival."""
        if self.outcome.reads == 'arrival':
            z, context_BMD = next_z, next_context_BMD
        return self.outcome(z, action_BA, self.context_for('outcome', context_BMD))

    def decode(self, z: Latent, context_BMD: jax.Array) -> dict[str, jax.Array]:
        """p(o | z): predictions by modality, float."""
        return self.heart.decode(z, self.context_for('decoder', context_BMD))

    def render(self, belief: Belief) -> dict[str, jax.Array]:
        """The frame of a belief, in the world's own dtype."""
        return self.heart.render(self.decode(belief.z, belief.context_BMD))

    def __call__(self, observation: dict[str, jax.Array], action_BA: jax.Array, keys_B: jax.Array) -> jax.Array:
        """Touches every parameter once; for `init` only."""
        belief = self.initial(action_BA.shape[0])
        belief, tick = self.tick(belief, action_BA, keys_B, observation)
        self.transition.loss(tick.prediction, tick.posterior, keys_B)
        self.tick(belief, action_BA, keys_B)
        self.render(belief)
        one_tick = jax.tree.map(lambda x: x[:, None], (belief.context_BMD, belief.z, action_BA))
        self.memory.losses(*one_tick, jnp.zeros((action_BA.shape[0], 1), bool), keys_B[:, None])
        if self.heart.tokenizer:
            self.heart.autoencode(observation, keys_B)
        if self.action.latent:
            self.action.losses(observation, observation, keys_B)
        return belief.context_BMD
