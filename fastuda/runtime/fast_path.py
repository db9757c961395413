"""Which of the recipe's speed switches hold on a device: what "auto" means, in one place."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastuda.recipe import Runtime


@dataclass(frozen=True)
class FastPath:
    """How the numbers of a run are computed on one device; every part can be off without another."""

    amp: torch.dtype | None
    """Autocast type, None for fp32."""
    scaled: bool
    """Whether losses are scaled up for the backward pass, as fp16 needs it."""
    channels_last: bool
    grouped: bool
    gemm_aspp: bool
    fused_batch_norm: bool
    flat_update: bool
    compiled: bool
    graphed: bool

    @classmethod
    def of(cls, settings: Runtime, device: torch.device) -> FastPath:
        """Resolve a recipe's switches; `declined` says what was asked for and cannot be had."""
        on_gpu = device.type == "cuda"
        amp = _amp(settings, device)

        def resolved(switch: object) -> bool:
            return on_gpu if switch == "auto" else bool(switch)

        return cls(
            amp=amp,
            scaled=amp == torch.float16,
            channels_last=settings.channels_last,
            grouped=resolved(settings.grouped),
            gemm_aspp=resolved(settings.gemm_aspp),
            fused_batch_norm=resolved(settings.fused_batch_norm),
            flat_update=amp != torch.float16 and resolved(settings.flat_update),
            compiled=resolved(settings.compile),
            graphed=on_gpu and resolved(settings.cuda_graph),
        )


def declined(settings: Runtime, device: torch.device) -> list[str]:
    """What a recipe asks for and the device cannot do, and what is done in its place; a sentence each."""
    said = []
    if settings.cuda_graph is True and device.type != "cuda":
        said.append("runtime.cuda_graph = true: there are no CUDA graphs on a CPU; every iteration is launched")
    if settings.amp == "fp16" and device.type != "cuda":
        said.append("runtime.amp = fp16: no CPU gains by it; computed in fp32")
    if settings.amp == "bf16" and device.type != "cuda" and not _cpu_has_bf16():
        said.append("runtime.amp = bf16: no instructions for it are known of this CPU; computed in fp32")
    if settings.flat_update is True and _amp(settings, device) == torch.float16:
        said.append("runtime.flat_update = true: not with fp16, whose loss scaler needs torch's own optimiser")
    if settings.amp in ("auto", "bf16") and _amp(settings, device) == torch.float16:
        said.append("this GPU has no bf16: autocast to fp16, with a loss scaler")
    return said


def _amp(settings: Runtime, device: torch.device) -> torch.dtype | None:
    if device.type != "cuda":
        return torch.bfloat16 if settings.amp == "bf16" and _cpu_has_bf16() else None
    if settings.amp == "none":
        return None
    if settings.amp == "fp16":
        return torch.float16
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def _cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 itself (AVX512-BF16, AMX, Arm's bf16); elsewhere it is slower than fp32."""
    if not hasattr(torch.cpu, "get_capabilities"):  # not in every torch that fastuda takes
        return False
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
