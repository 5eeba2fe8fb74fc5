"""The training loop: a plain one, that can be killed at any moment and go on as if it had not been."""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from neuralop_kit.solvers.errors import ArgumentError, CheckpointError, NonFiniteError
from neuralop_kit.training import distributed, files, run_state
from neuralop_kit.training.checkpoint import CheckpointFolder, Checkpoints
from neuralop_kit.training.data_order import Batches, PairDataset, as_datasets, check_named
from neuralop_kit.training.evaluation import Metric, check_data, evaluate
from neuralop_kit.training.logs import JsonLines, Record
from neuralop_kit.training.losses import relative_l2
from neuralop_kit.training.progress import EarlyStopping, Progress, RunningLoss
from neuralop_kit.training.random_state import RandomSource
from neuralop_kit.training.schedules import PerEpoch
from neuralop_kit.training.steps import BatchObjective, check_parameters, clean_weights, step_for, training_weights
from neuralop_kit.training.wrapping import place_of, unwrapped

# Reading the loss makes the host wait for a GPU, so there it is looked at only so often, and before every checkpoint.
CHECK_INTERVAL_ON_GPU = 32


class Trainer:
    """Trains a model on pairs of fields, with any optimizer, at one resolution or several.

    Args:
        model: an ``nn.Module``, compiled or not; its device and dtype are where the batches go.
        optimizer: any of torch's or ours; :mod:`neuralop_kit.training.steps` says how its needs are known.
        loss: ``(prediction, target) -> scalar``, a mean over the batch. Optimizers that take residual vectors need an
            object with a method ``residual`` as well: ``RelativeL2(domain)``.
        metrics: further measures by name, evaluated with the loss: ``(prediction, target) -> scalar``.
        scheduler: a torch scheduler moves after every epoch, one wrapped as ``PerStep(scheduler)`` after every step.
        clip_gradient: largest norm of the whole gradient, positive; ``None`` leaves it.
        autocast: ``torch.bfloat16`` (or ``float16``, with loss scaling) for what tolerates it; FFTs stay in fp32.
        early_stopping: ends training when the monitored loss stalls. Monitored is the loss on the first dataset of
            ``valid``, or the training loss without any.
        folder: of this run: checkpoints, ``metrics.jsonl``. ``None`` writes nothing.
        checkpoints: when, and how many stay.
        callbacks: each is called with the record of every epoch, in rank 0.
        generators: random streams of your own that a resumed run should continue, torch or numpy.
        progress: a bar; ``None`` shows it in terminals only.

    Under ``torchrun`` (see ``process_group``) the model is wrapped in DistributedDataParallel, ``batch_size`` stays the
    size of the joined batch, and only rank 0 writes. To train on something else than ``loss(model(input), target)``,
    override :meth:`training_loss`.

    Raises:
        ArgumentError: none of the optimizer's parameters is the model's.

    >>> from torch.utils.data import TensorDataset
    >>> u = torch.linspace(0, 1, 96).reshape(6, 1, 16)
    >>> model = nn.Conv1d(1, 1, 3, padding="same")
    >>> trainer = Trainer(model, torch.optim.Adam(model.parameters(), lr=1e-2), loss=relative_l2)
    >>> history = trainer.fit(TensorDataset(u, 2 * u), epochs=3, batch_size=2, valid={"16": TensorDataset(u, 2 * u)})
    >>> history[-1]["16/loss"] < history[0]["16/loss"]
    True
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        loss: Metric = relative_l2,
        metrics: Mapping[str, Metric] | None = None,
        scheduler: LRScheduler | PerEpoch | None = None,
        clip_gradient: float | None = None,
        autocast: torch.dtype | None = None,
        early_stopping: EarlyStopping | None = None,
        folder: str | os.PathLike[str] | None = None,
        checkpoints: Checkpoints | None = None,
        callbacks: Sequence[Callable[[Record], None]] = (),
        generators: Sequence[RandomSource] = (),
        progress: bool | None = None,
    ) -> None:
        self.model = unwrapped(model)
        self.device, self.dtype = place_of(self.model)
        self.network = model
        self.local_network = model.module if isinstance(model, DistributedDataParallel) else model
        if distributed.is_distributed() and not isinstance(model, DistributedDataParallel):
            self.network = DistributedDataParallel(
                model, device_ids=[self.device] if self.device.type == "cuda" else None
            )
        self.optimizer = optimizer
        check_parameters(optimizer, self.model)
        self.loss = loss
        self.metrics: dict[str, Metric] = {"loss": loss, **(metrics or {})}
        self.schedule = PerEpoch(scheduler) if isinstance(scheduler, LRScheduler) else scheduler
        self.autocast = autocast
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=autocast is torch.float16)
        self.step = step_for(optimizer, clip_gradient=clip_gradient, scaler=self.scaler)
        self.early_stopping = early_stopping
        self.folder = None if folder is None else Path(folder)
        self.checkpoints = checkpoints or Checkpoints()
        self.store = None if self.folder is None else CheckpointFolder(self.folder, keep=self.checkpoints.keep)
        self.log = None if self.folder is None else JsonLines(self.folder / "metrics.jsonl")
        self.listeners: tuple[Callable[[Record], None], ...] = (*([self.log] if self.log else []), *callbacks)
        self.generators = tuple(generators)
        self.show_progress = progress

    def fit(
        self,
        train: PairDataset | Sequence[PairDataset],
        *,
        epochs: int,
        batch_size: int,
        valid: Mapping[str, PairDataset] | None = None,
        seed: int = 0,
        num_workers: int = 0,
        resume: bool = False,
    ) -> list[Record]:
        """Train until ``epochs`` epochs are complete; returns one record per epoch.

        Args:
            train: a dataset of pairs ``(input, target)``, or several, for example at different resolutions: every batch
                then comes from one of them.
            epochs: counted from the beginning of the run, also when it is resumed.
            batch_size: samples per optimizer step, of all processes together.
            valid: datasets evaluated after each epoch, by name; the first decides which epoch is the best.
            seed: of the order of the data, which depends on it and on the epoch alone.
            num_workers: processes that read ahead; the numbers do not depend on it.
            resume: go on from the last checkpoint in ``folder``, if there is one. A killed run ends with the same bits
                as one that was not.

        Raises:
            ArgumentError, ShapeError, NonFiniteError: the data cannot be trained on, or there is no folder to resume
                from; nothing was started.
            NonFiniteError: the loss became NaN or infinite; names the step and the last good checkpoint.
            CheckpointError: the folder holds another run (say ``resume=True``), is in use, or cannot be written.
        """
        datasets = as_datasets(train)
        valid = dict(check_named(valid or {}))
        self._check_arguments(datasets, valid, epochs, batch_size)
        if resume and self.store is None:
            raise ArgumentError("expected a folder to resume from, got none; give Trainer(folder=...)")
        state = Progress(seed=seed, batch_size=batch_size, sizes=[len(d) for d in datasets])  # type: ignore[arg-type]
        self.running = RunningLoss(self.device)
        with ExitStack() as stack:
            self.state = stack.enter_context(run_state.opened(self, state, resume=resume))
            stack.enter_context(training_weights(self.optimizer))
            batches_per_epoch = sum(-(-size // batch_size) for size in state.sizes)
            bar = stack.enter_context(self._bar(total=epochs * batches_per_epoch))
            while self.state.epoch < epochs and not self._has_stalled():
                began = time.perf_counter()
                self._train_epoch(datasets, bar, num_workers)
                self._close_epoch(valid, num_workers, time.perf_counter() - began, bar)
        return self.state.history

    def evaluate(
        self, datasets: Mapping[str, PairDataset], *, batch_size: int = 32, num_workers: int = 0
    ) -> dict[str, dict[str, float]]:
        """Loss and metrics on each dataset: ``{"64": {"loss": 0.01}, "128": ...}``, means over the samples."""
        was_training = self.network.training
        self.network.eval()
        options = {"batch_size": batch_size, "num_workers": num_workers}
        try:
            return {
                name: evaluate(self._predict, data, self.metrics, move=self._move, **options)
                for name, data in check_named(datasets).items()
            }
        finally:
            self.network.train(was_training)

    def load_best(self) -> None:
        """Put the weights of the best epoch into the model.

        Raises:
            CheckpointError: there is no folder, or no best checkpoint in it.
        """
        if self.store is None:
            raise CheckpointError("expected a trainer with a folder, got none; give Trainer(folder=...)")
        self.model.load_state_dict(self.store.load("best").model)

    def training_loss(self, source: Tensor, target: Tensor) -> Tensor:
        """What a gradient or closure optimizer reduces; override it to train on something else."""
        return self.loss(self.network(source), target)

    def training_residual(self, source: Tensor, target: Tensor) -> Tensor:
        """The signed vector that a residual optimizer reduces; override it with :meth:`training_loss`."""
        residual = getattr(self.loss, "residual", None)
        if residual is None:
            raise ArgumentError(
                f"expected a loss with a residual for {type(self.optimizer).__name__}, got {self.loss}; "
                "use RelativeL2(domain)"
            )
        return residual(self.network(source), target)

    def _train_epoch(self, datasets: Sequence[PairDataset], bar: Any, num_workers: int) -> None:
        """Every batch that the epoch still holds."""
        state = self.state
        self.network.train()
        batches = Batches(datasets, batch_size=state.batch_size, seed=state.seed, epoch=state.epoch)
        on_gpu = self.device.type == "cuda"
        for batch in batches.loader(start=state.position, num_workers=num_workers, pin_memory=on_gpu):
            objective = self._objective(*batch)
            loss = self.step(objective)
            state.step += 1
            state.position += 1
            self.running.add(loss, objective.num_samples, state.step)
            if self.schedule is not None:
                self.schedule.after_step()
            if state.step % self._check_interval == 0:
                self._check_loss()
            if self._checkpoint_is_due() and state.position < len(batches):
                self._check_weights()
                self._save()
            bar.update()

    def _close_epoch(self, valid: Mapping[str, PairDataset], num_workers: int, seconds: float, bar: Any) -> None:
        """Evaluate, record, move the schedule, write the checkpoint."""
        self._check_weights()
        state = self.state
        record: Record = {"epoch": state.epoch + 1, "step": state.step, "train_loss": self.running.mean()}
        record["learning_rate"] = float(self.optimizer.param_groups[0].get("lr", 0.0))
        distributed.share_buffers(self.model)
        with clean_weights(self.optimizer):
            measured = self.evaluate(valid, batch_size=state.batch_size, num_workers=num_workers)
        for name, values in measured.items():
            record |= {f"{name}/{metric}": value for metric, value in values.items()}
        monitored = record[f"{next(iter(valid))}/loss" if valid else "train_loss"]
        self._check_record(record)
        min_improvement = self.early_stopping.min_improvement if self.early_stopping else 0.0
        is_best = state.record_epoch(record, monitored, min_improvement=min_improvement)
        self.running.reset()
        if self.schedule is not None:
            self.schedule.after_epoch(monitored)
        bar.set_postfix(epoch=state.epoch, loss=f"{monitored:.3g}")
        # Logged before it is saved: what a killed run logged too much, the resumed one takes back.
        if distributed.rank() == 0:
            for listener in self.listeners:
                listener({**record, "seconds": round(seconds, 3)})
        self._save(is_best=is_best)

    def _objective(self, source: Tensor, target: Tensor, num_samples: int, num_joined: int) -> BatchObjective:
        source, target = self._move(source), self._move(target)

        def loss() -> Tensor:
            with self._precision():
                return self.training_loss(source, target)

        def residual() -> Tensor:
            with self._precision():
                return self.training_residual(source, target)

        return BatchObjective(loss, residual, num_samples, num_joined, self.device)

    def _predict(self, source: Tensor) -> Tensor:
        # Not through DDP: the processes may meet different numbers of batches here.
        with self._precision():
            return self.local_network(source)

    def _move(self, field: Tensor) -> Tensor:
        dtype = self.dtype if field.is_floating_point() else field.dtype
        return field.to(self.device, dtype, non_blocking=True)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    def _has_stalled(self) -> bool:
        return self.early_stopping is not None and self.state.stale >= self.early_stopping.patience

    @property
    def _check_interval(self) -> int:
        return 1 if self.device.type == "cpu" and distributed.world_size() == 1 else CHECK_INTERVAL_ON_GPU

    def _checkpoint_is_due(self) -> bool:
        every = self.checkpoints.every_steps
        return every is not None and self.state.step % every == 0

    def _bar(self, *, total: int) -> Any:
        hidden: bool | None = None if self.show_progress is None else not self.show_progress
        return tqdm(total=total, initial=self.state.step, disable=hidden if distributed.rank() == 0 else True)

    def _check_arguments(
        self, train: Sequence[PairDataset], valid: Mapping[str, PairDataset], epochs: int, batch_size: int
    ) -> None:
        if epochs < 1 or batch_size < 1:
            raise ArgumentError(f"expected epochs >= 1 and batch_size >= 1, got {epochs} and {batch_size}; raise them")
        named = {f"train {i}" if len(train) > 1 else "train": dataset for i, dataset in enumerate(train)}
        for name, dataset in valid.items():
            (named[f"valid {name}"],) = as_datasets(dataset)
        check_data(self.model, named, move=self._move)

    def _check_loss(self) -> None:
        bad = self.running.first_bad_step()
        if bad is not None:
            raise self._not_finite("a finite loss", "NaN or infinity", bad)

    def _check_weights(self) -> None:
        """Nothing is evaluated or saved that has lost its meaning."""
        self._check_loss()
        bad = files.first_not_finite(self.model.state_dict())
        if bad is not None:
            raise self._not_finite("finite weights", f"NaN or infinity in {bad!r}", self.state.step)

    def _check_record(self, record: Record) -> None:
        for name, value in record.items():
            if not math.isfinite(value):
                raise self._not_finite(f"a finite {name}", str(value), self.state.step)

    def _not_finite(self, expected: str, got: str, step: int) -> NonFiniteError:
        last = None if self.store is None else self.store.path_of("latest")
        return NonFiniteError(
            f"expected {expected}, got {got} in epoch {self.state.epoch + 1}, step {step}; lower the learning rate, "
            f"clip gradients or look at the data. Last good checkpoint: {last or 'none'}"
        )

    def _save(self, *, is_best: bool = False) -> None:
        if self.store is None:
            return
        with clean_weights(self.optimizer):
            snapshot = run_state.capture(self)
            if distributed.rank() == 0:
                self.store.save(self.state.step, snapshot, best=is_best)
