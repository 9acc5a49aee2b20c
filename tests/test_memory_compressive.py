"""The compressive memory: what is pooled where, by a plain simulation; both forms; weights that pooling keeps; resets."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import shaken

from worldmodels.memory import compressive
from worldmodels.memory.compressive import Compressive, Entries
from worldmodels.nn.levels import Levels
from worldmodels.types import Latent, Layout

B, T, W, R, L = 4, 70, 3, 2, 3
LAYOUT = Layout(((1, 2),))
# Rows: none; at the start, in the middle and across chunks; at the end; twice in a row.
RESET_BT = np.zeros((B, T), bool)
RESET_BT[1, 0] = RESET_BT[1, 20] = RESET_BT[1, 66] = RESET_BT[2, -1] = RESET_BT[3, 8] = RESET_BT[3, 9] = True


class Plain:
    """The schedule by lists: level l holds tuples of frames, and pools its oldest when it holds too many."""

    def __init__(self, length, rate, levels):
        self.length, self.rate, self.levels = length, rate, [[] for _ in range(levels)]

    def see(self, frame):
        self.levels[0].append((frame,))
        for level, entries in enumerate(self.levels):
            if len(entries) > self.length and level + 1 < len(self.levels):
                self.levels[level + 1].append(sum(entries[: self.rate], ()))
                del entries[: self.rate]
            elif len(entries) > self.length:
                del entries[0]
        return {
            (level, age): frames
            for level, entries in enumerate(self.levels)
            for age, frames in enumerate(reversed(entries))
        }


def read(lists, reading, row, tick):
    """{(level, age): frames} of what a query sees, from the frames that stand at each position."""
    seen, place = np.asarray(reading.seen)[row, tick], np.asarray(reading.place)[row, tick]
    return {divmod(int(place[s]), W): lists[s] for s in np.flatnonzero(seen)}


@pytest.mark.parametrize('rate', [2, 3])
def test_steps_and_plans_see_what_a_plain_simulation_sees(rate):
    levels = Levels(W, rate, L)
    step, plan = jax.jit(levels.step), jax.jit(levels.plan)
    plain = [Plain(W, rate, L) for _ in range(B)]
    rings = [[None] * levels.slots for _ in range(B)]
    expected, count = [[] for _ in range(B)], np.zeros(B, np.int32)
    starts = []
    for t in range(T):
        starts.append((count.copy(), [list(ring) for ring in rings]))
        for row in range(B):
            if RESET_BT[row, t]:
                plain[row], count[row] = Plain(W, rate, L), 0
        now = jax.tree.map(np.asarray, step(count))
        for row in range(B):
            expected[row].append(plain[row].see(t))
            parts = now.source_BR[row].reshape(L - 1, rate)
            new = [(t,)] + [sum((rings[row][s] or () for s in part), ()) for part in parts]
            for entry, slot in zip(new, now.write_BL[row]):
                if slot < levels.slots:
                    rings[row][slot] = entry
            assert read(rings[row], now.reading, row, 0) == expected[row][-1], (row, t)
        count += 1
    for first, last in ((0, T), (17, 30), (5, 6)):
        start, carried = starts[first]
        made = jax.tree.map(np.asarray, plan(start, RESET_BT[:, first:last]))
        for row in range(B):
            whole, below, new = [], [], [(t,) for t in range(first, last)]
            for level in range(L):
                if level:
                    new = [sum((below[s] or () for s in part), ()) for part in made.source[level - 1][row]]
                below = carried[row][level * W : (level + 1) * W] + new
                whole += below
            for t in range(last - first):
                assert read(whole, made.reading, row, t) == expected[row][first + t], (row, first, t)
            ring = {s: whole[at] for s, at in enumerate(made.ring_BS[row]) if made.alive_BS[row, s]}
            kept = {s for s, frames in ring.items() if frames in expected[row][last - 1].values()}
            assert {ring[s] for s in kept} == set(expected[row][last - 1].values())
            after = starts[last][1] if last < T else rings
            assert all(after[row][s] == ring[s] for s in kept)


def test_the_reach_and_the_number_of_entries_are_what_they_say():
    plain, levels = Plain(4, 3, 3), Levels(4, 3, 3)
    for frame in range(400):
        seen = plain.see(frame)
        assert len(seen) <= levels.slots
        frames = sorted(sum(seen.values(), ()))
        assert frames == list(range(frames[0], frame + 1))
        assert frames[0] == 0 or len(frames) >= 4 * 9
        assert frames[0] <= max(0, frame + 1 - 4 * 9)


def make(**fields):
    small = {'length': W, 'rate': R, 'levels': L, 'width': 16, 'depth': 2, 'heads': 2, 'hidden': 16}
    return Compressive(5, LAYOUT, True, 'float32', **{**small, **fields})


def experience(length, batch=B, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    index = jax.random.randint(keys[0], (batch, length, 2), 0, 5)
    z = Latent(index, jax.random.normal(keys[1], (batch, length, 2, 3)))
    return z, jax.random.normal(keys[2], (batch, length, 2))


@functools.cache
def setting():
    memory = make()
    z, action = experience(1)
    variables = shaken(
        memory, z, action
    )  # biases and weights of pooling that start at zero would hide a wrong place or share
    sequence = jax.jit(lambda h, z, a, r: memory.apply(variables, h, z, a, r, method='sequence'))

    @jax.jit
    def steps(h, z, action, reset):
        def follow(h, tick):
            z, action, reset = tick
            h = memory.apply(variables, h, reset, method='reset')
            return memory.apply(variables, h, z, action, method='step')

        swap = lambda tree: jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
        h, context = jax.lax.scan(follow, h, swap((z, action, reset)))
        return h, swap(context)

    z, action = experience(9, seed=2)
    h, _ = steps(memory.initial(B)[0], z, action, jnp.zeros((B, 9), bool))
    return memory, sequence, steps, h, *experience(T)


def test_scan_of_step_is_sequence_and_both_go_on_alike():
    memory, sequence, steps, h, z, action = setting()
    assert T > compressive.TICKS
    h_step, stepped = steps(h, z, action, RESET_BT)
    h_sequence, context = sequence(h, z, action, RESET_BT)
    assert context.shape == (B, T, memory.slots, memory.width)
    np.testing.assert_allclose(context, stepped, atol=1e-5)
    np.testing.assert_array_equal(h_sequence.count_B, h_step.count_B)
    none = RESET_BT & False
    np.testing.assert_allclose(
        sequence(h_sequence, z, action, none)[1], sequence(h_step, z, action, none)[1], atol=1e-5
    )


def test_a_poisoned_past_changes_nothing_after_a_reset():
    _, sequence, steps, h, z, action = setting()
    reset_BT = RESET_BT & False
    reset_BT[:, 10] = True
    clean_h, clean = sequence(h, z, action, reset_BT)
    lost = h.replace(entries=jax.tree.map(lambda x: x * np.nan, h.entries))
    bad = z.replace(embedding_BNE=z.embedding_BNE.at[:, 4:10].set(np.nan))
    dirty_h, dirty = sequence(lost, bad, action, reset_BT)
    assert np.isnan(dirty[:, :10]).all()
    np.testing.assert_array_equal(dirty[:, 10:], clean[:, 10:])
    jax.tree.map(np.testing.assert_array_equal, dirty_h, clean_h)
    _, stepped = steps(lost, bad, action, reset_BT)
    np.testing.assert_array_equal(stepped[:, 10:], steps(h, z, action, reset_BT)[1][:, 10:])


def test_the_future_changes_nothing_before_it():
    _, sequence, _, h, z, action = setting()
    _, before = sequence(h, z, action, RESET_BT)
    reset_BT = RESET_BT.copy()
    reset_BT[:, 45:] = ~reset_BT[:, 45:]
    other = z.replace(embedding_BNE=z.embedding_BNE.at[:, 45:].set(7.0))
    _, after = sequence(h, other, action.at[:, 45:].set(-7.0), reset_BT)
    np.testing.assert_array_equal(after[:, :45], before[:, :45])
    assert np.any(np.asarray(after[:, 45:] != before[:, 45:]))


def test_pooling_in_two_levels_is_pooling_at_once():
    """By hand: frames of weights log 1, log 1, log 2 and log 4, values 8, 0, 4 and 2: (8 + 0 + 8 + 8) / 8 = 3."""
    shape = lambda x: jnp.array(x, jnp.float32).reshape(1, 1, 1, 4, 1)
    entries = Entries(shape([8, 0, 4, 2]), shape([8, 0, 4, 2]), jnp.log(shape([1, 1, 2, 4])))
    twice = entries.pooled(jnp.arange(4)[None], 2).pooled(jnp.arange(2)[None], 2)
    for pooled in (twice, entries.pooled(jnp.arange(4)[None], 4)):
        assert float(pooled.values.reshape(())) == pytest.approx(3)
        assert float(pooled.weights.reshape(())) == pytest.approx(np.log(8))


def test_the_first_of_a_thousand_frames_is_still_seen_in_a_state_of_one_size():
    memory = make(rate=3, levels=6, depth=1, width=8)  # 3 * 3 ** 5 = 729 frames at least
    z, action = experience(720, batch=1)
    none = jnp.zeros((1, 720), bool)
    begin = lambda m: m.step(m.initial(1)[0], jax.tree.map(lambda x: x[:, 0], z), action[:, 0])
    variables = jax.jit(lambda: memory.init(jax.random.key(1), method=begin))()
    sequence = jax.jit(lambda z: memory.apply(variables, None, z, action, none, method='sequence'))
    h, context = sequence(z)
    _, other = sequence(z.replace(embedding_BNE=z.embedding_BNE.at[:, 0].add(5.0)))
    assert np.isfinite(context).all()
    assert (context[:, -1] != other[:, -1]).any()
    empty = memory.initial(1)[0]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), h) == jax.tree.map(lambda x: (x.shape, x.dtype), empty)


def test_its_use_counts_the_entries_that_hold_something():
    """By hand, W = 3 and r = 2: of 9 entries 0 frames fill none, 2 frames two, and 5 frames three whole and one of a pair."""
    memory = make()
    h = memory.initial(3)[0].replace(count_B=jnp.array([0, 2, 5]))
    total, count = memory.use(h)['filled']
    assert float(total) == pytest.approx((0 + 2 + (3 + 1)) / 9)
    assert float(count) == 3


def test_bytes_and_refusals():
    assert make().nbytes(3) == 3 * (2 * 2 * (L * W) * (2 * 16 * 4 + 4 * 2) + 4)
    for rate in (1, 4):
        with pytest.raises(ValueError, match=f'memory.rate is {rate}: it takes a whole number from 2 to the length'):
            make(rate=rate)
