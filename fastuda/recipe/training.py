"""Recipe tables about training: stages, evaluation, precision."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny, model_validator

from fastuda.recipe.optimizer import Optimizer, Sgd
from fastuda.recipe.section import (
    BatchSize,
    Interval,
    Iterations,
    Section,
    Size,
    Switch,
    Threads,
)


class Warmup(Section):
    """Source-only training before adaptation (protocol row 22)."""

    of_warmup: ClassVar[tuple[str, ...] | None] = None

    iterations: Iterations = 40_000
    """Iterations with L_s alone; 0 or `--init FILE` skips the stage."""
    optimizer: SerializeAsAny[Optimizer] = Sgd()
    """The stage's own optimiser."""


class Train(Section):
    """Length of the adaptation; batch and rhythm of both stages."""

    of_warmup: ClassVar[tuple[str, ...] | None] = (
        "batch_size",
        "evaluate_every",
        "log_every",
        "checkpoint_every",
        "checkpoints_kept",
    )

    iterations: Iterations = 250_000
    """Adaptation iterations; 0 trains on the source alone, and with `eval.batch_norm = "target"` adapts the statistics
    of that network alone."""
    batch_size: BatchSize = 2
    """Images a domain, an iteration and a process."""
    evaluate_every: Interval | None = None
    """Iterations between evaluations; without it, one pass over the target images (protocol row 21)."""
    log_every: Interval = 50
    """Iterations between rows of `log.jsonl`."""
    checkpoint_every: Interval | None = None
    """Iterations between checkpoints, besides those at every evaluation; a killed run repeats what came after the
    last."""
    checkpoints_kept: Annotated[int, Field(ge=1, le=1000)] = 2
    """How many states `--resume` may go on from are kept: the newest, and its elders in case it is damaged."""
    labels: Literal["source", "target"] = "source"
    """Whose labelled images L_s of the adaptation is on; `target` is no adaptation but its ceiling: trained on the
    target's own training labels, which nothing else ever reads. It needs `parts = []`."""
    optimizer: SerializeAsAny[Optimizer] = Sgd()
    """The adaptation's optimiser."""


class Evaluation(Section):
    """How a model is scored (protocol row 23)."""

    of_warmup: ClassVar[tuple[str, ...] | None] = (
        *("size", "window", "window_step", "protocol", "subsets", "pictures", "flip", "scales"),
    )

    size: Size = (1280, 640)
    """Width and height of the network's input."""
    window: Size | None = None
    """Sliding-window evaluation: the network sees windows of this width and height, and where they overlap its logits
    are averaged (mmseg's `slide`); without it the whole image, as in the paper."""
    window_step: Size | None = None
    """Pixels from one window to the next, across and down; without it two thirds of the window."""
    protocol: Literal["full", "released"] = "full"
    """`full`: at the label's own size; `released`: labels resized to `size`."""
    subsets: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Further means over named classes, e.g. SYNTHIA's 13."""
    pictures: Annotated[int, Field(ge=0, le=1000)] = 6
    """Rows of the picture grid."""
    flip: bool = False
    """Test-time augmentation: average the answer with the mirrored image's; false in the paper."""
    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=4)], ...], Field(min_length=1, max_length=32)] = (1.0,)
    """Test-time augmentation: average the answers at these multiples of `size`; 1 alone in the paper."""
    batch_norm: Literal["running", "target"] = "running"
    """Statistics at the adaptation's evaluations: those gathered in training, or gathered anew on target training
    images. The source-only stage is scored with its own."""
    pseudo_labels: bool = False
    """At the adaptation's evaluations, also hold what the teacher says of the evaluation images, at
    `views.target_size`, against their labels, all of them and those above `method.tau`, whatever `method.confident`
    says: to look at, never to train or to choose. Moves no number."""

    @property
    def window_steps(self) -> Size:
        """Pixels between windows, across and down; there must be a window."""
        assert self.window is not None
        return self.window_step or (max(1, self.window[0] * 2 // 3), max(1, self.window[1] * 2 // 3))

    @model_validator(mode="after")
    def _check(self) -> Evaluation:
        if self.window_step is not None:
            if self.window is None:
                raise ValueError("window_step goes with `window`, and there is none")
            if self.window_step[0] > self.window[0] or self.window_step[1] > self.window[1]:
                raise ValueError(
                    f"window_step = {list(self.window_step)} leaves gaps between windows of {list(self.window)}"
                )
        return self


class Runtime(Section):
    """How the numbers are computed, not which; "auto" is on where the device gains by it, which is a GPU."""

    of_warmup: ClassVar[tuple[str, ...] | None] = None

    amp: Literal["auto", "bf16", "fp16", "none"] = "auto"
    """Autocast. `auto`: on a GPU bf16, or fp16 with a loss scaler where it has no bf16; on a CPU fp32. `bf16` also on a
    CPU, if it has instructions for it. `none`: fp32."""
    tf32: bool = True
    """Convolutions of fp32 passes on a GPU may round to TF32; matrix products never do."""
    cudnn_benchmark: bool = True
    """Let cuDNN time its convolutions and keep the fastest; never when `deterministic`."""
    channels_last: bool = True
    """NHWC activations."""
    grouped: Switch = "auto"
    """Mixed views in one pass with BatchNorm statistics a view; otherwise one after another."""
    gemm_aspp: Switch = "auto"
    """The classifiers as one matrix product and shifted sums; otherwise as dilated convolutions."""
    fused_batch_norm: Switch = "auto"
    """BatchNorm, the addition and ReLU behind it in one pair of kernels; otherwise as separate operations."""
    flat_update: Switch = "auto"
    """Low-precision weights made once an iteration, and gradients, SGD and average in one go over flat tensors;
    otherwise a cast in every pass and torch's own optimiser, as always under fp16's loss scaler."""
    compile: Switch = "auto"
    """torch.compile the network and the losses."""
    cuda_graph: Switch = "auto"
    """Capture the whole iteration in one CUDA graph and replay it."""
    loader_threads: Threads = 4
    """DALI's CPU threads a pipeline."""
    watchdog_minutes: Annotated[float, Field(ge=0, le=10_000)] = 30.0
    """Without progress for so long a run says what its threads do, and a command ends, to be gone on with; 0 never."""
    deterministic: bool = False
    """Use kernels that do not differ from run to run, where there are such (on CPU: all)."""
