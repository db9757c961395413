"""Recipe tables about training: network, optimiser, stages, evaluation, precision."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fastuda.recipe.section import (
    BatchSize,
    Dilation,
    Interval,
    Iterations,
    NonNegative,
    Rate,
    Section,
    Size,
    Switch,
    Threads,
)


class Model(Section):
    """The network: DeepLab-v2 on a ResNet (protocol rows 16-20)."""

    depth: Literal[18, 50, 101] = 101
    """ResNet depth."""
    width: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Width factor of every stage but the stem."""
    stride_on: Literal["1x1", "3x3"] = "1x1"
    """Which convolution of a bottleneck strides: caffe's first 1×1 or torchvision's 3×3."""
    pool_padding: Literal[0, 1] = 1
    """Padding of the stem's 3×3/2 max-pool, which uses `ceil_mode` (0 in pure Caffe networks)."""
    aspp: Annotated[tuple[Dilation, ...], Field(min_length=1, max_length=16)] = (6, 12, 18, 24)
    """Dilations of the classifier's branches; released weights need (6, 12) (protocol row 18)."""
    auxiliary: bool = True
    """A second classifier on layer3 (protocol row 16)."""
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of a new batch in BatchNorm's running statistics; below the usual 0.1 they remember more batches."""
    input: Literal["rgb-imagenet", "bgr-caffe"] = "rgb-imagenet"
    """Input convention: RGB mean/std, or BGR 0-255 minus the Caffe mean (protocol row 20)."""
    weights: str = "imagenet"
    """Backbone to start from: `imagenet` (torchvision's, downloaded once), a file, a URL, or `random`. The authors'
    own start is a ResNet-101 converted from Caffe, DeepLab_resnet_pretrained_init-f81d91e8.pth: give that file, as it
    is. torchvision's backbones were trained with the stride elsewhere, on the 3×3 (protocol row 17)."""
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{8,64}$")] | None = None
    """For `weights` given as a URL: the (beginning of the) SHA-256 that the file must have."""
    convention: Literal["auto", "torchvision", "caffe"] = "auto"
    """For a weights file whose keys do not tell: whose stride and input convention it follows."""


class Optimizer(Section):
    """SGD and its schedule (protocol row 21)."""

    lr_backbone: Rate = 7.5e-4
    """Learning rate of the pretrained layers, for an iteration's whole step. 7.5e-4 is the step of the published runs;
    the rate that the paper prints is 2.5e-4, which their optimiser took three times an iteration."""
    backbone_updates: Literal["one", "listed"] = "one"
    """Updates an iteration of a backbone parameter: one, or as many as the released optimiser's list names it (three,
    four in a block's shortcut, one for the stem), each at a third of `lr_backbone`, with one momentum and gradient."""
    lr_head: Rate = 2.5e-3
    """Learning rate of the classifiers."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum."""
    weight_decay: NonNegative = 5e-4
    """L2 penalty on every trained parameter."""
    poly_power: NonNegative = 0.9
    """lr · (1 − iteration / iterations) ** power."""
    ramp_up: Iterations = 0
    """Iterations over which the learning rate first rises linearly; 0 in the paper."""


class Warmup(Section):
    """Source-only training before adaptation (protocol row 22)."""

    iterations: Iterations = 40_000
    """Iterations with L_s alone; 0 or `--init FILE` skips the stage."""
    optimizer: Optimizer = Optimizer()
    """The stage's own optimiser."""


class Train(Section):
    """Length of the adaptation; batch and rhythm of both stages."""

    iterations: Iterations = 250_000
    """Adaptation iterations; 0 trains on the source alone."""
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
    optimizer: Optimizer = Optimizer()
    """The adaptation's optimiser."""


class Evaluation(Section):
    """How a model is scored (protocol row 23)."""

    size: Size = (1280, 640)
    """Width and height of the network's input."""
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
    """Statistics at evaluation: those gathered in training, or gathered anew on target training images."""


class Runtime(Section):
    """How the numbers are computed, not which; "auto" is on where the device gains by it, which is a GPU."""

    amp: Literal["auto", "bf16", "fp16", "none"] = "auto"
    """Autocast: on a GPU bf16, or fp16 with a loss scaler where it has no bf16; `none` and every CPU: fp32."""
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
    """Without progress for so long a run prints what every thread does and ends, to be gone on with; 0 never does."""
    deterministic: bool = False
    """Use kernels that do not differ from run to run, where there are such (on CPU: all)."""
