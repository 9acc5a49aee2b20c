"""What an evaluation may be asked: the fields of config.evaluate."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """config.evaluate: starts, ticks watched, ticks dreamed, dreams of each start, pixels of a cell's side, and the
    dials of the transition, by name (`build.read_dials`).
    """

    starts: int = 200
    context: int = 8
    horizon: int = 15
    seeds: int = 3
    tile: int = 8
    dials: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any], **overrides: Any) -> Settings:
        """From config.evaluate; overrides that are None leave it as it is.

        Raises:
          ValueError: an unknown field, or a number below 1.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        for name in config:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1) or names
                raise ValueError(
                    f'config.evaluate.{name} is not a field of an evaluation; did you mean {" or ".join(near)}?'
                )
        values = dict(config) | {k: v for k, v in overrides.items() if v is not None}
        for name, value in values.items():
            if name != 'dials' and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f'evaluate.{name} must be a whole number of at least 1, got {value!r}.')
        return cls(**{**values, 'dials': dict(values.get('dials', {}))})


def parse_dials(words: Sequence[str]) -> dict[str, str] | None:
    """NAME=VALUE, ... by name; None where there are none. Raises ValueError for a word without a value."""
    for word in words:
        if '=' not in word:
            raise ValueError(f'--dial={word}: write --dial=NAME=VALUE, as in --dial=steps=4.')
    return dict(word.split('=', 1) for word in words) or None
