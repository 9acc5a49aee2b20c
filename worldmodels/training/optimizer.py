r"""The optimizer of an experiment, an optax chain built from `config.optimizer`.

$$\theta \leftarrow \theta - \eta\,\frac{\bar g}{\sqrt{\bar v} + \epsilon}$$

with $\bar g$ and $\bar v$ running means of the gradient and its square: AdamW (Loshchilov & Hutter, 2017, arXiv
1711.05101); or LaProp (Ziyin et al., 2020, arXiv 2002.04839), which divides first and averages then.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_collections
import optax

KINDS = ('adamw', 'laprop')
SCHEDULES = ('constant', 'cosine')


def make_optimizer(config: ml_collections.ConfigDict, steps: int) -> optax.GradientTransformation:
    """Clipping, AdamW or LaProp, weight decay and the learning-rate schedule.

    'adamw' is Loshchilov & Hutter 2019; 'laprop' normalises before it averages (Ziyin et al. 2020), as DreamerV3 does.
    Weight decay touches tensors with two or more axes only, so neither biases nor norm scales.

    Args:
      config: `config.optimizer`; the fields are those of `default_config`.
      steps: length of the run, where a cosine schedule reaches zero.

    Raises:
      ValueError: a field is out of range.
    """
    _check(config, steps)
    chain = []
    if config.agc:
        chain.append(clip_by_parameter_norm(config.agc))
    if config.clip_norm:
        chain.append(optax.clip_by_global_norm(config.clip_norm))
    if config.kind == 'adamw':
        chain.append(optax.scale_by_adam(config.b1, config.b2, config.eps))
    else:
        chain.append(optax.scale_by_rms(config.b2, config.eps, eps_in_sqrt=False, bias_correction=True))
        chain.append(optax.ema(config.b1, debias=True))
    if config.weight_decay:
        chain.append(optax.add_decayed_weights(config.weight_decay, lambda p: jax.tree.map(lambda x: x.ndim > 1, p)))
    chain.append(optax.scale_by_learning_rate(make_schedule(config, steps)))
    return optax.chain(*chain)


def make_schedule(config: ml_collections.ConfigDict, steps: int) -> optax.Schedule:
    """Learning rate by update: linear warm-up from lr / warmup, then constant or cosine to zero at `steps`."""
    if config.schedule == 'constant':
        rest = optax.constant_schedule(config.learning_rate)
    else:
        rest = optax.cosine_decay_schedule(config.learning_rate, max(steps - config.warmup, 1))
    if not config.warmup:
        return rest
    first = config.learning_rate / config.warmup  # never zero: the first update must move
    return optax.join_schedules(
        [optax.linear_schedule(first, config.learning_rate, config.warmup - 1), rest], [config.warmup]
    )


def clip_by_parameter_norm(limit: float, floor: float = 1e-3) -> optax.GradientTransformation:
    """Scale each gradient tensor so that its norm is at most `limit` times its parameter's (at least `floor`).

    Adaptive gradient clipping (Brock et al. 2021) in the per-tensor form of DreamerV3, which has no opinion on layouts.
    """

    def clip(gradient, parameter):
        most = limit * jnp.maximum(jnp.linalg.norm(parameter.ravel()), floor)
        norm = jnp.linalg.norm(gradient.ravel())
        return gradient * jnp.minimum(1.0, most / jnp.maximum(norm, 1e-20))

    return optax.stateless(lambda updates, params: jax.tree.map(clip, updates, params))


def _check(config: ml_collections.ConfigDict, steps: int) -> None:
    for field, value, options in (('kind', config.kind, KINDS), ('schedule', config.schedule, SCHEDULES)):
        if value not in options:
            raise ValueError(f'config.optimizer.{field} is "{value}", expected one of {", ".join(options)}.')
    if config.learning_rate <= 0:
        raise ValueError(f'config.optimizer.learning_rate is {config.learning_rate}, expected a positive number.')
    for field in ('warmup', 'clip_norm', 'agc', 'weight_decay'):
        if config[field] < 0:
            raise ValueError(f'config.optimizer.{field} is {config[field]}, expected 0 (none) or more.')
    for field in ('b1', 'b2'):
        if not 0 <= config[field] < 1:
            raise ValueError(f'config.optimizer.{field} is {config[field]}, expected at least 0 and below 1.')
    if config.eps <= 0:
        raise ValueError(f'config.optimizer.eps is {config.eps}, expected a positive number.')
    if config.schedule != 'constant' and config.warmup >= steps:
        raise ValueError(
            f'config.optimizer.warmup is {config.warmup}, expected less than train.steps, {steps}, with a schedule.'
        )
