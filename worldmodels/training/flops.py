"""Floating-point operations of a program, counted from its jaxpr: matmuls and convolutions, recompute included."""

from __future__ import annotations

import math

from jax.extend.core import ClosedJaxpr, Jaxpr


def count(jaxpr: ClosedJaxpr | Jaxpr) -> int:
    """Operations of one run, a multiplication and its addition being two.

    Loops count as often as they run; of a conditional the costliest branch; a loop of unknown length once.
    """
    total = 0
    for eqn in getattr(jaxpr, 'jaxpr', jaxpr).eqns:
        name = eqn.primitive.name
        if name == 'dot_general':
            total += _dot(eqn)
        elif name == 'conv_general_dilated':
            total += _convolution(eqn)
        else:
            inner = [count(j) for value in eqn.params.values() for j in _jaxprs(value)]
            times = eqn.params['length'] if name == 'scan' else 1
            total += times * (max(inner, default=0) if name == 'cond' else sum(inner))
    return total


def _jaxprs(value):
    if isinstance(value, (ClosedJaxpr, Jaxpr)):
        return [value]
    if isinstance(value, (tuple, list)):
        return [v for v in value if isinstance(v, (ClosedJaxpr, Jaxpr))]
    return []


def _dot(eqn) -> int:
    (contract, _), _ = eqn.params['dimension_numbers']
    return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[d] for d in contract)


def _convolution(eqn) -> int:
    kernel, numbers = eqn.invars[1].aval.shape, eqn.params['dimension_numbers']
    taps = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    # A dilated input is mostly zeros, which nobody multiplies.
    return 2 * math.prod(eqn.outvars[0].aval.shape) * taps // math.prod(eqn.params['lhs_dilation'])
