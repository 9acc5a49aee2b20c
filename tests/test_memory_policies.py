"""The policies of an episodic bank, each by hand, and the scan that follows them beside a plain simulation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from remembering import BANKS

from worldmodels.memory import bank, policies
from worldmodels.memory.policies import Policies, View

B, S, M = 4, 4, 2


def seen(now=9, alive=(1, 1, 1, 1), age=(4, 3, 2, 1), uses=(0, 0, 0, 0), **matches) -> View:
    """A bank of four entries, the first the oldest."""
    row = lambda x: jnp.asarray(x, jnp.int32)[None]
    matches = {name: jnp.asarray(x)[None] for name, x in matches.items()}
    return View(row(now), row(alive) > 0, row(age), row(matches.pop('idle', [age])[0]), row(uses), **matches)


def test_what_is_written():
    likeness = (0.5, 0.96, 0.94, 0.0)
    new, known = seen(likeness_BS=likeness, alive=(1, 0, 1, 1)), seen(likeness_BS=likeness)
    written = lambda name, view: bool(policies.WRITE[name](view, Policies(every=3))[0])
    assert [written('all', seen(now)) for now in range(4)] == [True] * 4
    assert [written('every_k', seen(now)) for now in range(7)] == [True, False, False, True, False, False, True]
    assert written('novelty', new), 'an entry that is dead is like nothing'
    assert not written('novelty', known)
    assert written('novelty', seen(likeness_BS=likeness, alive=(0, 0, 0, 0)))


def test_what_is_retrieved():
    def retrieved(name, view, many=2):
        entry, there = policies.retrieved(view, Policies(retrieve=name), many)
        return [int(e) if t else None for e, t in zip(entry[0], there[0])]

    view = seen(match_BS=[5, 9, 9, -7], near_BS=[3, 3, -1, 4])
    assert retrieved('content', view) == [2, 1], 'of equals the latest'
    assert retrieved('recency', view, 3) == [3, 2, 1]
    assert retrieved('place', view, 3) == [3, 1, 0]
    few = view.replace(alive_BS=jnp.array([[True, False, False, False]]))
    assert [retrieved(name, few) for name in policies.RETRIEVE] == [[0, None]] * 3
    far = 16_000
    assert retrieved('content', seen(match_BS=[far, far - 1, -far, far], age=(1 << 20, 1, 1, 1 << 19))) == [0, 3]


def test_what_is_updated():
    def updated(name, view):
        update = policies.updated(view, Policies(update=name), jnp.array([[False, True, False, True]]))
        return int(update.entry_B[0]), bool(update.again_B[0]), np.flatnonzero(update.fresh_BS[0]).tolist()

    alike = seen(likeness_BS=[0.1, 0.96, 0.99, 0.2])
    assert updated('none', alike) == (0, False, [])
    assert updated('replace', alike) == (2, True, [])
    assert updated('replace', seen(likeness_BS=[0.1, 0.9, 0.9, 0.2])) == (0, False, [])
    assert updated('refresh', alike) == (0, False, [1, 3])


def test_what_is_forgotten():
    free = lambda name, view: int(policies.free(view, Policies(forget=name))[0])
    assert free('oldest', seen(age=(3, 8, 5, 1))) == 1
    assert free('least_used', seen(uses=(3, 1, 1, 2), age=(9, 2, 4, 5))) == 2, 'of equals the oldest'
    for name in policies.FORGET:
        assert free(name, seen(alive=(1, 1, 0, 0), uses=(0, 0, 9, 9))) == 2, 'what holds nothing goes first'


class Plain:
    """A bank by a list of dicts, for one row: what is read and written as the policies' names say."""

    def __init__(self, policies: Policies):
        self.policies, self.slots, self.now = policies, [None] * S, 0

    def reset(self):
        self.slots, self.now = [None] * S, 0

    def tick(self, codes):
        p, now = self.policies, self.now
        held = [(i, e) for i, e in enumerate(self.slots) if e]
        dot = lambda a, b: int(np.dot(a.astype(int), b.astype(int)))
        alike = lambda e: (
            dot(codes['look'], e['look'])
            / np.sqrt(max(dot(codes['look'], codes['look']) * dot(e['look'], e['look']), 1))
        )
        by = {
            'content': lambda e: (dot(codes['query'], e['key']), e['written']),
            'recency': lambda e: e['written'],
            'place': lambda e: (dot(codes['place'], e['place']), e['written']),
        }[p.retrieve]
        read = [i for i, e in sorted(held, key=lambda x: by(x[1]), reverse=True)[:M]]
        ages = [now - self.slots[i]['written'] for i in read]
        same = sorted([(alike(e), -i) for i, e in held if alike(e) >= p.threshold]) if p.compares else []
        write = {'all': True, 'every_k': now % p.every == 0, 'novelty': not same}[p.write]
        old = {'oldest': lambda e: e['touched'], 'least_used': lambda e: (e['uses'], e['touched'])}[p.forget]
        empty = [i for i, e in enumerate(self.slots) if not e]
        at = empty[0] if empty else min(range(S), key=lambda i: old(self.slots[i]))
        again = p.update == 'replace' and bool(same)
        at = -same[-1][1] if again else at
        for i in read:
            self.slots[i]['uses'] += 1
            self.slots[i]['touched'] = now if p.update == 'refresh' else self.slots[i]['touched']
        if write:
            uses = self.slots[at]['uses'] if again else 0
            self.slots[at] = {**codes, 'written': now, 'touched': now, 'uses': uses}
        self.now += 1
        return read, ages, at if write else None


@pytest.mark.parametrize('name', BANKS)
def test_the_scan_decides_as_a_plain_simulation_does(name):
    chosen, ticks = Policies(**BANKS[name]), 40
    kinds = np.random.default_rng(0).normal(size=(3, 7, 8))  # of seven kinds of frames: repetitions, and ties
    kind_BT = np.random.default_rng(1).integers(0, 7, (B, ticks))
    codes = {n: np.asarray(bank.code(jnp.asarray(kinds[i])))[kind_BT] for i, n in enumerate(('query', 'key', 'look'))}
    codes['place'] = codes['key']
    reset_BT = np.random.default_rng(2).random((B, ticks)) < 0.06
    book = bank.empty(B, S, 8, ('key', 'look', 'place'))
    book, _, reads, from_BTM = jax.jit(lambda: bank.follow(chosen, M, book, codes, reset_BT))()
    plain = [Plain(chosen) for _ in range(B)]
    writer = [{} for _ in range(B)]
    for row in range(B):
        for t in range(ticks):
            if reset_BT[row, t]:
                plain[row].reset()
            read, ages, at = plain[row].tick({n: x[row, t] for n, x in codes.items()})
            got = jax.tree.map(lambda x, row=row, t=t: np.asarray(x[row, t]), reads)
            assert got.entry_BM[got.there_BM].tolist() == read, (row, t)
            assert got.age_BM[got.there_BM].tolist() == ages
            assert from_BTM[row, t][got.there_BM].tolist() == [writer[row][i] for i in read]
            assert (int(got.entry_B) if got.write_B else None) == at
            if at is not None:
                writer[row][at] = S + t
    there = bank.entries(book)
    for row in range(B):
        for i, e in enumerate(plain[row].slots):
            assert bool(there['there'][row, i]) == bool(e)
            if e:
                told = [int(there[n][row, i]) for n in ('tick', 'age', 'uses')]
                assert told == [e['written'], plain[row].now - e['touched'], e['uses']]
