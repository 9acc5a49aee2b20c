"""What training carries from step to step, and nothing else does."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import optax

from worldmodels.types import Belief, PyTree


@flax.struct.dataclass
class TrainState:
    """The whole state of a run but for its position in the data.

    step             int32: steps taken, skipped ones included
    params           dict of parts, trained or not
    constants        dict of what is fitted rather than learned
    opt_state        of the trained parts only
    slow_params      moving average of the trained parts; None when ema is 0
    belief           carried from a segment to its row's next one, (B, ...); None when segments are not consecutive
    skipped          int32: updates skipped because something was not finite
    skipped_in_a_row int32: how many of them are the latest steps
    """

    step: jax.Array
    params: PyTree
    constants: PyTree
    opt_state: PyTree
    slow_params: PyTree | None
    belief: Belief | None
    skipped: jax.Array
    skipped_in_a_row: jax.Array


def create(
    variables: dict,
    optimizer: optax.GradientTransformation,
    parts: tuple[str, ...],
    ema: float = 0.0,
    belief: Belief | None = None,
) -> TrainState:
    """The state before step 0.

    Args:
      variables: {'params': dict of parts, 'constants': dict}.
      optimizer: its state is made for the parts named in `parts` only.
      parts: the parts that are trained.
      ema: decay of `slow_params`; 0 for none.
      belief: initial belief of the whole batch, where it is carried.

    Raises:
      ValueError: the model has no parameters under a name in `parts`.
    """
    params = variables['params']
    # A part may have no parameters (a memory that remembers nothing); only when none has, nothing would be trained.
    chosen = trained(params, parts)
    if not jax.tree.leaves(chosen):
        raise ValueError(
            f'config.train.parts is {parts}, but none of them has parameters: '
            f'expected some of {", ".join(sorted(params))}.'
        )
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        params=params,
        constants=variables.get('constants', {}),
        opt_state=optimizer.init(chosen),
        slow_params=jax.tree.map(jnp.copy, chosen) if ema else None,
        belief=belief,
        skipped=zero,
        skipped_in_a_row=zero,
    )


def trained(params: dict, parts: tuple[str, ...]) -> dict:
    """The parameters of the trained parts."""
    return {name: params[name] for name in parts if name in params}


def evaluated(state: TrainState) -> dict:
    """The variables to evaluate: slow parameters where there are any, else the parameters."""
    return {'params': {**state.params, **(state.slow_params or {})}, 'constants': state.constants}
