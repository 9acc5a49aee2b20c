"""One training step: pure, knowing neither devices nor files.

The loss of a step is sum_k w_k sum(loss_k mask_k) / sum(mask_k), its sums taken over the whole batch wherever it lies:
four devices compute what one does on the joined batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from worldmodels import rng
from worldmodels.training import signatures
from worldmodels.training.config import StepConfig
from worldmodels.training.state import TrainState, trained
from worldmodels.types import PyTree, Ticks

LossFunction = Callable[..., tuple[dict, Any, dict]]
"""(model, variables, ticks, belief, keys_B, parts, corruption, remat) -> {name: (loss_BT, mask_BT)}, belief, {name: (sum,
count)}. The last two arguments may be left out: there is neither in validation."""


def train_step(
    state: TrainState,
    ticks: Ticks,
    *,
    model: Any,
    optimizer: optax.GradientTransformation,
    config: StepConfig,
    losses: LossFunction,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, tuple[jax.Array, jax.Array]]]:
    """The next state and the metrics of this step, as pairs (sum, count) over the whole batch.

    When a loss, a gradient or a carried belief is not finite, on any device, the update is skipped on all: parameters,
    optimizer, slow parameters and belief stay as they were; the step counts and so do the `skipped` counters.

    Args:
      state: belief leaves are this device's rows.
      ticks: this device's rows of the batch; their keys come from the global index in `example_B`.
      axis_name: name of the device axis, None to run without one.
    """
    loss = objective(state, ticks, model=model, config=config, losses=losses, axis_name=axis_name)
    params = trained(state.params, config.parts)
    # The objective holds this device's share of the sums over everybody's counts, so the gradients just add up. A psum
    # inside would leave its transpose to jax's taste.
    (total, (belief, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    total, grads, metrics = _reduce((total, grads, metrics), axis_name)
    belief = None if state.belief is None else jax.lax.stop_gradient(belief)

    # A norm that overflows would leave the optimizer's second moments infinite for ever, so it counts as not finite.
    grad_norm = optax.global_norm(grads)
    bad_here = ~(jnp.isfinite(total) & jnp.isfinite(grad_norm) & _finite(belief))
    good = _reduce(bad_here.astype(jnp.int32), axis_name) == 0

    updates, opt_state = optimizer.update(grads, state.opt_state, params)
    new_params = optax.apply_updates(params, updates)
    slow = state.slow_params
    if slow is not None:
        # Early on the average is short, or the initial values would weigh for 1 / (1 - ema) steps.
        decay = jnp.minimum(config.ema, (1.0 + state.step) / (10.0 + state.step))
        slow = jax.tree.map(lambda s, p: decay * s + (1.0 - decay) * p, slow, new_params)

    def keep(new, old):
        return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)

    bad = (~good).astype(jnp.int32)
    state = state.replace(
        step=state.step + 1,
        params={**state.params, **keep(new_params, params)},
        opt_state=keep(opt_state, state.opt_state),
        slow_params=keep(slow, state.slow_params),
        belief=keep(belief, state.belief),
        skipped=state.skipped + bad,
        skipped_in_a_row=jnp.where(good, 0, state.skipped_in_a_row + 1),
    )
    one = jnp.ones(())
    metrics = {
        **_finished(metrics),
        'loss': (total, one),
        'grad_norm': (grad_norm, one),
        'skipped': (state.skipped, one),
        'skipped_in_a_row': (state.skipped_in_a_row, one),
    }
    return state, metrics


def objective(
    state: TrainState,
    ticks: Ticks,
    *,
    model: Any,
    config: StepConfig,
    losses: LossFunction,
    axis_name: str | None = None,
) -> Callable[[PyTree], tuple[jax.Array, tuple[Any, dict]]]:
    """What a step descends: trained parameters -> (this device's share of the loss, (belief, metrics))."""
    keys_B = rng.per_example(rng.stream(config.seed, 'train'), state.step, ticks.example_B)

    def loss(params: PyTree) -> tuple[jax.Array, tuple[Any, dict]]:
        variables = {'params': {**state.params, **params}, 'constants': state.constants}
        given = (model, variables, ticks, state.belief, keys_B, config.parts, config.corruption, config.remat)
        terms, belief, metrics = losses(*given)
        total, pairs = _weighted(terms, config.weights, axis_name)
        return total, (belief, {**metrics, **pairs})

    return loss


def validation_step(
    variables: PyTree,
    ticks: Ticks,
    *,
    model: Any,
    config: StepConfig,
    losses: LossFunction,
    axis_name: str | None = None,
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The losses and metrics of one batch as pairs (sum, count), nothing learned and nothing carried."""
    keys_B = rng.per_example(rng.stream(config.seed, 'validation'), 0, ticks.example_B)
    terms, _, metrics = losses(model, variables, ticks, None, keys_B, config.parts)
    _, pairs = _weighted(terms, config.weights, axis_name)
    return _finished(_reduce({**metrics, **pairs}, axis_name))


def check_losses(state: TrainState, ticks: Ticks, *, model: Any, config: StepConfig, losses: LossFunction) -> None:
    """Check by shapes alone, at no cost, that the losses are (B, T) and that each has a weight and each weight a loss.

    Raises ValueError.
    """

    def run(variables, ticks, belief):
        keys_B = rng.per_example(rng.stream(config.seed, 'train'), 0, ticks.example_B)
        return losses(model, variables, ticks, belief, keys_B, config.parts)[0]

    variables = {'params': state.params, 'constants': state.constants}
    terms = jax.eval_shape(run, variables, ticks, state.belief)
    given = {name for name, _ in config.weights}
    if given != set(terms):
        without, idle = sorted(set(terms) - given), sorted(given - set(terms))
        detail = [f'no weight for the loss {", ".join(without)}'] if without else []
        detail += [f'no loss for the weight {", ".join(idle)}'] if idle else []
        raise ValueError(
            f'config.train.weights must name the losses of parts {", ".join(config.parts)}: {"; ".join(detail)}.'
        )
    for name, (loss, mask) in terms.items():
        if loss.shape != ticks.is_first.shape or mask.shape != ticks.is_first.shape:
            raise ValueError(
                f'Loss "{name}" has shape {loss.shape} and mask {mask.shape}, expected {ticks.is_first.shape}.'
            )


def _weighted(terms: dict, weights: tuple, axis_name: str | None) -> tuple[jax.Array, dict]:
    """This device's share of the weighted loss, and {loss/name: (sum, count)} of this device."""
    total, pairs = jnp.zeros(()), {}
    for name, weight in weights:
        loss_BT, mask_BT = terms[name]
        mask_BT = mask_BT.astype(jnp.float32)
        here, count = (loss_BT.astype(jnp.float32) * mask_BT).sum(), mask_BT.sum()
        everywhere = _reduce(jax.lax.stop_gradient(count), axis_name)
        total += weight * here / jnp.where(everywhere > 0, everywhere, 1.0)
        pairs[f'loss/{name}'] = (here, count)
    return total, pairs


def _finished(metrics: dict) -> dict:
    """Metrics summed over all devices, with signatures in place of their sums."""
    found = signatures.finish(metrics[signatures.SUMS]) if signatures.SUMS in metrics else {}
    return {**{k: v for k, v in metrics.items() if k != signatures.SUMS}, **found}


def _reduce(tree: PyTree, axis_name: str | None) -> PyTree:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def _finite(tree: PyTree) -> jax.Array:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in floats], bool))
