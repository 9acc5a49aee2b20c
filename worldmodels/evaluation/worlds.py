"""What there is to play, what each world shows and takes, and how fast it runs here."""

from __future__ import annotations

import difflib
import time
from typing import Any

import jax

from worldmodels import interaction, worlds
from worldmodels.control.random import Random
from worldmodels.types import ActionSpace, Spec
from worldmodels.worlds.host import Host

SECONDS = 0.5  # played at least, once everything is compiled
TICKS = 64


def find(words: list[str]) -> list[str]:
    """The worlds whose names hold any of the words, whatever the case; all that can be played here for no words.

    Raises ValueError for a word that no name holds, with the nearest name, or with what the family named is lacking.
    """
    families = [word.partition('/')[0] for word in words]
    # A family that nobody asks for need not be imported.
    known = [name for f in families for name in worlds.names(f)] if _all_known(families) else worlds.names()
    known = list(dict.fromkeys(known))
    for word in words:
        if not any(word.lower() in name.lower() for name in known):
            lacking = next((s for f, s in worlds.missing().items() if word.lower().startswith(f)), None)
            near = difflib.get_close_matches(word, [*known, *worlds.FAMILIES], 1, 0.4)
            hint = lacking or (f'did you mean {near[0]!r}?' if near else f'families are {", ".join(worlds.FAMILIES)}.')
            raise ValueError(f'No world is called anything with {word!r}: {hint}')
    return [name for name in known if not words or any(word.lower() in name.lower() for word in words)]


def _all_known(families: list[str]) -> bool:
    return bool(families) and all(f in worlds.FAMILIES and f not in worlds.missing() for f in families)


def describe(name: str) -> dict[str, Any]:
    """What a world with its usual options is: spec, max_steps, options. {'error': sentence} where it cannot be made."""
    try:
        world = worlds.make(name, 1)
    except ValueError as error:
        return {'name': name, 'error': str(error)}
    if isinstance(world, Host):
        world.close()
    known = {key: option.default for key, option in worlds.options(name).items()}
    return {'name': name, **world.spec.to_json(), 'max_steps': world.max_steps, 'options': known}


def measure(name: str, lanes: int | None = None) -> dict[str, Any]:
    """How fast a world with its usual options is played at random, `lanes` side by side (64, outside JAX 8).

    steps_per_second    frames of all lanes together, the policy and what is kept of every frame included
    compile_seconds     of the loop and of the pool of openings together; 0 outside JAX
    opening_ms          an opening takes, once compiled; None outside JAX
    """
    try:
        world = worlds.make(name, lanes or 64)
        if isinstance(world, Host):
            if lanes is None:
                world.close()
                world = worlds.make(name, 8)
            try:
                return {'lanes': world.batch, **_played_outside(world)}
            finally:
                world.close()
    except ValueError as error:
        return {'error': str(error)}
    return {'lanes': world.batch, **_played(world)}


def _played(world: Any) -> dict[str, Any]:
    policy = Random(world.spec.action)
    openings, moving = jax.random.split(jax.random.key(0))
    first_pool, pool = _timed(lambda: interaction.prepare(world, openings, 64))
    again_pool, _ = _timed(lambda: interaction.prepare(world, openings, 64))
    playing = interaction.begin(world, policy, moving, pool)

    def go(playing):
        return interaction.interact(world, policy, None, moving, TICKS, pool, playing)

    first, (playing, _) = _timed(lambda: go(playing))
    rate, again = _rate(world.batch, lambda state: go(state)[0], playing)
    size = jax.tree.leaves(pool)[0].shape[0]
    return {
        'steps_per_second': rate,
        'compile_seconds': max(0.0, first - again) + max(0.0, first_pool - again_pool),
        'opening_ms': 1000 * again_pool / size,
    }


def _played_outside(world: Host) -> dict[str, Any]:
    policy, key = Random(world.spec.action), jax.random.key(0)
    playing, _ = interaction.play(world, policy, None, key, 2)
    rate, _ = _rate(world.batch, lambda state: interaction.play(world, policy, None, key, TICKS, state)[0], playing)
    return {'steps_per_second': rate, 'compile_seconds': 0.0, 'opening_ms': None}


def _rate(batch: int, go, playing) -> tuple[float, float]:
    """Frames per second, and seconds of one call."""
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < SECONDS:
        playing = jax.block_until_ready(go(playing))
        calls += 1
    passed = time.perf_counter() - start
    return batch * TICKS * calls / passed, passed / calls


def _timed(run) -> tuple[float, Any]:
    start = time.perf_counter()
    done = jax.block_until_ready(run())
    return time.perf_counter() - start, done


def shown_observation(spec: Spec) -> str:
    """'image 63x63x3', 'grid 7x9x5 + vector 22'."""
    return ' + '.join(f'{name} {"x".join(map(str, m.shape))}' for name, m in spec.observation)


def shown_action(action: ActionSpace, width: int = 44) -> str:
    """'3: left, stay, right', '2 in -1..1'; cut where it gets too long."""
    if action.kind == 'continuous':
        return f'{action.size} in {action.low:g}..{action.high:g}'
    text = f'{action.size}: {", ".join(action.names)}' if action.names else str(action.size)
    return text if len(text) <= width else f'{text[: width - 3].rpartition(",")[0]}, ...'
