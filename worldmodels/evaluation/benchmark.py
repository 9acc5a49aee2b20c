"""What a world model costs on this machine: to compile, to train, to dream, and to be lived in one frame at a time.

Data are random and already on the device; reading and logging are left out. Times are medians (and minima) after a
warm-up. Machines differ, so each rate stands beside the rate of a float32 matrix product measured in the same process.
"""

from __future__ import annotations

import dataclasses
import math
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from worldmodels import remat, rng, rollout, worlds
from worldmodels.build import build_model, init_variables
from worldmodels.evaluation import dreams, profile
from worldmodels.evaluation.speeds import seconds
from worldmodels.training import flops, parallel
from worldmodels.training import state as states
from worldmodels.training.allocator import return_freed_memory
from worldmodels.training.config import step_config
from worldmodels.training.losses import losses
from worldmodels.training.metrics import resident_mb
from worldmodels.training.optimizer import make_optimizer
from worldmodels.training.step import objective, train_step
from worldmodels.types import ActionSpace, Modality, PyTree, Spec, Ticks, nbytes
from worldmodels.world_model import PARTS, WorldModel

Result = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is measured: a config and the model it describes, with fresh parameters."""

    config: ml_collections.ConfigDict
    model: WorldModel
    variables: PyTree

    def parameters(self, parts: tuple[str, ...] = PARTS) -> int:
        """Numbers learned in the named parts."""
        return sum(x.size for x in jax.tree.leaves(states.trained(self.variables['params'], parts)))


def subject(config: ml_collections.ConfigDict) -> Subject:
    """The model of a config. `config.world.name` 'random' stands for noise of the image and actions given beside it."""
    dtype = None if config.train.dtype == 'auto' else config.train.dtype
    model = build_model(config.model, spec_of(config.world), dtype)
    return Subject(config, model, init_variables(model, config.seed))


def spec_of(world: ml_collections.ConfigDict) -> Spec:
    """The spec of the world that a config names, which is not stepped."""
    options = {k: v for k, v in world.items() if k != 'name'}
    if world.name == 'random':
        image = Modality('image', tuple(options['image']))
        return Spec((('image', image),), ActionSpace('discrete', options['actions']))
    return worlds.make(world.name, 1, **options).spec


def random_ticks(spec: Spec, batch: int, length: int, seed: int) -> Ticks:
    """A batch of noise, each row one unbroken episode from its opening on. numpy arrays."""
    random = np.random.default_rng(seed)

    def noise(modality: Modality) -> np.ndarray:
        shape = (batch, length, *modality.shape)
        if modality.kind == 'vector':
            return random.standard_normal(shape, np.float32)
        high = np.asarray(modality.classes) if modality.kind == 'grid' else 256
        return random.integers(0, high, shape, np.uint8)

    null = spec.action.null((batch, 1))
    taken = (batch, length - 1, *spec.action.shape)
    discrete = spec.action.kind == 'discrete'
    action = random.integers(0, spec.action.size, taken) if discrete else random.uniform(-1, 1, taken)
    is_first = np.zeros((batch, length), bool)
    is_first[:, 0] = True
    return Ticks(
        observation={name: noise(modality) for name, modality in spec.observation},
        action=np.concatenate([null, action.astype(null.dtype)], 1),
        outcomes={name: np.ones((batch, length), np.float32) for name in spec.outcomes},
        is_first=is_first,
        is_last=np.zeros((batch, length), bool),
        is_terminal=np.zeros((batch, length), bool),
        continues_B=np.zeros(batch, bool),
        example_B=np.arange(batch, dtype=np.int32),
    )


@dataclasses.dataclass(frozen=True)
class Asked:
    """What to measure beside the programs. curve: frames to dream, 0 for none. workdir: of curves and traces."""

    repeats: int = 10
    stream: bool = False
    deadline_ms: float = 100.0
    curve: int = 0
    profile: bool = False
    workdir: str = 'runs/benchmark'


def measure(
    name: str, config: ml_collections.ConfigDict, measures: tuple[str, ...], asked: Asked
) -> tuple[Result, dict[str, list[profile.Cost]]]:
    """All figures of one workload by name, and the costs of the instructions of each program that was profiled.

    Args:
      name: of the workload, for files.
      config: the experiment; `evaluate.starts`, `context`, `horizon` are a dream's batch, frames watched, dreamed.
      measures: 'train', 'dream' or both.
    """
    return_freed_memory()
    forget_peak_memory()
    before = matmul_peak()
    whom = subject(config)
    starts, context, horizon = (config.evaluate[k] for k in ('starts', 'context', 'horizon'))
    result: Result = {'parameters': whom.parameters(), 'trained_parameters': whom.parameters(config.train.parts)}
    profiles, folder = {}, Path(asked.workdir) / name
    for prefix in measures:
        if prefix == 'train':
            program = training(whom)
            result['train_kept_mb'] = kept_bytes(whom) / 1e6
            frames = config.data.batch_size * config.data.segment_length
        else:
            program, frames = dreaming(whom, starts, context, horizon)[0], starts * horizon
        result |= program.measure(frames, asked.repeats, prefix)
        if asked.profile:
            folder.mkdir(parents=True, exist_ok=True)
            spent = profile.record(program.run, 3, folder / prefix)
            peaks = max(before, matmul_peak()), copy_peak()
            profiles[prefix] = profile.costs(spent, profile.read_program(program.text), *peaks)
    if asked.stream:
        result |= stream(whom, context, 200, asked.deadline_ms)
    if asked.curve:
        folder.mkdir(parents=True, exist_ok=True)
        result |= keep_curve(curve(whom, context, asked.curve), folder / 'curve.csv')
    result |= peak_memory_mb()
    peak = max(before, matmul_peak())
    result['matmul_gflop_per_s'] = peak
    result |= {f'{k}_share_of_peak': result[f'{k}_gflop_per_s'] / peak for k in measures}
    return result, profiles


# -- the machine ------------------------------------------------------------------------------------------------------


def matmul_peak(size: int = 2048) -> float:
    """GFLOP/s of the best of ten float32 products of two square matrices, as jax does them by default."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x, y: x @ y)
    return 2e-9 * size**3 / float(seconds(lambda: product(a, a), 10).min())


