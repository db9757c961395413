"""What training changes: the student, its averaged copy, the optimiser, and the iteration number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from fastuda.distributed.ranks import ALONE, Ranks
from fastuda.method.average import Average
from fastuda.method.flat_update import FlatUpdate, Part
from fastuda.method.leaf_gradients import LeafGradients
from fastuda.method.optimizer import made_optimizer, parameters_of, state_of
from fastuda.method.over_ranks import OverRanks
from fastuda.method.repeated_sgd import RepeatedSGD
from fastuda.method.schedule import Schedule
from fastuda.method.update_rules import move
from fastuda.model.segmenter import Segmenter
from fastuda.recipe import Distributed, Optimizer


@dataclass
class TrainingState:
    """One stage's training state; everything an iteration updates, on one device.

    The schedule and the average are updated on the device, from the device's own iteration number,
    so that an iteration needs nothing from the host and can be captured in a graph.
    """

    student: Segmenter
    ema: AveragedModel
    """Parameters averaged every iteration; buffers follow at each evaluation (protocol row 4)."""
    optimizer: torch.optim.Optimizer
    """All that it remembers is there from the beginning: a step never allocates what the next one needs."""
    scaler: torch.amp.GradScaler
    """Scales losses up for fp16's backward pass; does nothing in other precisions."""
    iteration: Tensor
    """int64 scalar: iterations done."""
    first_nonfinite: Tensor
    """int64 scalar: the first iteration whose loss was not finite, −1 while there is none."""
    schedule: Schedule
    average: Average
    """How `ema` follows the student."""
    flat: FlatUpdate | None = None
    """The update on flat tensors; without it torch's optimiser and average are called one after the other."""
    reference: Segmenter | None = None
    """A frozen network in eval mode whose features terms compare the student's with; where a term asks for one."""
    ranks: Ranks = ALONE
    """Those that train together; all of them hold the same state after every iteration."""
    over_ranks: OverRanks | None = None
    """How gradients, losses and statistics become those of all ranks; None where there is one."""

    @classmethod
    def begin(
        cls,
        student: Segmenter,
        settings: Optimizer,
        num_iterations: int,
        ema_decay: float,
        *,
        ema_rises: bool = False,
        scaled: bool = False,
        flat: bool = False,
        precision: torch.dtype | None = None,
        reference: Segmenter | None = None,
        ranks: Ranks = ALONE,
        distributed: Distributed | None = None,
    ) -> TrainingState:
        """A fresh stage from `student`: the optimiser (protocol row 21), EMA = student.

        `ema_decay` and `ema_rises` are those of the `Average`. `scaled` turns the loss scaler on, which fp16 needs.
        `flat` lays everything out for a `FlatUpdate`, which keeps the weights of convolutions in the passes'
        `precision` too; it knows no scaler. `distributed` says what `ranks` share.
        """
        assert not (flat and scaled)
        device = next(student.parameters()).device
        iteration = torch.zeros((), dtype=torch.int64, device=device)
        optimizer = made_optimizer(student, settings, iteration, flat=flat)
        scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        scaler.scale(torch.zeros((), device=device))  # makes its tensors, which it otherwise does at the first loss
        shared = distributed or Distributed()
        factor = shared.rate_factor(ranks.size)
        ema = AveragedModel(student)
        ema.requires_grad_(False)
        state = cls(
            student=student,
            ema=ema,
            optimizer=optimizer,
            scaler=scaler,
            iteration=iteration,
            first_nonfinite=torch.full((), -1, dtype=torch.int64, device=device),
            schedule=Schedule(settings, tuple(factor * g["base_rate"] for g in optimizer.param_groups), num_iterations),
            average=Average(ema_decay, ema_rises),
            reference=reference,
            ranks=ranks,
        )
        if flat:
            state.flat = FlatUpdate(student, state.averaged, optimizer, precision)
        if not ranks.alone:
            state.over_ranks = OverRanks(student, state.flat or LeafGradients(optimizer), ranks, shared)
        return state

    @property
    def worker(self) -> Segmenter:
        """The student as passes go through it: itself, or its twin with weights in the passes' precision."""
        return self.student if self.flat is None else self.flat.worker

    def begin_iteration(self) -> None:
        """Set the learning rates and forget the gradients of the iteration before."""
        self.optimizer.zero_grad()
        if self.flat is None:
            self.set_learning_rates()
        else:
            self.flat.clear()
        if self.over_ranks is not None:
            self.over_ranks.begin_iteration()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar `loss` to the student's."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.flat is None:
            _unshare_gradients(self.student)
        else:
            self.flat.collect()  # nothing is added in place, so equal gradients may share memory
        if self.over_ranks is not None:
            self.over_ranks.after_backward()

    def all_ranks(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Detached losses: each the mean over the ranks, where there are several."""
        losses = {name: loss.detach() for name, loss in losses.items()}
        return losses if self.over_ranks is None else self.over_ranks.mean(losses)

    def end_iteration(self, loss: Tensor, optimised: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
        """Move student and average along the gradients, remember a first non-finite `loss`, count the iteration.

        `optimised` hands back a function's compiled form, or the function itself; it is asked for flat updates alone.
        """
        if self.over_ranks is not None:
            self.over_ranks.end_iteration()
        if self.flat is None:
            self.step_optimizer()
            self.finish_iteration(loss)
            return
        with torch.no_grad():
            optimised(_end_flat)(
                self.flat.parts(), self.iteration, self.first_nonfinite, self._rates(), loss.detach(), self.schedule,
                self.average,
            )  # fmt: skip
        self.flat.clear()

    @torch.no_grad()
    def set_learning_rates(self) -> None:
        """The schedule's rates at this iteration, written into the optimiser's tensors (row 21)."""
        self.schedule.write(self._rates(), self.iteration)

    def step_optimizer(self) -> None:
        """Move the student along its gradient, clipped if asked for; with a scaler, unless the gradient overflowed."""
        clip_norm = self.schedule.settings.clip_norm
        if clip_norm is not None or isinstance(self.optimizer, RepeatedSGD):
            self.scaler.unscale_(self.optimizer)  # once; the repeating optimiser would at every update
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters_of(self.optimizer), clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    @torch.no_grad()
    def finish_iteration(self, loss: Tensor) -> None:
        """Update the average (row 4), remember a first non-finite `loss`, count the iteration."""
        self.average.update(list(self.ema.module.parameters()), list(self.student.parameters()), self.iteration)
        _count(self.iteration, self.first_nonfinite, loss)

    def follow_weights(self) -> None:
        """Tell the low-precision copies, if there are any, that the student's weights were written from outside."""
        if self.flat is not None:
            self.flat.refresh()

    def _rates(self) -> list[Tensor]:
        """The learning rates of the optimiser's groups."""
        return [group["lr"] for group in self.optimizer.param_groups]

    @property
    def remembered(self) -> list[Tensor]:
        """What the optimiser remembers of all that it moves."""
        return [value for one in parameters_of(self.optimizer) for value in state_of(self.optimizer, one).values()]

    def tensors(self) -> list[Tensor]:
        """Every tensor that an iteration changes, but for the scaler's own."""
        models = [*self.student.state_dict().values(), *self.ema.state_dict().values()]
        copies = [] if self.flat is None else self.flat.tensors()
        return [*models, *self.remembered, *copies, *self._rates(), self.iteration, self.first_nonfinite]

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """While entered, iterations run as ever; afterwards state and random generators are as they were before."""
        device, tensors, training = self.iteration.device, self.tensors(), self.student.training
        kept, scaler = [tensor.clone() for tensor in tensors], self.scaler.state_dict()
        with torch.random.fork_rng([device.index] if device.type == "cuda" else []):
            try:
                yield
            finally:
                with torch.no_grad():
                    for tensor, before in zip(tensors, kept, strict=True):
                        tensor.copy_(before)
                self.scaler.load_state_dict(scaler)
                self.reset_step()
                self.student.train(training)

    def silent(self) -> AbstractContextManager[None]:
        """While entered, iterations are of this rank alone: for one that leaves no trace and may fail here alone."""
        return nullcontext() if self.over_ranks is None else self.over_ranks.silent()

    def reset_step(self) -> None:
        """Forget gradients, and what an interrupted optimiser step left in the scaler and the optimiser."""
        self.optimizer.zero_grad()
        if self.over_ranks is not None:
            self.over_ranks.forget()
        if self.flat is not None:
            self.flat.clear()
        if self.scaler.is_enabled():
            self.scaler._per_optimizer_states.clear()
        for name in ("grad_scale", "found_inf"):
            if hasattr(self.optimizer, name):
                delattr(self.optimizer, name)

    @property
    def averaged(self) -> Segmenter:
        """The averaged model; its BatchNorm buffers are only current after `evaluation_model`."""
        model = self.ema.module
        assert isinstance(model, Segmenter)
        return model

    @torch.no_grad()
    def evaluation_model(self) -> Segmenter:
        """The averaged model with the student's BatchNorm buffers, in eval mode (protocol row 4)."""
        model = self.averaged
        for averaged, current in zip(model.buffers(), self.student.buffers(), strict=True):
            averaged.copy_(current)
        return model.eval()


def _count(iteration: Tensor, first_nonfinite: Tensor, loss: Tensor) -> None:
    is_first = (first_nonfinite < 0) & ~torch.isfinite(loss)
    first_nonfinite.copy_(torch.where(is_first, iteration, first_nonfinite))
    iteration.add_(1)


def _end_flat(
    parts: list[Part],
    iteration: Tensor,
    first_nonfinite: Tensor,
    rates: list[Tensor],
    loss: Tensor,
    schedule: Schedule,
    average: Average,
) -> None:
    """All that ends an iteration, in one function to compile."""
    schedule.write(rates, iteration)
    move(parts, schedule.settings, average, iteration)
    _count(iteration, first_nonfinite, loss)


def _unshare_gradients(model: Segmenter) -> None:
    """Give every parameter a gradient in memory of its own.

    Where two parameters have the same gradient (the biases of two branches that are added, say), compiled
    code hands one buffer to both, and the next backward pass would add to it twice.
    """
    seen = set()
    for parameter in model.parameters():
        if parameter.grad is None:
            continue
        place = (parameter.grad.untyped_storage()._cdata, parameter.grad.storage_offset())
        if place in seen:
            parameter.grad = parameter.grad.clone()
        seen.add(place)
