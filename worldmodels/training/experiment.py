"""An experiment as the command line names it: a file with get_config, an argument for it, and fields that are set anew.

    experiments/doorkey.py:masked,memory=none    --config.data.batch_size=4 --config.train.parts=transition,memory

A value is read by the type of the field's present one: nothing is evaluated but Python literals in tuples and sections.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import pathlib
import re
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections

Override = tuple[str, str | None]
"""A field's dotted name, and the text given for it; None where there was no '='."""


def load(name: str) -> tuple[ml_collections.ConfigDict, Any]:
    """The config of FILE.py:ARG, and the module that made it.

    Raises:
      ValueError: there is no such file, it has no get_config, or it raises; the message says where.
    """
    path, _, arg = name.partition(':')
    module, config = run(path, arg, 'experiment', 'get_config', 'arg', 'a config', 'experiments/doorkey.py')
    if not isinstance(config, ml_collections.ConfigDict):
        raise ValueError(
            f"get_config of '{path}' returns a {type(config).__name__}: expected a ConfigDict, from `default_config()`."
        )
    return config, module


def run(path: str, arg: str, what: str, function: str, takes: str, returns: str, example: str) -> tuple[Any, Any]:
    """The module that a Python file is, and what its function returns for `arg`.

    The words `what` ('experiment'), `takes`, `returns` and `example` are for the sentences.

    Raises:
      ValueError: there is no such file, it has no such function, or it raises; the message says where.
    """
    file = pathlib.Path(path)
    if not path.endswith('.py') or not file.is_file():
        near = difflib.get_close_matches(file.name, [p.name for p in sorted(file.parent.glob('*.py'))], 1, 0.7)
        hint = (
            f'did you mean {file.with_name(near[0])}?' if near else f'give a file with {function}, such as {example}.'
        )
        raise ValueError(f"There is no {what} '{path}': {hint}")
    try:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, function):
            raise ValueError(f"'{path}' is no {what}: it has no function {function}({takes}) that returns {returns}.")
        return module, getattr(module, function)(arg)
    except ValueError:
        raise
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(file.name)]
        lines += [error.lineno] if isinstance(error, SyntaxError) and error.lineno else []
        where = f', line {lines[-1]}' if lines else ''
        raise ValueError(f"The {what} '{path}'{where} raises {type(error).__name__}: {error}; mend it.") from error


def take(argv: Sequence[str]) -> tuple[list[str], list[Override]]:
    """A command line without its --config.FIELD=VALUE, and these."""
    rest, overrides = [], []
    for i, word in enumerate(argv):
        found = re.fullmatch(r'--?(no)?config\.([^=]*)(?:=(.*))?', word, re.DOTALL)
        if word == '--':
            return rest + list(argv[i:]), overrides
        if not found:
            rest.append(word)
        elif found[1]:
            overrides.append((found[2], 'false' if found[3] is None else None))
        else:
            overrides.append((found[2], found[3]))
    return rest, overrides


def override(config: ml_collections.ConfigDict, overrides: Sequence[Override]) -> ml_collections.ConfigDict:
    """The config with fields set anew, in the order given; what it was made from is left as it is.

    Raises:
      ValueError: a field that does not exist (the nearest one is offered), or text that is no value of its type.
    """
    config = config.copy_and_resolve_references()
    for name, text in overrides:
        *sections, field = name.split('.')
        section = config
        for part in sections:
            section = section.get(part)
            if not isinstance(section, ml_collections.ConfigDict):
                break
        if not isinstance(section, ml_collections.ConfigDict) or field not in section:
            raise ValueError(f'The config has no field "{name}": {_nearest(name, config)}')
        with section.ignore_type(), section.unlocked():
            section[field] = _value(name, text, section[field])
    return config


def _value(name: str, text: str | None, now: Any) -> Any:
    """What the text of an override means where `now` stands."""
    if isinstance(now, bool):
        words = {None: True, 'true': True, '1': True, 'false': False, '0': False}
        key = text if text is None else text.lower()
        if key not in words:
            raise ValueError(f'--config.{name} was given {text!r}, and takes true or false.')
        return words[key]
    takes = f'takes a value of type {type(now).__name__}, such as {_show(now)}.'
    if isinstance(now, ml_collections.ConfigDict):
        takes = f'is a section: give one of its fields ({", ".join(now)}), or all of them as a Python dict.'
    refused = ValueError(f'--config.{name} was given {text!r}, and {takes}')
    if text is None:
        raise ValueError(f'--config.{name} was given no value: write --config.{name}=VALUE.')
    if isinstance(now, str):
        return text
    if isinstance(now, (int, float)):
        try:
            return type(now)(text)
        except ValueError:
            raise refused from None
    try:
        value = ast.literal_eval(text.strip())
    except Exception:  # by its depth or its characters a text can also fail in ways of its own
        value = None
        if isinstance(now, (tuple, list)):
            value = tuple(word for word in (w.strip() for w in text.split(',')) if word)
            if not all(re.fullmatch(r'[\w/.+-]+', word) for word in value):
                raise refused from None
        elif now is not None:
            raise refused from None
    if isinstance(now, ml_collections.ConfigDict):
        if not isinstance(value, dict) or not all(isinstance(k, str) and '.' not in k for k in _keys(value)):
            raise refused
        return ml_collections.ConfigDict(value)
    if isinstance(now, (tuple, list)):
        return tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return text if value is None and text != 'None' else value


def _show(now: Any) -> str:
    return str(now) or "''"


def _keys(x: Any) -> Iterator[Any]:
    if isinstance(x, dict):
        for key, value in x.items():
            yield key
            yield from _keys(value)


def _names(section: ml_collections.ConfigDict, prefix: str = '') -> Iterator[str]:
    for name, value in section.items():
        yield prefix + name
        if isinstance(value, ml_collections.ConfigDict):
            yield from _names(value, f'{prefix}{name}.')


def _nearest(name: str, config: ml_collections.ConfigDict) -> str:
    """What to write instead of a name: near in spelling, or the same word in another section."""
    names = list(_names(config))
    same = [n for n in names if n.rpartition('.')[2] == name.rpartition('.')[2]]
    near = difflib.get_close_matches(name, names, 1) or same
    if near:
        return f'did you mean "{near[0]}"?'
    sections = [n for n in names if '.' not in n]
    return f'its sections are {", ".join(sections)}, and their fields in worldmodels/training/config.py.'
