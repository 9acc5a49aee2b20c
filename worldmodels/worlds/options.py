"""The options of a family of worlds: declared once, checked once, read from a command line.

A family's module says `options(name) -> {'view': Option('full', ('full', 'partial'), 'what is seen'), ...}`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Option:
    """One setting of a world.

    default  what it is when nobody says otherwise; its type is the option's type
    values   all that it may be, () for anything of the type
    minimum  the least number it may be, None for any
    help     one line
    kind     the type, where the default does not show it (a default of None stands for 'as the world has it')
    """

    default: Any
    values: tuple = ()
    help: str = ''
    minimum: float | None = None
    kind: type | None = None

    @property
    def type(self) -> type:
        return self.kind or type(self.default)


def choose(world: str, known: dict[str, Option], given: dict[str, Any]) -> dict[str, Any]:
    """Every option of a world by name: as given, else its default.

    A text is read as the option's type, so that command lines may hand on what was typed. Raises ValueError for an
    option the world does not have (with the nearest it has) and for a value that it cannot take.
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.4)
            hint = f'did you mean {near[0]!r}?' if near else f'it has {", ".join(known) or "none"}.'
            raise ValueError(f'{world} has no option {name!r}: {hint}')
    return {name: _read(name, option, given.get(name, option.default)) for name, option in known.items()}


def parse(settings: Iterable[str]) -> dict[str, str]:
    """['view=partial', 'max_steps=200'] -> {'view': 'partial', 'max_steps': '200'}, for `choose` to read."""
    found: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition('=')
        if not equals or not name:
            raise ValueError(f'option {setting!r}: give name=value, as in view=partial.')
        if name in found:
            raise ValueError(f'option {name} is given twice, as {found[name]!r} and {value!r}: give it once.')
        found[name] = value
    return found


def _read(name: str, option: Option, value: Any) -> Any:
    wanted = option.type
    if value is None and option.default is None:
        return None
    if isinstance(value, str) and wanted is not str:
        value = _from_text(name, wanted, value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if option.values and value not in option.values:
        raise ValueError(f'{name}={value!r} is not one of {" | ".join(map(str, option.values))}.')
    # A bool is an int to Python; as a number of steps it is a mistake.
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ValueError(f'{name}={value!r}: give {_called(wanted)}.')
    if option.minimum is not None and not value >= option.minimum:
        raise ValueError(f'{name}={value!r}: give {_called(wanted)} of at least {option.minimum}.')
    return value


def _from_text(name: str, wanted: type, text: str) -> Any:
    if wanted is bool:
        known = {'true': True, 'yes': True, '1': True, 'false': False, 'no': False, '0': False}
        if text.lower() in known:
            return known[text.lower()]
    else:
        try:
            return wanted(text)
        except ValueError:
            pass
    raise ValueError(f'{name}={text!r}: give {_called(wanted)}.')


def _called(wanted: type) -> str:
    return {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a name'}.get(
        wanted, f'a value of type {wanted.__name__}'
    )
