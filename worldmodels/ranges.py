"""Which sizes and shares the fields of a part may have: said when the config is read, not by a reshape deep in the trace.

Upper ends are far above what anybody trains. They keep a slip of the keyboard from tracing a million layers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

LARGEST = 1 << 16
_UNROLLED = {'depth': 1024, 'encoder_depth': 256, 'decoder_depth': 256, 'layers': 256, 'steps': 4096}
_UNROLLED |= {'length': 1 << 14, 'levels': 16}
_ZERO = ('encoder_depth', 'decoder_depth', 'depth', 'layers', 'latents')
_SHARES = ('hide', 'unimix', 'floor', 'shortcuts', 'threshold', 'drop_action')


def fault(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first field (name, what it must be) that is out of range; None when all are well.

    A default tells what a field counts in: a real one is no count, and one of 0 says that there may be none.
    """
    for name, value in values.items():
        default = defaults.get(name)
        expected = _real(name, value) if isinstance(default, float) else _expected(name, value, default)
        if expected:
            return name, expected
    width, heads = values.get('width'), values.get('heads')
    if width and heads and width % heads:
        return 'heads', f'a divisor of its width, {width}'
    return None


def _real(name: str, value: float) -> str | None:
    if name in _SHARES:
        return None if 0 <= value < 1 else 'a share of at least 0 and below 1'
    return None if 0 <= value <= sys.float_info.max else 'a finite number of at least 0'


def _expected(name: str, value: Any, default: Any) -> str | None:
    if isinstance(value, tuple) and not all(isinstance(v, str) for v in value or (0,)):
        least = 2 if name == 'levels' else 1
        good = 0 < len(value) <= 64 and all(type(v) is int and least <= v <= LARGEST for v in value)
        return None if good else f'1 to 64 whole numbers from {least} to {LARGEST}'
    if type(value) is int:
        least, most = int(name not in _ZERO and default != 0), _UNROLLED.get(name, LARGEST)
        return None if least <= value <= most else f'a whole number from {least} to {most}'
    return None
