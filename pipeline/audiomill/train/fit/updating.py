"""The training loop: updates with gradient accumulation, evaluations, saved states. The same for one process and for many.

Nothing in it depends on when it was started: order, augmentation, masks and dropout are functions of the seed and the
update's number, so a run that was killed ends with the weights that it would have had (bit by bit on CPU).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.config.optimization import OptimizationConfig
from audiomill.errors import RunError
from audiomill.models.learner import Learner, Loss
from audiomill.train.clips import Clips
from audiomill.train.fit.augment import augmented, autocast, autocast_type, mixed
from audiomill.train.fit.batches import Update, updates, updates_an_epoch
from audiomill.train.fit.ema import EmaWeights, rate_share
from audiomill.train.fit.evaluate import Evaluation, evaluated
from audiomill.train.fit.loss_scaling import all_reduce_sum, sum_gradients, took_step
from audiomill.train.fit.processes import Worker
from audiomill.train.fit.state import Progress, States
from audiomill.train.unit_lm.sequences import Sequences

BETAS = (0.9, 0.98)
EPSILON = 1e-8
LOG_EVERY_S = 5.0


@dataclass(frozen=True)
class Labelled:
    """Clips, or sequences of tokens, with the labels that the learner made of them."""

    clips: Clips | Sequences
    labels: Sequence[Any]


_Told = Callable[[dict[str, Any]], None]


def run_updates(
    learner: Learner,
    train: Labelled,
    dev: Clips | None,
    states: States,
    config: OptimizationConfig,
    worker: Worker,
    report_progress: _Told,
) -> Progress:
    """Trains to the end; leaves the weights to keep (the best on `dev`, else the last) in the learner.

    Args:
        learner: the model.
        train: what it learns from.
        dev: what it is measured on.
        states: where it goes on from, and where it is saved.
        config: how.
        worker: which of the processes this is.
        report_progress: takes a row of numbers now and then.

    Returns:
        Where it ended.

    Raises:
        RunError: the loss is not a number any more.
    """
    run = _Run(learner, train, dev, states, config, worker, report_progress)
    run.restore()
    for update in run.remaining():
        run.step(update)
        if run.is_time_to_evaluate(update):
            run.evaluate(update)
        if run.has_stopped():
            break
        run.save_now_and_then(update)
    run.finish()
    return run.progress


class _Run:
    """State of one training run in this process."""

    def __init__(
        self,
        learner: Learner,
        train: Labelled,
        dev: Clips | None,
        states: States,
        config: OptimizationConfig,
        worker: Worker,
        report_progress: _Told,
    ) -> None:
        self._learner, self._train, self._dev, self._states = learner, train, dev, states
        self._config, self._worker, self._told = config, worker, report_progress
        self._budget = int(config.batch_seconds * MODEL_SAMPLE_RATE)
        self._batches_an_update = config.gradient_accumulation_steps * worker.size
        lengths = train.clips.num_samples
        self._an_epoch = updates_an_epoch(lengths, self._budget, config.seed, self._batches_an_update)
        self.num_updates = config.max_updates or max(1, round(config.epochs * self._an_epoch))
        self._every = config.evaluate_every or self._an_epoch
        warmup = int(config.warmup_ratio * self.num_updates)
        self._warmup = min(warmup, config.max_warmup_updates or warmup)
        assert config.learning_rate is not None and config.weight_decay is not None, "the recipe says them"
        self._highest = config.learning_rate
        parameters = [parameter for parameter in learner.model.parameters()]
        self._optimizer = torch.optim.AdamW(
            parameters, lr=self._highest, betas=BETAS, eps=EPSILON, weight_decay=config.weight_decay
        )
        self._average = EmaWeights(learner.model, config.ema_decay) if config.ema_decay else None
        self._precision = autocast_type(config.precision, worker.device)
        self._scaler = torch.amp.GradScaler(worker.device.type, enabled=self._precision is torch.float16)
        self.progress = Progress()
        self._saved_at = self._told_at = time.monotonic()
        self._sums = {"loss": 0.0, "count": 0.0, "audio_s": 0.0}
        self._loader = ThreadPoolExecutor(1)

    def restore(self) -> None:
        """Goes on from the last saved state, if there is one.

        Raises:
            RunError: the workers have different ones, on disks of their own.
        """
        state = self._states.latest()
        num_updates = float(0 if state is None else state["progress"]["num_updates"])
        (together,) = all_reduce_sum(self._worker, num_updates)
        if together != num_updates * self._worker.size:
            raise RunError(
                f"worker {self._worker.rank} would go on from update {num_updates:g}, others from another one; expected one --output that all see"
            )
        if state is None:
            return
        self.progress = Progress(**state["progress"])
        self._learner.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load(state["average"])

    def remaining(self) -> Iterator[Update]:
        if self.has_stopped():
            return
        yield from updates(
            self._train.clips.num_samples,
            self._budget,
            self._config.seed,
            self._batches_an_update,
            self.progress.num_updates,
            self.num_updates,
        )

    def step(self, update: Update) -> None:
        """One update of the weights."""
        config, model = self._config, self._learner.model
        model.train()
        self._learner.set_trainable(update.number, self.num_updates)
        share = rate_share(config.schedule, update.number, self.num_updates, self._warmup, config.hold_ratio)
        for group in self._optimizer.param_groups:
            group["lr"] = share * self._highest
        norm = None
        while norm is None:
            total, count, audio_s, numbers = self._backward(update)
            norm = self._apply(count, update.number)
        self.progress = self.progress.after_update(update.number + 1)
        self._log(update, total, count, audio_s, norm, share * self._highest, numbers)

    def _backward(self, update: Update) -> tuple[float, float, float, dict[str, float]]:
        """Gradients of an update; sums of all workers: loss, what it counts and seconds of audio; and what was told."""
        total, count, audio_s, numbers = 0.0, 0.0, 0.0, {}
        mine = update.batches[self._worker.rank :: self._worker.size]
        for at, (rows, picked) in enumerate(self._loaded(update, mine)):
            torch.manual_seed(self._seed_of(update.number, at))
            with autocast(self._precision, self._worker.device):
                loss = self._loss(rows, picked, update.number, at)
            self._scaler.scale(loss.total).backward()  # type: ignore[no-untyped-call]
            total, count = total + float(loss.total.detach()), count + loss.size
            audio_s += float(self._train.clips.num_samples[picked].sum()) / MODEL_SAMPLE_RATE
            numbers = loss.metrics
        total, count, audio_s = all_reduce_sum(self._worker, total, count, audio_s)
        if not math.isfinite(total):
            raise RunError(
                f"update {update.number}: the loss is {total}; the state of update {self._states.newest() or 0} is kept. "
                "Lower --learning-rate, raise --warmup-ratio, or use --precision fp32, in a new --output"
            )
        return total, count, audio_s, numbers

    def _loss(self, rows: list[NDArray[Any]], picked: NDArray[np.int64], number: int, at: int) -> Loss:
        labels = [self._train.labels[index] for index in picked]
        return self._learner.loss(rows, labels, self._train.clips.weights[picked], self._seed_of(number, at))

    def _seed_of(self, number: int, at: int) -> int:
        """Of this worker's batch `at`: by its place among those of all workers, so that their number changes no chance."""
        return mixed(self._config.seed, number, at * self._worker.size + self._worker.rank)

    def _apply(self, count: float, number: int) -> float | None:
        """Gradients of sums -> gradients of the mean over everything that all workers counted; then the step. Their norm, or
        None where the update is to be computed again, see `took_step`."""
        if self._worker.size > 1:  # before the scaler looks for numbers that are none: all workers must see the same
            sum_gradients(self._worker, [each for each in self._learner.model.parameters() if each.requires_grad])
        self._scaler.unscale_(self._optimizer)
        parameters = [each for each in self._learner.model.parameters() if each.grad is not None]
        for parameter in parameters:
            parameter.grad.div_(count)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self._config.max_grad_norm))
        has_stepped = took_step(self._scaler, self._optimizer, number)
        self._optimizer.zero_grad(set_to_none=True)
        if not has_stepped:
            return None
        if self._average is not None:
            self._average.add(self._learner.model)
        return norm

    def _loaded(
        self, update: Update, batches: list[NDArray[np.int64]]
    ) -> Iterator[tuple[list[NDArray[Any]], NDArray[np.int64]]]:
        """Rows of each batch, the next one prepared while this one is computed."""
        waiting: list[Future[list[NDArray[Any]]]] = [
            self._loader.submit(self._rows, update.number, picked) for picked in batches
        ]
        for future, picked in zip(waiting, batches, strict=True):
            yield future.result(), picked

    def _rows(self, number: int, picked: NDArray[np.int64]) -> list[NDArray[Any]]:
        clips, config = self._train.clips, self._config
        if not config.speed_augment and config.noise_snr is None:
            return [clips.pcm(index) for index in picked.tolist()]
        return [
            augmented(
                clips.pcm(index),
                config.speed_augment,
                config.noise_snr,
                np.random.default_rng([config.seed, number, index, 2]),
            )
            for index in picked.tolist()
        ]

    def is_time_to_evaluate(self, update: Update) -> bool:
        done = update.number + 1
        return self._dev is not None and (done % self._every == 0 or done == self.num_updates)

    def evaluate(self, update: Update) -> None:
        """WER on the dev clips; the best weights so far are kept."""
        assert self._dev is not None, "there are dev clips"
        with self._averaged():
            evaluation = Evaluation(0.0, ())
            if self._worker.is_first:
                evaluation = evaluated(self._learner, self._dev, self._budget, self._config.language)
            (wer,) = all_reduce_sum(self._worker, evaluation.wer)
            is_better = self.progress.best_wer is None or wer < self.progress.best_wer
            if is_better and self._worker.is_first:
                self._states.keep_best(self._learner.model)
        self.progress = self.progress.after_evaluation(wer, is_better)
        if self._worker.is_first:
            number = update.number + 1
            self._told(
                {
                    "update": number,
                    "epoch": number / self._an_epoch,
                    "dev_wer": wer,
                    "samples": list(evaluation.samples),
                }
            )

    def has_stopped(self) -> bool:
        """No better WER for too many evaluations."""
        return self._config.patience is not None and self.progress.num_worse >= self._config.patience

    def save_now_and_then(self, update: Update) -> None:
        is_time = time.monotonic() - self._saved_at > 60 * self._config.save_minutes
        (is_time_anywhere,) = all_reduce_sum(self._worker, float(is_time))
        if is_time_anywhere and update.number + 1 < self.num_updates:
            self._save()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self._worker.is_first:
            average = self._average.state() if self._average is not None else None
            self._states.save(
                {
                    "progress": self.progress._asdict(),
                    "model": self._learner.model.state_dict(),
                    "optimizer": self._optimizer.state_dict(),
                    "scaler": self._scaler.state_dict(),
                    "average": average,
                },
                self.progress.num_updates,
            )

    def finish(self) -> None:
        """Leaves the weights to keep in the learner."""
        self._save()
        self._loader.shutdown()
        best = self._states.best()
        if best is not None:
            self._learner.model.load_state_dict(best, strict=False)
        elif self._average is not None:
            self._average.give_to(self._learner.model)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in the model, while inside."""
        if self._average is None:
            yield
            return
        current = {name: value.detach().clone() for name, value in self._learner.model.state_dict().items()}
        self._average.give_to(self._learner.model)
        try:
            yield
        finally:
            self._learner.model.load_state_dict(current)

    def _log(
        self,
        update: Update,
        total: float,
        count: float,
        audio_s: float,
        norm: float,
        rate: float,
        numbers: dict[str, float],
    ) -> None:
        new = {"loss": total, "count": count, "audio_s": audio_s}
        sums = self._sums = {name: value + new[name] for name, value in self._sums.items()}
        elapsed = time.monotonic() - self._told_at
        done = update.number + 1
        if not self._worker.is_first or (elapsed < LOG_EVERY_S and done < self.num_updates and done % self._every):
            return
        self._told(
            {
                "update": done,
                "num_updates": self.num_updates,
                "epoch": done / self._an_epoch,
                "loss": sums["loss"] / max(sums["count"], 1e-9),
                "learning_rate": rate,
                "gradient_norm": norm,
                "x_real_time": sums["audio_s"] / max(elapsed, 1e-9),
                **numbers,
            }
        )
        self._sums = dict.fromkeys(sums, 0.0)
        self._told_at = time.monotonic()
