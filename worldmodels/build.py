"""From a config to a world model: every part chosen by name, every field checked before any compute is spent.

A kind is one of the names in `KINDS`, or the import path of a part of one's own, 'package.module:Name' (see `imports`): a
class with the contract's methods, whose fields are checked as all others are.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from flax.core.meta import unbox

from worldmodels import action as actions
from worldmodels import heart as hearts
from worldmodels import imports, ranges, rng
from worldmodels import memory as memories
from worldmodels import transition as transitions
from worldmodels.filter import Filter, Tokenized
from worldmodels.memory.base import Memory
from worldmodels.nn import initializers
from worldmodels.outcome import Outcome
from worldmodels.types import PyTree, Spec
from worldmodels.world_model import CONTEXT_READERS, PARTS, WorldModel

KINDS = {'heart': hearts.KINDS, 'action': actions.KINDS, 'transition': transitions.KINDS, 'memory': memories.KINDS}
CONTRACTS = {
    'heart': hearts.CONTRACT,
    'action': actions.CONTRACT,
    'transition': transitions.CONTRACT,
    'memory': memories.CONTRACT,
}
BASES = {'heart': nn.Module, 'action': nn.Module, 'transition': nn.Module, 'memory': Memory}
"""What a part of one's own is derived from."""
GIVEN = {'kind': 'given'}
READS = ('frame', 'memory', 'prediction')
WIRED = ('spec', 'dtype', 'classes', 'layout', 'table', 'grid_tokens', 'names', 'aligned')
"""Fields of parts that follow from the other parts; `wiring` below gives them."""
INNER = 'part'
"""In the metadata of a part's field: the field holds parts of this name, each by a name of its own (`memory.stack`)."""


def build_model(config: Mapping[str, Any], spec: Spec, dtype: str | None = None) -> WorldModel:
    """The world model a config describes, for worlds of this spec.

    Args:
      config: heart, filter, transition, memory, outcome (each a mapping of fields, with `kind` where there are several),
        action (the data's own where it is left out) and context_to.
      spec: the world's observation, action and outcomes.
      dtype: compute dtype; None takes float32 on CPU and bfloat16 on accelerators.

    Raises:
      ValueError: an unknown field or kind (the nearest valid name is offered), a wrong type, or parts that make no sense
        together.
    """
    if dtype is None:
        dtype = 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'
    config = {'action': GIVEN, **_plain(config)}
    for name in config:
        if name not in (*PARTS, 'context_to'):
            raise ValueError(f'model.{name} is no part of a world model; {_nearest(name, (*PARTS, "context_to"))}')
    context_to = tuple(config.get('context_to', CONTEXT_READERS))
    for reader in context_to:
        if reader not in CONTEXT_READERS:
            raise ValueError(f"model.context_to names '{reader}'; {_nearest(reader, CONTEXT_READERS)}")
    heart = _part('heart', config, {'spec': spec, 'dtype': dtype})
    wiring = {
        'spec': spec,
        'dtype': dtype,
        'classes': heart.classes,
        'layout': heart.layout,
        'table': heart.tokenizer and heart.classes is not None and config['heart']['kind'] != 'palette',
        'grid_tokens': heart.tokenizer,
        'names': spec.outcomes,
    }
    reads = config['filter'].get('reads', 'frame')
    if reads not in READS:
        raise ValueError(f"model.filter.reads is '{reads}'; {_nearest(reads, READS)}")
    action = _part('action', config, {'spec': spec, 'dtype': dtype})
    _check_action(action, spec)
    memory = _part('memory', config, wiring)
    wiring['aligned'] = memory.aligned
    _refuse_nonsense(config, heart, memory, reads, context_to)
    return WorldModel(
        spec=spec,
        heart=heart,
        action=action,
        filter=_part('filter', config, wiring),
        transition=_part('transition', config, wiring),
        memory=memory,
        outcome=_part('outcome', config, wiring),
        context_to=context_to,
    )


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same `config.model` with every field of the chosen parts, so that a command line can set them all."""
    config = {'action': GIVEN, **_plain(config)}
    out: dict[str, Any] = {'context_to': CONTEXT_READERS, **config}
    for part in PARTS:
        out[part] = _completed(part, _class(part, config), config[part], f'model.{part}')
    return out


def _completed(part: str, cls: type, given: dict[str, Any], where: str) -> dict[str, Any]:
    declared = {n: f for n, f in _declared(cls).items() if n not in _wired(part)}
    out = {**{n: _plain(f.default) for n, f in declared.items()}, **given}
    for name, field in declared.items():
        if INNER in field.metadata and isinstance(out[name], dict):
            inner, section = field.metadata[INNER], f'{where}.{name}'
            classes = {k: _kind(inner, fields, f'{section}.{k}') for k, fields in out[name].items()}
            out[name] = {k: _completed(inner, c, out[name][k], f'{section}.{k}') for k, c in classes.items()}
    return out


def dials_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The dials of the transition that a `config.model` chooses, and where they stand unless told otherwise."""
    config = _plain(config)
    declared, given = _declared(_class('transition', config)), config['transition']
    return {n: given.get(n, declared[n].default) for n in getattr(_class('transition', config), 'DIALS', ())}


