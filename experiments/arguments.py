"""The string after the colon in `--config=experiments/NAME.py:ARGS`, read strictly."""

from __future__ import annotations

import difflib
from typing import Any


def parse(text: str, variants: tuple[str, ...], **options: Any) -> tuple[str, dict[str, Any]]:
    """'masked,memory=none,tiny' -> ('masked', {'memory': 'none', 'tiny': True}).

    Args:
      text: a variant first (the first of `variants` when empty), then name=value, or a name alone for a switch.
      variants: what the experiment can be.
      **options: their defaults, whose types the values take.

    Raises:
      ValueError: a variant or option that does not exist, with the nearest one, or a value of another type.
    """
    words = [w.strip() for w in text.split(',') if w.strip()]
    variant = words.pop(0) if words and '=' not in words[0] and words[0] not in options else variants[0]
    if variant not in variants:
        raise ValueError(f"'{variant}' is no variant of this experiment; {_offer(variant, variants)}")
    values = dict(options)
    for word in words:
        name, _, value = word.partition('=')
        if name not in options:
            raise ValueError(f"'{name}' is no option of this experiment; {_offer(name, tuple(options))}")
        default = options[name]
        if isinstance(default, bool):
            if value not in ('', 'true', 'false'):
                raise ValueError(f"option '{name}' is a switch: write '{name}' alone, not '{word}'.")
            values[name] = value != 'false'
            continue
        try:
            values[name] = type(default)(value)
        except ValueError:
            raise ValueError(
                f"option '{name}' was given '{value}'; it takes a {type(default).__name__}, such as {name}={default}."
            ) from None
    return variant, values


def _offer(name: str, valid: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, valid, 1)
    return (f"did you mean '{near[0]}'? " if near else '') + f'Valid: {", ".join(valid)}.'