def copy_peak(megabytes: int = 128) -> float:
    """GB/s read and written by the best of ten passes, in place, over an array too large for any cache."""
    x = jnp.ones(megabytes * 2**18, jnp.float32)
    onward = jax.jit(lambda x: x + 1, donate_argnums=0)

    def run():
        nonlocal x
        x = onward(x)
        return x

    return 2e-9 * x.nbytes / float(seconds(run, 10).min())


def forget_peak_memory() -> None:
    """Start the high-water mark of resident memory anew, where the system allows (Linux)."""
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        return


def peak_memory_mb() -> Result:
    """High-water marks, in MB: resident memory of the process, and the device's own where it has any."""
    try:
        status = Path('/proc/self/status').read_text()
        kilobytes = int(status.split('VmHWM:')[1].split()[0])
    except (OSError, IndexError):
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    on_device = jax.local_devices()[0].memory_stats() or {}
    peak = {'device_peak_mb': on_device['peak_bytes_in_use'] / 1e6} if 'peak_bytes_in_use' in on_device else {}
    return {'rss_peak_mb': kilobytes * 1024 / 1e6, **peak}


# -- what is measured -------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Program:
    """A compiled program ready to be run: `run()` does it once more and returns what to wait for."""

    run: Callable[[], Any]
    text: str
    operations: int
    compile_s: float
    compiled_mb: float

    def measure(self, frames: int, repeats: int, prefix: str) -> Result:
        """Time of `repeats` runs of `frames` frames each, and what follows from it."""
        spent = seconds(self.run, repeats)
        middle = float(np.median(spent))
        return {
            f'{prefix}_compile_s': self.compile_s,
            f'{prefix}_ms': 1e3 * middle,
            f'{prefix}_ms_min': 1e3 * float(spent.min()),
            f'{prefix}_frames_per_s': frames / middle,
            f'{prefix}_gflop': self.operations / 1e9,
            f'{prefix}_gflop_per_s': self.operations / 1e9 / middle,
            f'{prefix}_compiled_mb': self.compiled_mb,
        }


def training(subject: Subject) -> Program:
    """One optimizer step as `launch/train.py` takes it: all local devices, the state donated."""
    config, model = subject.config, subject.model
    devices = parallel.Devices()
    devices.check_batch(config.data.batch_size)
    step_fields = step_config(config)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    state, ticks = _begun(subject, optimizer)
    state, ticks = devices.place(state), devices.shard(ticks)
    step = partial(
        train_step, model=model, optimizer=optimizer, config=step_fields, losses=losses, axis_name=parallel.AXIS
    )
    start = time.perf_counter()
    compiled = parallel.train(step, devices).compile(state, ticks)
    compile_s = time.perf_counter() - start

    def run():
        nonlocal state
        state, metrics = compiled(state, ticks)
        return metrics

    operations = flops.count(compiled.jaxpr) * devices.count
    return Program(run, compiled.text, operations, compile_s, compiled.memory_bytes / 1e6)


def kept_bytes(subject: Subject) -> int:
    """Bytes that a training step keeps between its forward and its backward pass, which `train.remat` decides."""
    fields = step_config(subject.config)
    state, ticks = _begun(subject, make_optimizer(subject.config.optimizer, subject.config.train.steps))
    loss = objective(state, ticks, model=subject.model, config=fields, losses=losses)
    return remat.kept_bytes(lambda params: loss(params)[0], states.trained(state.params, fields.parts))


def _begun(subject: Subject, optimizer: optax.GradientTransformation) -> tuple[states.TrainState, Ticks]:
    """The state before the first step, and a batch of noise, not yet on the devices."""
    config, fields = subject.config, step_config(subject.config)
    batch = config.data.batch_size
    belief = subject.model.apply(subject.variables, batch, method='initial') if config.data.consecutive else None
    state = states.create(subject.variables, optimizer, fields.parts, fields.ema, belief)
    return state, random_ticks(subject.model.spec, batch, config.data.segment_length, config.seed)


