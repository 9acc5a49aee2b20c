"""The training loop, for every experiment: evaluate, save, next batch, step.

A run is a function of its config and data. Killed at any moment, the same command on the same workdir goes on from the
last checkpoint and ends with the parameters and the metrics of a run that never stopped. Several processes run it side
by side on one workdir (`worldmodels.training.processes`): each reads its rows, the first one writes.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import math
import os
import pathlib
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator

import jax
import ml_collections
import numpy as np

from worldmodels import action, lock, types
from worldmodels.training import checkpoint, flops, parallel, processes, signatures, step
from worldmodels.training import config as config_lib
from worldmodels.training.interrupts import Interrupts
from worldmodels.training.metrics import Quiet, Reporter, divide
from worldmodels.training.optimizer import make_optimizer
from worldmodels.training.pieces import Pieces, abstract_ticks, assemble, check_room, traced
from worldmodels.training.state import TrainState, create, evaluated

FIT_BATCHES = 256
"""Batches offered to a heart that is fitted rather than trained; it may stop sooner."""


def train(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    assemble: Callable[[ml_collections.ConfigDict], Pieces] = assemble,
) -> int:
    """Train an experiment in a workdir, from its last checkpoint if it has one, and return the step reached.

    SIGTERM and SIGINT save and return early.

    Args:
      config: a filled-in `default_config()`.
      workdir: where config, checkpoints and metrics go.
      assemble: makes the pieces of a config.

    Raises:
      ValueError: the config, the data or the workdir cannot be used; raised before anything is computed.
      FloatingPointError: `train.max_bad_steps` steps in a row were not finite.
    """
    config_lib.validate(config)
    devices = parallel.Devices()
    devices.check_batch(config.data.batch_size)
    run = _Run(config, workdir, assemble(config), devices)
    with lock.alone(workdir) if run.first else contextlib.nullcontext():
        run.open()
        reporter = Reporter(workdir, config.train.steps, run.start) if run.first else Quiet()
        try:
            with reporter, Interrupts() as interrupts:
                return run.go(reporter, interrupts)
        except BaseException as error:
            if not processes.is_lost(error):  # with a process gone nothing is ever saved completely
                with contextlib.suppress(Exception):  # what is being saved is saved; only the first failure is told
                    run.checkpoints.close()
            raise


class _Run:
    """One call of `train`."""

    def __init__(
        self, config: ml_collections.ConfigDict, workdir: str | os.PathLike, pieces: Pieces, devices: parallel.Devices
    ):
        self.config, self.pieces, self.devices = config, pieces, devices
        self.workdir = pathlib.Path(workdir)
        self.step_config = config_lib.step_config(config)
        self.optimizer = make_optimizer(config.optimizer, config.train.steps)
        self.bound = {'model': pieces.model, 'config': self.step_config, 'losses': pieces.losses}
        lengths = sorted({config.data.segment_length, config.data.long_length or config.data.segment_length})
        self.ticks = {T: abstract_ticks(pieces.spec, config.data.batch_size, T) for T in lengths}
        begin = config.train.init_from.path
        if begin and not (self.workdir / checkpoint.FOLDER).exists():
            checkpoint.read_config(begin)
        for split in ('train', 'validation') if config.train.evaluate_every else ('train',):
            self._batches(split, False)  # what cannot be read is said now
        self.like = traced(lambda: jax.eval_shape(self._create, pieces.shapes()))
        for ticks in self.ticks.values():
            traced(lambda ticks=ticks: step.check_losses(self.like, ticks, **self.bound))
        check_room(self.like)
        self.fingerprint = config_lib.fingerprint(config, pieces.spec.to_json(), pieces.dataset)
        self.first = devices.process == 0
        self.watch = signatures.Watch(config.watch)
        self.asked = 0  # the signal by which several processes are asked to stop, once all have heard of it

    def open(self) -> None:
        """Take up the workdir: what is in it may be gone on with, and from which step."""
        here = {**config_lib.dotted(self.config), **self.fingerprint, **checkpoint.versions()}
        processes.agree('config, data or versions', here)
        if self.first:
            checkpoint.write_config(self.workdir, self.config, self.pieces.spec, self.fingerprint)
        checkpoint.await_config(self.workdir, self.fingerprint)
        self.checkpoints = checkpoint.Checkpoints(self.workdir, self.config.train.keep)
        self.start = processes.of_first(self.checkpoints.latest() or 0)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def go(self, reporter: Reporter, interrupts: Interrupts) -> int:
        train = self.config.train
        self._describe(reporter)
        batches = self._batches('train', self.config.data.consecutive)
        state = self._first_state(reporter, batches)
        if self.start >= train.steps:
            reporter.say(f'{self.workdir} is trained: {self.start} steps done, {train.steps} asked for.')
            self.checkpoints.close()
            return self.start
        train_steps, validation_step = self._compile(state, reporter)

        now, pending = self.start, None  # pending: the latest step whose metrics have not been looked at
        while True:
            # Several processes stop at a step they agree on: each hears of a signal with the metrics of the step it
            # was sent with. One alone need not ask.
            asked = interrupts.number if self.devices.processes == 1 else self.asked
            last = now == train.steps or asked > 0
            validating = train.evaluate_every and now % train.evaluate_every == 0
            saving = last or now % train.checkpoint_every == 0
            if now > self.start and (validating or saving):
                pending = self._settle(pending, reporter)
                if validating:
                    reporter.write(now, self._validate(state, validation_step))
                if saving:
                    self._save(state, batches)
            if last:
                break
            with reporter.waiting():
                batch = next(batches)
            if now - self.start < max(1, self.config.data.long_every):  # once for each length
                self._check_batch(batch)
            state, metrics = train_steps[batch.is_first.shape[1]](
                state, self.devices.shard(batch), *self.devices.vote(interrupts.number)
            )
            now += 1
            # The step is only queued. Looking at the one before keeps the device busy while the host reads and prints.
            self._settle(pending, reporter)
            pending = (now, metrics)
        self.checkpoints.wait()
        self.checkpoints.close()
        if any(one.traces != 1 for one in train_steps.values()):
            traces = ', '.join(f'{one.traces} times for {T} ticks' for T, one in train_steps.items())
            raise RuntimeError(f'the training step was traced {traces}')
        if now < train.steps:
            command = shlex.join([pathlib.Path(sys.executable).name, *sys.orig_argv[1:]])
            reporter.say(
                f'Stopped by {signal.Signals(asked).name} after step {now}. Everything is saved; to go on: {command}'
            )
        else:
            reporter.say(f'Done: {now} steps, saved in {self.checkpoints.folder / str(now)}')
        return now

    def _settle(self, pending: tuple | None, reporter: Reporter) -> None:
        """Fetch a finished step's metrics: log them where due, complain where the update was skipped."""
        if pending is None:
            return
        now, metrics = pending
        train = self.config.train
        vote = metrics.pop(parallel.VOTE, 0)
        watched = {k: v for k, v in metrics.items() if k in signatures.NLL or k.startswith(signatures.PREFIX)}
        in_a_row, vote, watched = jax.device_get((metrics['skipped_in_a_row'][0], vote, watched))
        in_a_row, self.asked = int(in_a_row), int(vote)
        reporter.tick(now)
        for crossing in self.watch.look(now, divide(watched)):
            reporter.say(f'step {now}: {crossing}')
            reporter.write(now, crossing.metrics)
        due = now % train.log_every == 0 or now in (1, train.steps)
        if not due and not in_a_row:
            return
        values = divide(jax.device_get(metrics))
        if due:
            reporter.write(now, values)
        if in_a_row:
            terms = ', '.join(f'{k} = {v}' for k, v in values.items() if not math.isfinite(v)) or 'a carried belief'
            if in_a_row >= train.max_bad_steps:
                raise FloatingPointError(
                    f'Step {now}: {in_a_row} steps in a row were not finite ({terms}). The last checkpoint is '
                    f'step {self.checkpoints.latest() or 0}; lower config.optimizer.learning_rate or clip_norm.'
                )
            reporter.say(f'step {now} is skipped, it was not finite: {terms}')

    def _validate(self, state: TrainState, validation_step: parallel.Compiled) -> dict[str, float]:
        """Metrics over the first validation batches, the same ones every time."""
        total = collections.defaultdict(lambda: np.zeros(2))
        variables = evaluated(state)
        for batch in itertools.islice(self._batches('validation', False), self.config.train.evaluate_batches):
            for name, pair in jax.device_get(validation_step(variables, self.devices.shard(batch))).items():
                total[f'validation/{name}'] += np.asarray(pair, np.float64)
        return divide(total)

    def _save(self, state: TrainState, batches: Iterator) -> None:
        metadata = {
            'config': config_lib.from_json(config_lib.to_json(self.config)).to_dict(),
            'fingerprint': self.fingerprint,
            'versions': checkpoint.versions(),
            'devices': str(self.devices),
            'watch': self.watch.state(),
        }
        self.checkpoints.save(state, batches.get_state(), metadata)

    # -- before the first step ----------------------------------------------------------------------------------------

    def _create(self, variables: dict) -> TrainState:
        belief = None
        if self.config.data.consecutive:
            belief = self.pieces.model.apply(variables, self.config.data.batch_size, method='initial')
        return create(variables, self.optimizer, self.step_config.parts, self.step_config.ema, belief)

    def _first_state(self, reporter: Reporter, batches: Iterator) -> TrainState:
        """The placed state to start with: of the last checkpoint, with its data position, or a new one."""
        if self.start:
            state, position, metadata = self.checkpoints.restore(self.start, self.like, self.devices)
            self.watch = signatures.Watch(self.config.watch, metadata.get('watch'))
            batches.set_state(position)
            reporter.say(f'going on from step {self.start}')
            return state
        variables = self.pieces.init()
        begin = self.config.train.init_from
        if begin.path:
            variables = checkpoint.init_from(variables, begin.path, tuple(begin.parts))
            reporter.say(f'{", ".join(begin.parts) or "all parts"} from {begin.path}')
        heart = self.pieces.model.heart
        if hasattr(heart, 'fit') and not (begin.path and (not begin.parts or 'heart' in begin.parts)):
            reporter.say('fitting the heart to the training frames')
            frames = itertools.islice(
                self.pieces.batches('train', False, 0, 1), FIT_BATCHES
            )  # all rows in all processes
            fitted = heart.fit({k: v.reshape(-1, *v.shape[2:]) for k, v in b.observation.items()} for b in frames)
            variables = {**variables, 'constants': {**variables.get('constants', {}), 'heart': fitted}}
        return self.devices.place(self._create(variables))

    def _batches(self, split: str, consecutive: bool) -> Iterator[types.Ticks]:
        return self.pieces.batches(split, consecutive, self.devices.process, self.devices.processes)

    def _compile(
        self, state: TrainState, reporter: Reporter
    ) -> tuple[dict[int, parallel.Compiled], parallel.Compiled | None]:
        """Compile all that will run, the training step for each length of segments, and say what a step costs."""
        train_steps = {T: self._compile_step(T, state, reporter) for T in self.ticks}
        if not self.config.train.evaluate_every:
            return train_steps, None
        validation_step = parallel.validate(
            functools.partial(step.validation_step, axis_name=parallel.AXIS, **self.bound), self.devices
        )
        reporter.say('compiling the validation step')
        ticks = self.devices.abstract(self.ticks[self.config.data.segment_length])
        return train_steps, validation_step.compile(evaluated(state), ticks)

    def _compile_step(self, length: int, state: TrainState, reporter: Reporter) -> parallel.Compiled:
        train_step = parallel.train(
            functools.partial(step.train_step, optimizer=self.optimizer, axis_name=parallel.AXIS, **self.bound),
            self.devices,
        )
        of = f' of {length} ticks' if len(self.ticks) > 1 else ''
        reporter.say(f'compiling the training step{of}')
        began = time.monotonic()
        train_step.compile(state, self.devices.abstract(self.ticks[length]), *self.devices.vote(0))
        work = flops.count(train_step.jaxpr) * self.devices.count
        memory = train_step.memory_bytes
        room = f', {memory / 1e9:.2f} GB of memory expected on each device' if memory else ''
        reporter.say(f'compiled in {time.monotonic() - began:.0f} s: {work / 1e9:.3g} GFLOP a step{of}{room}')
        return train_step

    def _describe(self, reporter: Reporter) -> None:
        data = self.config.data
        parameters = {part: sum(x.size for x in jax.tree.leaves(p)) for part, p in self.like.params.items()}
        listing = ', '.join(
            f'{part} {n:,}{"" if part in self.step_config.parts else " (frozen)"}'
            for part, n in parameters.items()
            if n
        )
        reporter.say(f'{sum(parameters.values()):,} parameters: {listing}')
        longer = f', every {data.long_every}th of {data.long_length}' if data.long_every else ''
        reporter.say(f'batches of {data.batch_size} × {data.segment_length} ticks{longer} on {self.devices}')
        if not self.pieces.spec.action.known and not self.pieces.model.action.latent:
            reporter.say(action.SILENCE)

    def _check_batch(self, batch: types.Ticks) -> None:
        try:
            types.check_ticks(batch, self.pieces.spec)
        except AssertionError as error:
            raise ValueError(f'The data do not have the shapes their own spec gives: {error}') from error
