"""Any Gymnasium environment (Towers et al., 2024, arXiv 2407.17032), one to a lane: 'gymnasium/CartPole-v1', or
'gymnasium/minigrid:MiniGrid-Empty-8x8-v0', which imports `minigrid` first (Gymnasium's own way to name it).

Lanes are played one after the other, or each in a process of its own (option processes).
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from worldmodels.worlds.options import Option

PACKAGES = {'gymnasium': "pip install -e '.[worlds]'"}
OPTIONS = {
    'max_steps': Option(
        None, minimum=1, kind=int, help='actions after which time is out; None: as the environment has it'
    ),
    'render': Option(False, help='the picture that it renders is the observation'),
    'size': Option(
        None, minimum=8, kind=int, help='pictures are resized to it by area; None: as they are, rendered 64'
    ),
    'modalities': Option('', help='parts of the observation to keep, as in image,direction; all if none is named'),
    'costs': Option('', help='entries of info that are costs, as in cost,damage'),
    'processes': Option(False, help='every lane in a process of its own'),
}


def names() -> list[str]:
    """Every environment that is registered and whose package is here."""
    import gymnasium

    return sorted(name for name, spec in gymnasium.registry.items() if _is_here(spec))


def has(name: str) -> bool:
    """Whether 'module:id' names an environment that `module` registers."""
    return ':' in name and _spec(name) is not None


def options(name: str) -> dict[str, Option]:
    """OPTIONS, and what the environment's own constructor takes."""
    import gymnasium

    spec = _spec(name)
    creator = (
        spec.entry_point
        if callable(spec.entry_point)
        else gymnasium.envs.registration.load_env_creator(spec.entry_point)
    )
    return declared(creator, spec.kwargs) | OPTIONS


def load_batch(name: str, batch: int, **chosen) -> Any:
    """`batch` copies of an environment."""
    import gymnasium

    from worldmodels.worlds.lanes import Lanes

    ours = {option: chosen.pop(option) for option in OPTIONS}
    limit = {} if ours['max_steps'] is None else {'max_episode_steps': ours['max_steps']}
    if ours['max_steps'] is None:
        ours['max_steps'] = _spec(name).max_episode_steps
    build = functools.partial(gymnasium.make, name, disable_env_checker=True, **limit, **chosen)
    if ours['render']:
        build = functools.partial(build, render_mode='rgb_array')
    return Lanes(f'gymnasium/{name}', build, batch, **ours)


def declared(creator: Callable, given: dict[str, Any] | None = None) -> dict[str, Option]:
    """The options a constructor takes: arguments by name whose default is a number, a switch, a text or None (a text)."""
    found = {}
    for parameter in inspect.signature(creator).parameters.values():
        default = (given or {}).get(parameter.name, parameter.default)
        if parameter.name == 'render_mode' or parameter.kind not in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            continue
        if isinstance(default, (bool, int, float, str)):
            found[parameter.name] = Option(default)
        elif default is None:
            kinds = {'int': int, 'float': float, 'bool': bool}
            written = str(getattr(parameter.annotation, '__name__', parameter.annotation)).replace(' ', '')
            found[parameter.name] = Option(None, kind=kinds.get(written.replace('|None', ''), str))
    return found


def _spec(name: str) -> Any:
    import gymnasium

    module, _, known = name.rpartition(':')
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(known)
    except (gymnasium.error.Error, ImportError):
        return None


def _is_here(spec: Any) -> bool:
    entry = (
        spec.entry_point if isinstance(spec.entry_point, str) else ''
    )  # a function stands for what is no longer there
    others = {'gymnasium.envs.mujoco': 'mujoco', 'gymnasium.envs.box2d': 'Box2D', 'shimmy': 'shimmy'}
    lacking = [package for place, package in others.items() if entry.startswith(place) and find_spec(package) is None]
    return bool(entry) and not lacking and not entry.startswith('ale_py')  # those are of the family atari
