"""How foreign episodes become ours: a small table of names. `conversion.apply` follows it.

A mapping as JSON (what is left out is inferred, see `infer`):

    {"observation": {"image": {"field": "pixels", "kind": "image", "resize": [64, 64], "channels": "last"}},
     "action": {"field": "action", "kind": "discrete", "size": 6, "one_hot": false},
     "reward": "reward", "discount": "", "terminal": "is_terminal", "first": "is_first", "costs": {"lava": "info/lava"},
     "action_at": "departure", "outcomes_at": "arrival", "terminal_at": "arrival",
     "splits": {}, "validation": 0.1, "cut": 0, "source": {}}

A field that has a row for every frame stands either at the departure, with the frame where the action was taken (RLDS's way of
action and reward), or at the arrival, with the frame that it led to (DreamerV3's way of reward). A field with one row less
stands between frames, and its place is not asked for.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import Any

from worldmodels.types import ActionSpace, Modality, Spec

KINDS = ('image', 'grid', 'vector')
PLACES = ('departure', 'arrival')
TAKEN = ('reward', 'discount', 'action', 'observation')
"""Names that no cost may have."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One modality.

    field     of the source; several are joined into one vector
    kind      'image', 'grid' or 'vector' (see `types.Modality`)
    shape     of one frame as it will be
    classes   of a grid: how many values each channel has
    resize    of an image: (height, width), None to leave it
    channels  'last', or 'first' where the source has (C, H, W)
    scale     what an image's numbers are multiplied with to lie in 0..255
    """

    field: tuple[str, ...]
    kind: str
    shape: tuple[int, ...]
    classes: tuple[int, ...] = ()
    resize: tuple[int, ...] | None = None
    channels: str = 'last'
    scale: float = 1.0

    @property
    def modality(self) -> Modality:
        return Modality(self.kind, self.shape, self.classes)


@dataclasses.dataclass(frozen=True)
class Action:
    """What was done. field empty: nothing is known of it, and there is one choice.

    one_hot   rows are vectors with a single one, of a discrete action
    start     the number of the first choice
    low, high what a continuous action lies between
    """

    field: tuple[str, ...] = ()
    kind: str = 'discrete'
    size: int = 1
    names: tuple[str, ...] = ()
    low: float = -1.0
    high: float = 1.0
    one_hot: bool = False
    start: int = 0

    @property
    def space(self) -> ActionSpace:
        return ActionSpace(self.kind, self.size, self.names, self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Mapping:
    """All of it. See the module's docstring.

    splits      ours -> theirs; empty: all of theirs together, of which the share `validation` is held out
    cut         frames of an episode at most, 0 for any number
    source      options of the kind of source
    """

    observation: tuple[tuple[str, Part], ...]
    action: Action = Action()
    reward: str = ''
    discount: str = ''
    terminal: str = ''
    first: str = ''
    costs: tuple[tuple[str, str], ...] = ()
    action_at: str = 'departure'
    outcomes_at: str = 'departure'
    terminal_at: str = 'arrival'
    splits: tuple[tuple[str, str], ...] = ()
    validation: float = 0.1
    cut: int = 0
    source: tuple[tuple[str, Any], ...] = ()

    @property
    def spec(self) -> Spec:
        return Spec(
            tuple((name, part.modality) for name, part in self.observation),
            self.action.space,
            ('reward', 'discount', *(name for name, _ in self.costs)),
        )

    def to_json(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **plain,
            'observation': {name: _written(dataclasses.asdict(part)) for name, part in self.observation},
            'action': _written(dataclasses.asdict(self.action)),
            **{name: dict(plain[name]) for name in ('costs', 'splits')},
            'source': _written(dict(self.source)),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Mapping:
        """Raises ValueError, naming the field, for what a mapping cannot say."""
        check(data)
        tables = {name: tuple(data.get(name, {}).items()) for name in ('costs', 'splits')}
        mapping = cls(
            **{
                **data,
                **tables,
                'source': tuple(_read(data.get('source', {})).items()),
                'observation': tuple((name, Part(**_read(part))) for name, part in data.get('observation', {}).items()),
                'action': Action(**_read(data.get('action', {}))),
            }
        )
        if not mapping.observation:
            raise ValueError('mapping.observation is empty, expected at least one modality and its field.')
        for name, part in mapping.observation:
            wanted = {'vector': 1}.get(part.kind, 3)
            if len(part.shape) != wanted:
                raise ValueError(
                    f'mapping.observation.{name}.shape is {list(part.shape)}, expected {wanted} numbers for the kind '
                    f'{part.kind}.'
                )
            if part.kind == 'grid' and len(part.classes) != part.shape[2]:
                raise ValueError(
                    f'mapping.observation.{name}.classes is {list(part.classes)}, expected a number for each of '
                    f'{part.shape[2]} channels.'
                )
        if mapping.action.kind == 'continuous' and not mapping.action.field:
            raise ValueError('mapping.action.kind is "continuous" and field is empty: name the field of the actions.')
        return mapping


def check(data: dict[str, Any]) -> None:
    """Raises ValueError for names, types and values that a mapping does not have; fields may be missing."""
    _check(data, Mapping, 'mapping')
    for name, part in data.get('observation', {}).items():
        where = f'mapping.observation.{name}'
        if not isinstance(name, str) or not name.replace('_', '').isalnum():
            raise ValueError(f'{where}: a modality is named with letters, digits and "_", found {name!r}.')
        _check(part, Part, where)
        _one_of(part, 'kind', KINDS, where)
        _one_of(part, 'channels', ('last', 'first'), where)
        for key in ('shape', 'classes', 'resize'):
            numbers = part.get(key) or ()
            if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in numbers):
                raise ValueError(f'{where}.{key} is {part[key]!r}, expected positive whole numbers.')
        if part.get('resize') and (len(part['resize']) != 2 or part.get('kind', 'image') != 'image'):
            raise ValueError(f'{where}.resize is {part["resize"]!r}, expected height and width of an image.')
        if not part.get('scale', 1.0) > 0:
            raise ValueError(f'{where}.scale is {part["scale"]!r}, expected a positive number.')
        if any(classes > 256 for classes in part.get('classes') or ()):
            raise ValueError(f'{where}.classes is {part["classes"]!r}, expected 256 at most.')
    action = data.get('action', {})
    _check(action, Action, 'mapping.action')
    _one_of(action, 'kind', ('discrete', 'continuous'), 'mapping.action')
    if action.get('size', 1) < 1:
        raise ValueError(f'mapping.action.size is {action["size"]!r}, expected 1 or more.')
    if action.get('names') and 'size' in action and len(action['names']) != action['size']:
        raise ValueError(f'mapping.action.names has {len(action["names"])} names, expected {action["size"]}, the size.')
    if 'low' in action and 'high' in action and not action['low'] < action['high']:
        raise ValueError(f'mapping.action.low is {action["low"]!r}, expected less than high, {action["high"]!r}.')
    for key in ('action_at', 'outcomes_at', 'terminal_at'):
        _one_of(data, key, PLACES, 'mapping')
    for name in data.get('splits', {}):
        if name not in ('train', 'validation'):
            raise ValueError(
                f'mapping.splits has {name!r}, expected "train" and "validation", each with a split of theirs.'
            )
    if data.get('splits') and 'train' not in data['splits']:
        raise ValueError('mapping.splits has no "train", expected the name of the source\'s split to train on.')
    if not 0 <= data.get('validation', 0) < 1:
        raise ValueError(f'mapping.validation is {data["validation"]!r}, expected a share of at least 0 and below 1.')
    if data.get('cut', 0) < 0 or data.get('cut', 0) == 1:
        raise ValueError(f'mapping.cut is {data["cut"]!r}, expected 0 for whole episodes, or 2 frames or more.')
    for name in data.get('costs', {}):
        if name in TAKEN or not name.replace('_', '').isalnum():
            raise ValueError(f'mapping.costs has {name!r}, expected another name, of letters, digits and "_".')


def _check(given: Any, cls: type, where: str) -> None:
    if not isinstance(given, dict):
        raise ValueError(f'{where} is {given!r}, expected a table of fields.')
    known = {field.name: str(field.type) for field in dataclasses.fields(cls)}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f'did you mean "{near[0]}"?' if near else f'it has {", ".join(known)}.'
            raise ValueError(f'{where} has no field "{name}": {hint}')
        if name != 'source' and not _is_a(known[name], value):
            raise ValueError(f'{where}.{name} is {value!r}, expected {_called(known[name])}.')


def _is_a(wanted: str, value: Any) -> bool:
    if wanted.endswith('| None'):
        return value is None or _is_a(wanted.removesuffix(' | None'), value)
    if wanted.startswith('tuple[tuple[str'):
        inner = 'str' if wanted.startswith('tuple[tuple[str, str]') else ''
        return isinstance(value, dict) and all(not inner or isinstance(v, str) for v in value.values())
    if wanted.startswith('tuple['):
        inner = wanted.removeprefix('tuple[').removesuffix(', ...]')
        return (inner == 'str' and isinstance(value, str)) or (
            isinstance(value, (list, tuple)) and all(_is_a(inner, v) for v in value)
        )
    if isinstance(value, bool) or wanted == 'bool':
        return isinstance(value, bool) and wanted == 'bool'
    if wanted == 'float':
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, {'str': str, 'int': int}.get(wanted, dict))


def _called(wanted: str) -> str:
    names = {'str': 'a name', 'int': 'a whole number', 'float': 'a number', 'bool': 'true or false'}
    if wanted.startswith('tuple[tuple[str') or (wanted not in names and not wanted.startswith('tuple[')):
        return 'a table'
    return names.get(wanted, f'a list of {"names" if "str" in wanted else "whole numbers"}')


def _one_of(given: dict[str, Any], key: str, values: tuple[str, ...], where: str) -> None:
    if key in given and given[key] not in values:
        near = difflib.get_close_matches(str(given[key]), values, 1)
        hint = f'did you mean "{near[0]}"?' if near else f'expected one of {", ".join(values)}.'
        raise ValueError(f'{where}.{key} is {given[key]!r}: {hint}')


def _read(given: dict[str, Any]) -> dict[str, Any]:
    """Lists as tuples, and a single name as a tuple of one where several may stand."""
    tupled = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    for key in ('field', 'names'):
        if isinstance(tupled.get(key), str):
            tupled[key] = (tupled[key],) if tupled[key] else ()
    return tupled


def _written(given: dict[str, Any]) -> dict[str, Any]:
    """The way back: tuples as lists, one field as its name."""
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    if len(listed.get('field', ())) == 1:
        listed['field'] = listed['field'][0]
    return listed
