"""Where a compiled program spends its time, and what limits it there.

The profiler says when each instruction of the program ran, the program's text what it had to do: operations and bytes.
Together they tell an instruction that computes as fast as the machine can from one that waits for memory, or is too
small for either.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax

BYTES = {'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2, 's64': 8, 'u64': 8, 'f64': 8, 'c64': 8}
CLOSE = 0.4
"""Share of a peak from which we say that the peak is the limit."""
SMALL_S = 20e-6
"""An instruction shorter than this is mostly the cost of starting it."""

_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$')
_SHAPE = re.compile(r'\b([a-z]+\d*)\[([\d,]*)\]')


@dataclasses.dataclass
class Instruction:
    """One instruction of a compiled program: what it is, where in the model it comes from, what it does once."""

    kind: str
    scope: str
    operations: int
    bytes: int


@dataclasses.dataclass
class Cost:
    """One instruction over all profiled runs. `limit` is a sentence."""

    name: str
    instruction: Instruction
    calls: int
    seconds: float
    share: float
    limit: str = ''


def record(run: Callable[[], Any], runs: int, folder: Path) -> dict[str, tuple[int, float]]:
    """Run a program under jax's profiler: {instruction: (calls, seconds of its own)}. The trace stays in `folder`."""
    jax.block_until_ready(run())
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # tracing Python would cost more than the program
    before = set(folder.glob('**/*.xplane.pb'))
    with jax.profiler.trace(str(folder), profiler_options=options):
        for _ in range(runs):
            jax.block_until_ready(run())
    spent: dict[str, list] = defaultdict(lambda: [0, 0.0])
    for path in set(folder.glob('**/*.xplane.pb')) - before:
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                _add_self_times(line.events, spent)
    return {name: (calls, seconds) for name, (calls, seconds) in spent.items()}


def _add_self_times(events: Iterable[Any], spent: dict[str, list]) -> None:
    """Add the events of one thread: each counts the time that no event inside it counts."""
    named = [(e.start_ns, e.duration_ns, dict(e.stats).get('hlo_op')) for e in events if e.duration_ns]
    inside: list = []  # (end, name) of the events around the present one
    for start, duration, name in sorted(((s, d, n) for s, d, n in named if n), key=lambda e: (e[0], -e[1])):
        while inside and inside[-1][0] <= start:
            inside.pop()
        if inside:
            spent[inside[-1][1]][1] -= duration * 1e-9
        spent[name][0] += 1
        spent[name][1] += duration * 1e-9
        inside.append((start + duration, name))


def read_program(text: str) -> dict[str, Instruction]:
    """Every instruction of a compiled program's text (HLO) by name."""
    found, shapes, inside, operations = {}, {}, defaultdict(list), {}
    computation = ''
    for line in text.splitlines():
        if line.endswith('{') and not line.startswith(' '):
            head = re.search(r'%?([\w.\-]+) \(', line)
            computation = head.group(1) if head else ''
        match = _INSTRUCTION.match(line)
        if not match:
            continue
        name, shape, kind, rest = match.groups()
        shapes[name] = shape
        inside[computation].append(name)
        operands = re.findall(r'%([\w.\-]+)', rest.split('), ')[0])
        called = re.search(r'calls=%?([\w.\-]+)', rest)
        scope = re.search(r'op_name="([^"]*)"', rest)
        moved = _bytes(shape) + sum(_bytes(shapes.get(o, '')) for o in operands)
        operations[name] = _operations(kind, shape, rest, [shapes.get(o, '') for o in operands])
        if called:  # computations are printed before those that call them
            operations[name] += sum(operations[n] for n in inside[called.group(1)])
        found[name] = Instruction(kind, scope.group(1) if scope else '', operations[name], moved)
    return found


def _sizes(shape: str) -> list[tuple[str, list[int]]]:
    return [(kind, [int(n) for n in dims.split(',') if n]) for kind, dims in _SHAPE.findall(shape)]


def _bytes(shape: str) -> int:
    return sum(BYTES.get(kind, 4) * math.prod(dims) for kind, dims in _sizes(shape))


def _operations(kind: str, shape: str, rest: str, operands: list[str]) -> int:
    if kind not in ('dot', 'convolution') or len(operands) < 2 or not _sizes(operands[0]) or not _sizes(operands[1]):
        return 0
    result = math.prod(_sizes(shape)[0][1])
    left, right = _sizes(operands[0])[0][1], _sizes(operands[1])[0][1]
    if kind == 'dot':
        contracted = re.search(r'lhs_contracting_dims={([\d,]*)}', rest)
        return 2 * result * math.prod(left[int(d)] for d in contracted.group(1).split(',') if d)
    labels = re.search(r'dim_labels=\w+_(\w+)->', rest).group(1)
    return 2 * result * math.prod(right) // right[labels.index('o')]


def costs(
    spent: dict[str, tuple[int, float]], program: dict[str, Instruction], peak_gflop_per_s: float, copy_gb_per_s: float
) -> list[Cost]:
    """Instructions by the time they took, the longest first, each with what limits it."""
    total = sum(seconds for _, seconds in spent.values())
    out = []
    for name, (calls, seconds) in sorted(spent.items(), key=lambda item: -item[1][1]):
        instruction = program.get(name, Instruction('unknown', '', 0, 0))
        cost = Cost(name, instruction, calls, seconds, seconds / total if total else 0.0)
        cost.limit = _limit(cost, peak_gflop_per_s, copy_gb_per_s)
        out.append(cost)
    return out


def _limit(cost: Cost, peak_gflop_per_s: float, copy_gb_per_s: float) -> str:
    each = max(cost.seconds / cost.calls, 1e-9)
    gflop_per_s = cost.instruction.operations / each / 1e9
    gb_per_s = cost.instruction.bytes / each / 1e9
    if cost.instruction.kind in ('while', 'call', 'conditional'):
        return 'control flow around its body'
    if gflop_per_s >= CLOSE * peak_gflop_per_s:
        return f'arithmetic: {gflop_per_s:.0f} GFLOP/s, {gflop_per_s / peak_gflop_per_s:.0%} of the peak'
    if gb_per_s > 1.2 * copy_gb_per_s:
        return f'the cache: {gb_per_s:.1f} GB/s, where copying in memory reaches {copy_gb_per_s:.1f}'
    if gb_per_s >= CLOSE * copy_gb_per_s:
        return f'memory: {gb_per_s:.1f} GB/s, {gb_per_s / copy_gb_per_s:.0%} of copying'
    if each < SMALL_S:
        return f'smallness: {cost.calls} calls of {1e6 * each:.0f} µs'
    if cost.instruction.operations:
        return f'the shape of its product: {gflop_per_s:.0f} GFLOP/s, {gflop_per_s / peak_gflop_per_s:.0%} of the peak'
    return f'elementwise work: {gb_per_s:.1f} GB/s, {gb_per_s / copy_gb_per_s:.0%} of copying'


def by_part(costs: list[Cost], parts: tuple[str, ...]) -> dict[str, float]:
    """Share of the time by the first of `parts` named in an instruction's scope; 'the rest' has none."""
    shares = dict.fromkeys((*parts, 'the rest'), 0.0)
    for cost in costs:
        words = re.split(r'[^a-z_]+', cost.instruction.scope)
        shares[next((word for word in words if word in parts), 'the rest')] += cost.share
    return shares
