"""What a paste mask that is not made of classes is to the mix."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.method.draws import Draws
from fastuda.recipe.mask import Mask


class PasteMask(Mask):
    """A recipe's `[mix.mask]` that says itself which pixels are pasted."""

    @abstractmethod
    def paste(self, source: DomainBatch, target: DomainBatch, draws: Draws) -> Tensor:
        """bool [B, H, W]: where the weak source crop goes into the target crop; the same at every call of an iteration.

        It asks no tensor for a Python number, and draws from `draws` alone.
        """
