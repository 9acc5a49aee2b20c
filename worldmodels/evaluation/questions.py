"""Worlds that ask for what they showed: played afresh at one delay, followed by a model, judged where the answer comes.

The recall worlds answer with a frame, bsuite's MemoryChain and MiniGrid's Memory with a reward. Nothing here needs a dataset:
the world plays itself from a fixed seed, under random actions, but for the corridor's, which are a script's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from worldmodels import interaction, rng, rollout, worlds
from worldmodels.control.corridor import Corridor
from worldmodels.control.random import Random
from worldmodels.data.episodes import as_ticks, to_ticks
from worldmodels.evaluation import dreams
from worldmodels.types import PyTree, Ticks
from worldmodels.world_model import WorldModel
from worldmodels.worlds import recall

CHAIN = 'gymnax/MemoryChain-bsuite'
CORRIDOR = 'xminigrid/MiniGrid-MemoryS'
DELAYS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
SIZES = (8, 16, 32, 64, 128)
"""Of the corridors that there are, in cells: about as many ticks from the object to the answer."""
CHUNK = 64  # ticks followed at once: what a transformer over 1,000 ticks would hold at once is too much


@dataclasses.dataclass(frozen=True)
class Played:
    """Episodes of one delay, one a row, as long as the longest of them or a little longer. numpy, (B, T).

    inside_BT  ticks of the row's first episode; what comes after it belongs to others and is not judged
    answer_BT  the tick of it at which the answer is shown
    asks       'frame' or 'reward': in what the answer lies
    """

    ticks: Ticks
    inside_BT: np.ndarray
    answer_BT: np.ndarray
    asks: str


def delays(world: Mapping[str, Any]) -> tuple[int, ...]:
    """At which a world is asked when nobody says."""
    return SIZES if world['name'].startswith(CORRIDOR) else DELAYS


def at_delay(world: Mapping[str, Any], delay: int) -> dict[str, Any]:
    """config.world with this delay and no other.

    Raises ValueError for a world that asks nothing, and for a corridor that there is not.
    """
    if world['name'].startswith('recall/'):
        return {**world, 'low': delay, 'high': delay}
    if world['name'] == CHAIN:
        return {k: v for k, v in world.items() if k != 'shortest'} | {'memory_length': delay}
    if world['name'].startswith(CORRIDOR):
        if delay not in SIZES:
            raise ValueError(
                f'delay {delay}: the corridors of {CORRIDOR}N are {", ".join(map(str, SIZES))} cells long.'
            )
        # Time enough to walk to the object and back to the end; what is paid falls with the share of it that is used.
        return {**world, 'name': f'{CORRIDOR}{delay}', 'max_steps': 6 * delay}
    known = ', '.join((*worlds.names('recall'), CHAIN, f'{CORRIDOR}16'))
    raise ValueError(f"'{world['name']}' asks no question whose delay can be set: recall is judged in {known}.")


def play(world: Mapping[str, Any], delay: int, episodes: int, seed: int = 0) -> Played:
    """`episodes` episodes of a world (config.world) at a delay, padded to whole chunks by the episodes after them."""
    asked = at_delay(world, delay)
    made = worlds.make(asked.pop('name'), episodes, **asked)
    script = Corridor if world['name'].startswith(CORRIDOR) else Random
    key = jax.random.fold_in(rng.stream(seed, 'recall'), delay)
    pool = interaction.prepare(made, jax.random.fold_in(key, 0), episodes)
    length = -(-(made.max_steps + 1) // CHUNK) * CHUNK
    _, records = interaction.interact(made, script(made.spec.action), None, jax.random.fold_in(key, 1), length, pool)
    records.pop('extras')
    records = jax.tree.map(np.asarray, records)
    rows = [to_ticks(jax.tree.map(lambda x, b=b: x[:, b], records), made.spec) for b in range(episodes)]
    ticks = as_ticks(rows, np.zeros(episodes, bool), np.arange(episodes, dtype=np.int32))
    inside_BT = np.cumsum(ticks.is_first, 1) == 1
    asks = 'frame' if world['name'].startswith('recall/') else 'reward'
    answer_BT = inside_BT & (ticks.is_last if asks == 'reward' else np.asarray(recall.is_answer(ticks.observation)))
    return Played(ticks, inside_BT, answer_BT, asks)


def follow(
    model: WorldModel, variables: PyTree, ticks: Ticks, seed: int = 0
) -> Iterator[tuple[slice, rollout.Trace, jax.Array]]:
    """The trace of every chunk of ticks, its slice of time, and its keys (B, CHUNK); the belief is carried between."""
    keys_B = rng.per_example(rng.stream(seed, 'recall/follow'), 0, jnp.asarray(ticks.example_B))
    belief = None
    for start in range(0, ticks.is_first.shape[1], CHUNK):
        when = slice(start, start + CHUNK)
        continues_B = np.full_like(ticks.continues_B, start > 0)
        part = dataclasses.replace(dreams.cut(ticks, when.start, when.stop), continues_B=continues_B)
        if belief is None:
            belief = model.apply(variables, ticks.is_first.shape[0], method='initial')
        keys_BT = rng.per_tick(keys_B, CHUNK, start)
        belief, trace = rollout.observe(model, variables, part, rng.split(keys_BT, 2)[0], belief)
        yield when, trace, rng.split(keys_BT, 2)[1]
