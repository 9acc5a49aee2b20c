"""gymnax: MinAtar, bsuite, classic control and some more in JAX (Lange, 2022, github.com/RobertTLange/gymnax), 1.0.1.

What 1.0 does, which is not what 0.0.9 did: `step_env(key, state, action, params)` takes one step, resets nothing, and
its `done` is natural termination alone; whether time is out is `is_truncated(state, params)`. (`step` gives six values
and resets by itself; it is not used here.) MinAtar's own time limit is 1,000 steps (Freeway 2,500), its actions are
the few each game reacts to (`use_minimal_action_set`), and gymnax has no sticky actions.

Pictures of zeros and ones (MinAtar, Catch, DeepSea, Pong, FourRooms with `use_visual_obs`) are a 'grid' of classes 2
each; one integer (FrozenLake) is a grid of one cell; all else is a 'vector'. MemoryChain shows its context twice, in
the opening and in the frame after it, as bsuite's does; with our option `shortest` every episode is as long as it draws,
where gymnax's are all alike. MNISTBandit is left out: it downloads.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from worldmodels.types import ActionSpace, Modality, Spec
from worldmodels.worlds import carry
from worldmodels.worlds.options import Option
from worldmodels.worlds.recall import draw_delay

CHAIN = 'MemoryChain-bsuite'
PACKAGES = {'gymnax': "pip install -e '.[worlds]'"}
DOWNLOADS = ('MNISTBandit-bsuite',)
BINARY = ('Catch-bsuite', 'DeepSea-bsuite', 'Pong-misc')  # and all of MinAtar
BUTTONS = ('noop', 'left', 'up', 'right', 'down', 'fire')  # of MinAtar
ACTIONS = {
    'CartPole-v1': ('left', 'right'),
    'Acrobot-v1': ('negative', 'none', 'positive'),
    'MountainCar-v0': ('left', 'none', 'right'),
    'Catch-bsuite': ('left', 'stay', 'right'),
    CHAIN: ('zero', 'one'),
    'UmbrellaChain-bsuite': ('leave', 'take'),
    'FourRooms-misc': ('up', 'right', 'down', 'left'),
    'MetaMaze-misc': ('up', 'right', 'down', 'left'),
    'Pong-misc': ('stay', 'up', 'down'),
    'FrozenLake-misc': ('left', 'down', 'right', 'up'),
}


def names() -> list[str]:
    """The environments gymnax has registered, by its own names, as 'Breakout-MinAtar'."""
    from gymnax import registration

    return sorted(set(registration.registered_envs) - set(DOWNLOADS))


def options(name: str) -> dict[str, Option]:
    """`max_steps`, and whatever number or switch gymnax's constructor and parameters of this environment have."""
    import gymnax

    env, params = gymnax.make(name)
    known = {'max_steps': Option(None, minimum=1, kind=int, help='actions after which time is out; None: as in gymnax')}
    for given in (_constructor(type(env)), _parameters(params)):
        known.update({key: Option(value, help="gymnax's own") for key, value in given.items()})
    if name == CHAIN:
        told = 'episodes draw their length log-uniformly from here to memory_length; 0: all are as long'
        known['shortest'] = Option(0, minimum=0, help=told)
    return known


def load(name: str, max_steps: int | None, shortest: int = 0, **chosen) -> GymnaxWorld:
    """One gymnax environment. Raises ValueError, naming them, for options that gymnax cannot build it with."""
    import gymnax

    if shortest > chosen.get('memory_length', shortest):
        raise ValueError(
            f'shortest={shortest}, memory_length={chosen["memory_length"]}: give a longest length of at least the shortest.'
        )
    env, params = gymnax.make(name)
    build = {key: chosen[key] for key in _constructor(type(env))}
    try:
        env, params = gymnax.make(name, **build)
        params = params.replace(**{key: value for key, value in chosen.items() if key not in build})
        if max_steps is None and name == CHAIN:
            # Its limit of 1,000 would come before the question of a longer chain.
            max_steps = max(params.max_steps_in_episode, params.memory_length + 1)
        if max_steps is not None:
            params = params.replace(max_steps_in_episode=max_steps)
        return Chains(name, env, params, shortest) if shortest else GymnaxWorld(name, env, params)
    except Exception as error:  # its constructors assert, or fail in some array
        settings = ', '.join(f'{key}={value}' for key, value in chosen.items())
        raise ValueError(f'gymnax cannot make {name} with {settings}: {error or type(error).__name__}.') from error


