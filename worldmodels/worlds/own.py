"""A world of one's own, named by its import path: 'my_package.my_module:MyWorld' (see `imports`).

It is a class, or a function, whose arguments all have defaults: these are its options. What it gives is either

- a world for one, to be lifted: `spec`, `reset(key)`, `step(state, action, key)` as in `worlds`, without the batch axis.
  `truth(state)` is optional, and so is `max_steps`; or
- a `gymnasium.Env`, which has the options of the family gymnasium too.

All of it is checked here, by shapes alone: nothing is played.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jax

from worldmodels import imports, worlds
from worldmodels.types import Spec
from worldmodels.worlds import gymnasium as family
from worldmodels.worlds.options import Option


def options(path: str) -> dict[str, Option]:
    """What can be set about it. Raises ValueError where there is no such world."""
    creator = _creator(path)
    found = family.declared(creator)
    return found | (family.OPTIONS if _is_gymnasium(path, creator) else {})


def make(path: str, batch: int, **chosen) -> Any:
    """`batch` copies of it. Raises ValueError where it is not what a world is, in one sentence."""
    creator = _creator(path)
    if _is_gymnasium(path, creator):
        from worldmodels.worlds.lanes import Lanes

        ours = {name: chosen.pop(name) for name in family.OPTIONS}
        if ours['max_steps'] is not None and 'max_steps' in family.declared(creator):
            chosen['max_steps'] = ours['max_steps']
        build = functools.partial(creator, **chosen)
        if ours['render']:
            build = functools.partial(build, render_mode='rgb_array')
        return Lanes(path, build, batch, **ours)
    single = _made(path, creator, chosen)
    check(path, single)
    return worlds.lift(single if hasattr(single, 'truth') else _Untold(single), batch)


def check(name: str, world: Any) -> None:
    """Raises ValueError, saying what to change, where a world for one does not keep to its spec.

    Looks at shapes and dtypes by `jax.eval_shape`.
    """
    lacking = [part for part in ('spec', 'reset', 'step') if not hasattr(world, part)]
    if lacking:
        raise ValueError(
            f'{name} has no {" and no ".join(lacking)}: a world has spec, reset(key), step(state, action, key).'
        )
    spec = world.spec
    if not isinstance(spec, Spec):
        raise ValueError(f'{name}.spec is a {type(spec).__name__}: give a worldmodels.types.Spec.')
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.ShapeDtypeStruct(spec.action.shape, spec.action.dtype)
    state, observation = _traced(name, 'reset(key)', 2, world.reset, key)
    _check_observation(name, 'reset', observation, spec)
    after, observation, outcomes, *ends = _traced(name, 'step(state, action, key)', 5, world.step, state, action, key)
    _check_observation(name, 'step', observation, spec)
    if jax.tree.structure(after) != jax.tree.structure(state) or _forms(after) != _forms(state):
        raise ValueError(
            f'{name}.step gives a state of another form ({_forms(after)}) than reset ({_forms(state)}): '
            'every array keeps its shape and dtype.'
        )
    if set(outcomes) != set(spec.outcomes) or {'reward', 'discount'} - set(outcomes):
        raise ValueError(
            f'{name}.step gives the outcomes {", ".join(outcomes)}, its spec says {", ".join(spec.outcomes)}: they are the '
            'same, and reward and discount are among them.'
        )
    wanted = {**dict.fromkeys(outcomes, ((), 'float32')), 'is_terminal': ((), 'bool'), 'is_last': ((), 'bool')}
    for part, x in {**outcomes, 'is_terminal': ends[0], 'is_last': ends[1]}.items():
        if (x.shape, x.dtype.name) != wanted[part]:
            raise ValueError(f'{name}.step gives {part} as {x.dtype.name} {x.shape}: give {wanted[part][1]} ().')


class _Untold:
    """A world for one that does not tell what is really there."""

    def __init__(self, world: Any):
        self.spec, self.reset, self.step = world.spec, world.reset, world.step
        self.max_steps = getattr(world, 'max_steps', None)

    def truth(self, state: Any) -> dict:
        return {}


def _creator(path: str) -> Any:
    creator = imports.load(path, 'world')
    if not callable(creator):
        raise ValueError(
            f"world is '{path}', a {type(creator).__name__}: name a class or a function that gives the world."
        )
    for parameter in inspect.signature(creator).parameters.values():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if parameter.kind is parameter.POSITIONAL_ONLY or (named and parameter.default is parameter.empty):
            raise ValueError(
                f"world is '{path}', whose argument {parameter.name} has no default: give it one, as an option has."
            )
    return creator


def _is_gymnasium(path: str, creator: Any) -> bool:
    try:
        import gymnasium
    except ImportError:
        return False
    if isinstance(creator, type):
        return issubclass(creator, gymnasium.Env)
    return isinstance(_made(path, creator, {}), gymnasium.Env)


def _made(path: str, creator: Any, chosen: dict[str, Any]) -> Any:
    try:
        return creator(**chosen)
    except Exception as error:
        said = ' '.join(str(error).split()) or 'no message'
        raise ValueError(f"world is '{path}', and making it failed with {type(error).__name__}: {said}") from error


def _traced(name: str, called: str, count: int, method: Any, *args) -> Any:
    try:
        given = jax.eval_shape(method, *args)
    except Exception as error:
        said = ' '.join(str(error).split())[:300]
        raise ValueError(f'{name}.{called} failed under jax.jit with {type(error).__name__}: {said}') from error
    if not isinstance(given, tuple) or len(given) != count:
        what = {2: 'state, observation', 5: 'state, observation, outcomes, is_terminal, is_last'}[count]
        raise ValueError(f'{name}.{called} gives {len(given) if isinstance(given, tuple) else 1} values: give {what}.')
    return given


def _check_observation(name: str, method: str, observation: Any, spec: Spec) -> None:
    given = (
        {k: (x.shape, x.dtype.name) for k, x in observation.items()} if isinstance(observation, dict) else observation
    )
    wanted = {k: (m.shape, m.dtype) for k, m in spec.observation}
    if given != wanted:
        raise ValueError(f'{name}.{method} gives the observation {given}, its spec says {wanted}.')


def _forms(tree: Any) -> list[str]:
    return [f'{x.dtype} {x.shape}' for x in jax.tree.leaves(tree)]