def dreaming(
    subject: Subject, batch: int, context: int, frames: int, donate: bool = False
) -> tuple[Program, Callable[[PyTree], PyTree], PyTree]:
    """Dreams of `frames` frames for `batch` starts, after `context` frames of noise, under random actions.

    Returns the program, its continuation (belief, frame number) -> (belief, frames), and the belief it starts from. With
    `donate` the continuation writes into the belief it is given, as whoever lives in a dream would have it; the program
    can then not be run again from the start.
    """
    model, variables = subject.model, subject.variables
    ticks = jax.device_put(random_ticks(model.spec, batch, context + frames, subject.config.seed))
    seen = dreams.cut(ticks, 0, context)
    action = ticks.action[:, context:]
    keys_B = rng.per_example(rng.stream(subject.config.seed, 'benchmark'), 0, ticks.example_B)
    belief, _ = rollout.observe(model, variables, seen, rng.per_tick(keys_B, context))

    def dream(variables, belief, start, action):
        keys_BT = rng.per_tick(keys_B, frames, context + start)
        belief, dream = rollout.imagine(model, variables, belief, keys_BT, action=action)
        return belief, dream.observation

    start = time.perf_counter()
    traced = jax.jit(dream, donate_argnames='belief' if donate else None).trace(variables, belief, jnp.int32(0), action)
    compiled = traced.lower().compile()
    compile_s = time.perf_counter() - start
    return_freed_memory()

    def onward(belief: PyTree, at: int) -> tuple[PyTree, PyTree]:
        return compiled(variables, belief, jnp.int32(at), action)

    memory = _megabytes(compiled.memory_analysis())
    program = Program(lambda: onward(belief, 0), compiled.as_text(), flops.count(traced.jaxpr), compile_s, memory)
    return program, onward, belief


def stream(subject: Subject, context: int, frames: int, deadline_ms: float) -> Result:
    """Lives alone in the dream, as a person at the keyboard does: an action in, the picture out on the host.

    A miss is a frame that took longer than the deadline.
    """
    _, onward, belief = dreaming(subject, 1, context, 1, donate=True)
    spent = []
    for number in range(frames + 5):
        start = time.perf_counter()
        belief, frame = onward(belief, number)
        jax.device_get(frame)
        spent.append(1e3 * (time.perf_counter() - start))
    spent = np.asarray(spent[5:])
    p50, p95, p99 = np.percentile(spent, [50, 95, 99])
    misses = int((spent > deadline_ms).sum())
    return {
        'stream_frames': frames,
        'stream_p50_ms': float(p50),
        'stream_p95_ms': float(p95),
        'stream_p99_ms': float(p99),
        'stream_deadline_ms': deadline_ms,
        'stream_misses': misses,
        'stream_belief_mb': nbytes(belief) / 1e6,
    }


def curve(subject: Subject, context: int, frames: int, chunk: int = 10) -> np.ndarray:
    """Cost of a dreamed frame by its number: rows (last frame of a chunk, ms per frame, MB the process holds), at batch 1."""
    _, onward, belief = dreaming(subject, 1, context, chunk, donate=True)
    belief, _ = jax.block_until_ready(onward(belief, 0))
    rows = []
    for number in range(math.ceil(frames / chunk)):
        start = time.perf_counter()
        belief, frame = jax.block_until_ready(onward(belief, (number + 1) * chunk))
        jax.device_get(frame)
        spent = 1e3 * (time.perf_counter() - start) / chunk
        rows.append(((number + 1) * chunk, spent, resident_mb()))
    return np.asarray(rows)


def keep_curve(rows: np.ndarray, path: Path) -> Result:
    """Write a curve as CSV and as a picture beside it; its figures are medians over the first and the last tenth."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    lines = ['frame,ms_per_frame,rss_mb', *(f'{int(frame)},{ms:.4f},{mb:.1f}' for frame, ms, mb in rows)]
    path.write_text('\n'.join(lines) + '\n')
    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout='constrained')
    axes.plot(rows[:, 0], rows[:, 1], '.', markersize=3)
    axes.set(xscale='log', ylim=(0, 2 * np.median(rows[:, 1])), xlabel='dreamed frame', ylabel='ms per frame')
    axes.grid(alpha=0.3)
    figure.savefig(path.with_suffix('.png'), dpi=150)
    pyplot.close(figure)
    tenth = max(len(rows) // 10, 1)
    (first, held), (last, held_last) = (np.median(part[:, 1:], 0) for part in (rows[:tenth], rows[-tenth:]))
    return {
        'curve_frames': int(rows[-1, 0]),
        'curve_first_tenth_ms': float(first),
        'curve_last_tenth_ms': float(last),
        'curve_rss_growth_mb': float(held_last - held),
    }


def _megabytes(memory: Any) -> float:
    """Arguments, results and scratch of a compiled program, in MB; what it shares by donation counts once."""
    if memory is None:
        return math.nan
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return (total - memory.alias_size_in_bytes) / 1e6