class GymnaxWorld:
    """One environment, no batch axis: `worlds.lift` adds it. Its state is gymnax's."""

    def __init__(self, name: str, env, params):
        from gymnax.environments import spaces

        self.env, self.params = env, params
        self.max_steps = int(params.max_steps_in_episode)
        seen = env.observation_space(params)
        shape = tuple(seen.shape)
        if isinstance(seen, spaces.Discrete):
            self.form = ('grid', Modality('grid', (1, 1, 1), (int(seen.n),)))
        elif 'MinAtar' in name or name in BINARY or getattr(env, 'use_visual_obs', False):
            shape = (*shape, 1) if len(shape) == 2 else shape
            self.form = ('grid', Modality('grid', shape, (2,) * shape[-1]))
        else:
            self.form = ('vector', Modality('vector', (int(np.prod(shape)),)))
        space = env.action_space(params)
        self.action_shape = tuple(space.shape)
        if isinstance(space, spaces.Discrete):
            named = tuple(BUTTONS[i] for i in env.action_set) if 'MinAtar' in name else ACTIONS.get(name, ())
            action = ActionSpace('discrete', int(space.n), named)
        else:
            low, high = float(np.min(space.low)), float(np.max(space.high))
            action = ActionSpace('continuous', int(np.prod(self.action_shape)), (), low, high)
        self.spec = Spec((self.form,), action)
        key = jax.random.key(0)
        _, start = jax.eval_shape(self._reset, key)
        _, after, *_ = jax.eval_shape(self._step, start, jnp.asarray(action.null()), key)
        self.dtypes = carry.dtypes(start, after)

    def reset(self, key: jax.Array):
        seen, state = self._reset(key)
        return carry.cast(state, self.dtypes), self._observation(seen)

    def step(self, state, action: jax.Array, key: jax.Array):
        seen, state, reward, terminated = self._step(state, action, key)
        is_terminal = jnp.asarray(terminated, bool)
        is_last = is_terminal | self._is_late(state)
        outcomes = {'reward': jnp.asarray(reward, jnp.float32), 'discount': 1.0 - is_terminal.astype(jnp.float32)}
        return carry.cast(state, self.dtypes), self._observation(seen), outcomes, is_terminal, is_last

    def truth(self, state) -> dict[str, jax.Array]:
        """gymnax's state, field by field, and codes int32 (n,): the same in the bits of one array."""
        fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
        flat = [jnp.ravel(x) for x in jax.tree.leaves(fields)]
        bits = [jax.lax.bitcast_convert_type(x, jnp.int32) if x.dtype == jnp.float32 else x for x in flat]
        return {**fields, 'codes': jnp.concatenate([x.astype(jnp.int32) for x in bits])}

    def _reset(self, key: jax.Array, **changed):
        return self.env.reset_env(key, self._arrays(changed))

    def _step(self, state, action: jax.Array, key: jax.Array, **changed):
        action = jnp.reshape(action, self.action_shape)
        return self.env.step_env(key, state, action, self._arrays(changed))[:4]

    def _is_late(self, state) -> jax.Array:
        return self.env.is_truncated(state, self.params)

    def _arrays(self, changed: dict):
        # gymnax gives its parameters to `lax.select`, which takes arrays only.
        return jax.tree.map(jnp.asarray, self.params.replace(**changed))

    def _observation(self, seen: jax.Array) -> dict[str, jax.Array]:
        name, modality = self.form
        return {name: jnp.reshape(seen, modality.shape).astype(modality.dtype)}


@flax.struct.dataclass
class Drawn:
    """gymnax's state, and the length of this episode."""

    own: Any
    memory_length: jax.Array


class Chains(GymnaxWorld):
    """MemoryChain of many lengths, log-uniform from `shortest` to its memory_length, each with its clock."""

    def __init__(self, name: str, env, params, shortest: int):
        self.shortest = shortest
        super().__init__(name, env, params)

    def _reset(self, key: jax.Array):
        length_key, own_key = jax.random.split(key)
        length = draw_delay(length_key, self.shortest, self.params.memory_length)
        seen, own = super()._reset(own_key, memory_length=length)
        return seen, Drawn(own, length)

    def _step(self, state: Drawn, action: jax.Array, key: jax.Array):
        seen, own, reward, terminated = super()._step(state.own, action, key, memory_length=state.memory_length)
        return seen, state.replace(own=own), reward, terminated

    def _is_late(self, state: Drawn) -> jax.Array:
        return super()._is_late(state.own)

    def truth(self, state: Drawn) -> dict[str, jax.Array]:
        """gymnax's state, memory_length, and codes of both."""
        found = super().truth(state.own)
        codes = jnp.concatenate([found['codes'], state.memory_length[None]])
        return {**found, 'memory_length': state.memory_length, 'codes': codes}


def _constructor(env: type) -> dict:
    return {key: p.default for key, p in inspect.signature(env).parameters.items() if _is_simple(p.default)}


def _parameters(params) -> dict:
    values = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    return {key: v for key, v in values.items() if key != 'max_steps_in_episode' and _is_simple(v)}


def _is_simple(value) -> bool:
    return isinstance(value, bool | int | float | str)
