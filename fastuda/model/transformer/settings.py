"""What the recipe's tables of transformers have in common; no torch."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from fastuda.model.transformer.heads.kind import HeadKind
from fastuda.recipe.model import Model

MOST_CHANNELS = 4096
_MOST_PIXELS = 32768


class TransformerTable(Model):
    """A transformer and its head."""

    set_by_weights: ClassVar[tuple[str, ...]] = ("input", "head", "head_channels", "detail", "lora", "lora_alpha")
    stride: ClassVar[int]
    """Pixels from one position of the finest map to the next."""

    head: HeadKind = "mlp"
    """What classifies: `mlp`, SegFormer's, which fuses all maps by a 1×1 convolution; `daformer`, by dilated ones;
    `linear`, a 1×1 convolution on the last map."""
    head_channels: Annotated[int, Field(ge=1, le=MOST_CHANNELS)] = 256
    """Width of the heads `mlp` and `daformer`. SegFormer's own are 256 for mit-b0 and mit-b1, 768 above."""
    detail: Annotated[int, Field(ge=0, le=_MOST_PIXELS)] = 0
    """Side of HRDA's detail, a square that is seen at full size, pixels; the whole image is then seen at half its size,
    and an attention says, a class at a time, which is heard (Hoyer et al., ECCV '22). In training one detail a pass, at
    a random place; for teachers and evaluations they slide over the whole. 0: one scale."""
    detail_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    """λ_d: share of the detail's own cross-entropy in a loss; the rest is that of the whole answer."""
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How often a block is left out for a sample, in training."""
    lora: Annotated[int, Field(ge=0, le=1024)] = 0
    """Rank of low-rank updates of the attention's projections (Hu et al., ICLR '22), which then train in place of the
    encoder, at `lr_backbone`; 0 trains the encoder itself."""
    lora_alpha: Annotated[float, Field(gt=0, le=65536)] = 16.0
    """Those updates are scaled by it, over their rank."""

    @model_validator(mode="after")
    def _whole_positions(self) -> Self:
        if self.detail and (self.detail % self._step or not self.encoder_positions((self.detail, self.detail))):
            side = self._fitting(self.detail, shrink=1)
            raise ValueError(
                f"detail = {self.detail}: has to be a multiple of {self._step} that the encoder takes, such as {side}"
            )
        return self

    @property
    def libraries(self) -> tuple[str, ...]:
        return ("transformers", "peft") if self.lora else ("transformers",)

    @abstractmethod
    def encoder_positions(self, size: tuple[int, int]) -> int:
        """Positions of the encoder's finest map for an image of `size` (width, height); 0 where there is none."""

    def encoder_refuses(self, size: tuple[int, int]) -> str | None:
        """Why the encoder takes no image of `size` (width, height); None where it does."""
        return super().refuses(size)

    def positions(self, size: tuple[int, int]) -> int:
        if not self.detail:
            return self.encoder_positions(size)
        return 0 if self.refuses(size) else (size[0] // self.stride) * (size[1] // self.stride)

    def refuses(self, size: tuple[int, int]) -> str | None:
        if not self.detail:
            return self.encoder_refuses(size)
        least = self._fitting(self.detail, shrink=2)
        if all(side >= least and side % self._step == 0 for side in size):
            return None
        nearest = [max(least, -(-side // self._step) * self._step) for side in size]
        return (
            f"with model.detail = {self.detail} sides have to be multiples of {self._step}, and {least} at least: "
            f"{nearest} is"
        )

    @property
    def _step(self) -> int:
        """Pixels that a position of the image at half its size stands for."""
        return 2 * self.stride

    def _fitting(self, at_least: int, shrink: int) -> int:
        """The smallest multiple of the step from there on whose `shrink`-th part the encoder takes."""
        side = -(-at_least // self._step) * self._step
        while not self.encoder_positions((side // shrink, side // shrink)):
            side += self._step
        return side
