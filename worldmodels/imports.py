"""Code of one's own, named as 'package.module:Name' wherever a config or a flag chooses a part or a world.

The name carries no code. It says which module to import, and that module must be one Python finds on this machine: installed,
or in the current folder, which is looked through last. So a checkpoint whose config names such a part runs nothing it
brought along; it runs what its reader has put there, or is refused.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import re
import sys
from typing import Any

FORM = 'package.module:Name'
_NAME = re.compile(r'[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*')


def is_path(name: Any) -> bool:
    """Whether a name is of the form 'package.module:Name', so that it is `load` that knows it."""
    return isinstance(name, str) and ':' in name


def load(name: str, field: str) -> Any:
    """What 'package.module:Name' names.

    Args:
      name: the module, a colon, and one of its top-level names.
      field: where the name was given, for the message: 'model.memory.kind', '--world'.

    Raises:
      ValueError: a name of another form, a module that is not found or that fails while it is imported, or a module without
        that name; in one sentence, with the nearest that there is.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{field} is '{name}'; code of your own is named as '{FORM}'.")
    path, _, attribute = name.partition(':')
    module = _module(path, name, field)
    if not hasattr(module, attribute):
        public = [n for n in vars(module) if not n.startswith('_')]
        where = getattr(module, '__file__', None) or 'a built-in module'
        raise ValueError(f"{field} is '{name}', and '{path}' ({where}) has no '{attribute}'{_near(attribute, public)}.")
    return getattr(module, attribute)


def _module(path: str, name: str, field: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # last: a file here never stands in for an installed module
    importlib.invalidate_caches()
    try:
        return importlib.import_module(path)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f'{path}.'.startswith(f'{error.name}.'):
            near = _near(error.name, [m.name for m in pkgutil.iter_modules([here])])
            raise ValueError(
                f"{field} is '{name}', and no module '{error.name}' is installed or lies in the current folder "
                f'{here}{near}.'
            ) from None
        said = ' '.join(str(error).split()) or 'no message'
        raise ValueError(
            f"{field} is '{name}', and importing '{path}' failed with {type(error).__name__}: {said.rstrip('.')}."
        ) from error


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean '{near[0]}'?" if near else ''