def read_dials(config: Mapping[str, Any], spec: Spec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Dials by name, values that are text read by the type of the dial.

    Raises:
      ValueError: the transition has no such dial (the nearest one is offered), or it cannot be turned there.
    """
    config, known, out = _plain(config), dials_of(config), {}
    for name, value in given.items():
        if name not in known:
            kind = config['transition']['kind']
            offer = _nearest(name, list(known)) if known else 'It has none.'
            raise ValueError(f"'{name}' is no dial of transition '{kind}'; {offer}")
        takes = type(known[name])
        try:
            out[name] = takes(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError(
                f"the dial '{name}' was given {value!r}; it takes a value of type {takes.__name__}, such as {known[name]!r}."
            ) from None
    build_model({**config, 'transition': {**config['transition'], **out}}, spec)  # a dial is a field, checked as one
    return out


def init_variables(model: WorldModel, seed: int) -> PyTree:
    """Fresh variables {'params': ..., 'constants': ...} of a model, float32."""
    return initializers.draw(_initial(model), seed, rng.stream(seed, 'params'))


def abstract_variables(model: WorldModel) -> PyTree:
    """The shapes of `init_variables`."""
    return unbox(initializers.shapes(_initial(model)))


def _initial(model: WorldModel) -> Callable[[jax.Array], PyTree]:
    def init(key: jax.Array) -> PyTree:
        observation = {k: jnp.zeros((1, *m.shape), m.dtype) for k, m in model.spec.observation}
        action_BA = jnp.zeros((1, model.actions.size), jnp.float32)
        variables = model.init({'params': key}, observation, action_BA, rng.stream(0, 'unused')[None])
        return {'params': variables['params'], 'constants': variables.get('constants', {})}

    return init


def _refuse_nonsense(
    config: Mapping, heart: nn.Module, memory: Memory, reads: str, context_to: tuple[str, ...]
) -> None:
    kind = config['heart']['kind']
    transition, draws = config['transition']['kind'], getattr(_class('transition', config), 'draws', 'classes')
    if draws == 'classes' and heart.classes is None:
        raise ValueError(
            f"transition '{transition}' draws classes, and heart '{kind}' has latents of numbers: take transition 'flow', or "
            "heart 'tokens'."
        )
    if draws == 'numbers' and heart.classes is not None:
        raise ValueError(
            f"transition '{transition}' draws numbers, and heart '{kind}' has {heart.classes} classes: take heart "
            "'continuous', or transition 'masked'."
        )
    if heart.tokenizer and reads != 'frame':
        raise ValueError(
            f"heart '{kind}' is a tokenizer: the frame alone decides its tokens, so filter.reads must be 'frame', "
            f"not '{reads}'; take heart 'categorical' for a filter that reads more."
        )
    if heart.tokenizer and 'decoder' in context_to:
        raise ValueError(
            f"heart '{kind}' is a tokenizer: its decoder reads the frame's tokens alone, so take 'decoder' out of "
            'context_to.'
        )
    if reads == 'frame' and not context_to and config['memory']['kind'] != 'none':
        raise ValueError(
            "filter.reads='frame' with an empty context_to leaves nothing to train the memory "
            f"'{config['memory']['kind']}': show it to 'transition' or 'outcome', or take memory 'none'."
        )
    if memory.aligned and memory.slots < heart.layout.tokens:
        raise ValueError(
            f"memory '{config['memory']['kind']}' is aligned, a slot for each token, but has {memory.slots} slots for "
            f'{heart.layout.tokens} tokens: give it layout.tokens slots or more, or aligned = False.'
        )


def _check_action(action: nn.Module, spec: Spec) -> None:
    if not action.latent:
        return
    if action.space.size < 2:
        raise ValueError(f'model.action.codes is {action.space.size}: one action says nothing; take 2 or more.')
    getattr(action, 'codecs', None)  # patches that do not tile the frame are refused now
    for name, modality in spec.observation:
        if getattr(action, 'turns', False) and (modality.kind != 'image' or modality.shape[0] != modality.shape[1]):
            raise ValueError(
                f"model.action.turns turns frames by quarters of a circle, and '{name}' is a {modality.kind} of "
                f'{modality.shape}: it takes square pictures; set turns=False.'
            )


def _nearest(name: str, valid: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(str(name), list(valid), 1)
    offer = f"did you mean '{close[0]}'? " if close else ''
    return f'{offer}Valid: {", ".join(valid)}.'


def _class(part: str, config: Mapping) -> type:
    """The class that a config of the whole model chooses for a part."""
    if part == 'outcome':
        return Outcome
    if part == 'filter':
        return Tokenized if _class('heart', config).tokenizer else Filter
    return _kind(part, config[part], f'model.{part}')


def _kind(part: str, fields: Any, where: str) -> type:
    """The class of the kind that a section names."""
    if not isinstance(fields, Mapping):
        raise ValueError(
            f"{where} is {fields!r}; it takes a section of fields with a kind, such as {{'kind': 'none'}}."
        )
    kind = fields.get('kind')
    if imports.is_path(kind):
        return _own(part, kind, f'{where}.kind')
    if not isinstance(kind, str) or kind not in KINDS[part]:
        own = f"A {part} of your own is named '{imports.FORM}'."
        raise ValueError(f"{where}.kind is '{kind}'; {_nearest(kind, list(KINDS[part]))} {own}")
    return KINDS[part][kind]


def _own(part: str, path: str, field: str) -> type:
    """The class at an import path, if it is what the part's contract asks for. `field` names the path in a config."""
    base = BASES[part]
    cls = imports.load(path, field)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        given = f'derived from {cls.__base__.__name__}' if isinstance(cls, type) else f'a {type(cls).__name__}'
        raise ValueError(
            f"{field} is '{path}', which is {given}; a {part} is a class derived from "
            f'{base.__module__.replace("flax.linen.module", "flax.linen")}.{base.__name__}.'
        )
    declared = _declared(cls)
    asked = CONTRACTS[part]
    asked += ('log_prob',) * (getattr(cls, 'likelihood', None) is True)
    if part == 'action' and getattr(cls, 'latent', None) is True:
        asked += ('infer', 'losses', 'prior')
    if part == 'heart':  # a tokenizer has a loss of its own, any other is trained through the world model
        asked += ('embed',) * (getattr(cls, 'classes', 0) is not None)
        asked += ('autoencode',) if getattr(cls, 'tokenizer', None) is True else ('losses',)
    inherits = lambda n: getattr(cls, n, ...) is getattr(base, n, ...)  # None is an answer: classes of numbers are None
    lacking = [n for n in asked if n not in declared and inherits(n)]
    if lacking:
        raise ValueError(
            f"{field} is '{path}', which lacks {', '.join(lacking)}; a {part} has {', '.join(asked)} "
            f'(worldmodels/{part}/__init__.py says what each does).'
        )
    for name, declaration in declared.items():
        if name not in _wired(part) and declaration.default is dataclasses.MISSING:
            raise ValueError(
                f"{field} is '{path}', whose field '{name}' has no default to check a config against: give it one, or "
                f'take one of the names that are filled in: {", ".join(_wired(part))}.'
            )
    return cls


def _part(part: str, config: Mapping, wiring: Mapping) -> nn.Module:
    return _fields(part, _class(part, config), config[part], wiring)


def _several(part: str, config: Any, wiring: Mapping, where: str) -> FrozenDict:
    """Parts within a part, by name: each a section as `model.memory` itself is, whose order says nothing."""
    if not isinstance(config, Mapping) or not config:
        raise ValueError(
            f'{where} is {config!r}; it takes sections by name, at least one, each a {part} with its kind, such as '
            f"{{'near': {{'kind': '{list(KINDS[part])[-1]}'}}}}."
        )
    for name in config:
        if not str(name).isidentifier():
            raise ValueError(f'{where} names a {part} {name!r}; a name is letters, digits and underscores.')
    return FrozenDict(
        {
            name: _fields(part, _kind(part, config[name], f'{where}.{name}'), config[name], wiring, f'{where}.{name}')
            for name in sorted(config)
        }
    )


def _plain(config: Any) -> Any:
    """A config whose sections, at any depth, are dicts."""
    config = config.to_dict() if hasattr(config, 'to_dict') else config
    return {k: _plain(v) for k, v in config.items()} if isinstance(config, Mapping) else config


def _wired(part: str) -> tuple[str, ...]:
    return ('spec', 'dtype') if part in ('heart', 'action') else WIRED


def _declared(cls: type) -> dict[str, dataclasses.Field]:
    return {f.name: f for f in dataclasses.fields(cls) if f.init and f.name not in ('parent', 'name')}


def _fields(part: str, cls: type, config: Mapping, wiring: Mapping, where: str = '') -> nn.Module:
    """Instantiate `cls` with the config's fields and what it declares of the wiring; nothing else passes."""
    where = where or f'model.{part}'
    config = {k: v for k, v in config.items() if k != 'kind' or part not in KINDS}
    declared = _declared(cls)
    settable = [name for name in declared if name not in wiring]
    for name, value in config.items():
        if name not in settable:
            raise ValueError(f"{where}.{name} is no field of {part} '{cls.__name__}'; {_nearest(name, settable)}")
        if INNER in declared[name].metadata:
            continue
        default = declared[name].default
        good = (int, float) if isinstance(default, float) else type(default)
        if isinstance(default, bool) != isinstance(value, bool) or not isinstance(
            value, (tuple, list) if isinstance(default, tuple) else good
        ):
            raise ValueError(
                f'{where}.{name} is {value!r}, a {type(value).__name__}; it takes a {type(default).__name__} '
                f'(default {default!r}).'
            )
        valid = getattr(cls, 'CHOICES', {}).get(name)
        if valid and value not in valid:
            raise ValueError(f"{where}.{name} is '{value}'; {_nearest(value, valid)}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    for name in (n for n in settable if INNER in declared[n].metadata):
        values[name] = _several(declared[name].metadata[INNER], config.get(name, {}), wiring, f'{where}.{name}')
    if cls.__module__.startswith('worldmodels.'):  # the fields of a part of one's own mean what it says
        defaults = {n: declared[n].default for n in settable if declared[n].default is not dataclasses.MISSING}
        given = {**defaults, **values}
        wrong = ranges.fault(given, defaults)
        if wrong:
            name, expected = wrong
            raise ValueError(f'{where}.{name} is {given[name]!r}; it takes {expected}.')
    return cls(**values, **{k: v for k, v in wiring.items() if k in declared})
