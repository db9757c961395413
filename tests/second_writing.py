"""One iteration written a second time from `method/PROTOCOL.md`: plainly, sample by sample, nothing from the method.

A network is anything that gives two heads' low-resolution logits; all else, from pixels to updated weights, is
spelt out here. `Reading` says which of the table's two columns is meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastuda.data.loading.batch import DomainBatch
from fastuda.model.deeplab.network import DeepLabV2

IGNORED = 255
LAMBDA_1, LAMBDA_2, AUXILIARY, DECAY = 0.1, 0.01, 0.1, 0.999
SCALE_PROTOTYPE, SCALE_PIXEL = 7.0, 20.0
MOMENTUM, WEIGHT_DECAY, POWER = 0.9, 5e-4, 0.9
LONG_TAIL = (12, 15, 16, 17, 18)
OPACITY = 0.9


@dataclass(frozen=True)
class Reading:
    """What is computed: the clean column or the released one, with or without row 25 and row 27."""

    released: bool = False
    edge: bool = False
    dsp: bool = False
    tau: float = 0.95
    lr_backbone: float = 7.5e-4
    lr_head: float = 2.5e-3
    num_iterations: int = 10


class Answer(NamedTuple):
    """What a prediction says of a crop, pixel by pixel: int64 [H, W] and float [H, W]."""

    label: Tensor
    confidence: Tensor
    two_head: Tensor


@dataclass
class SecondWriting:
    """Student, average and momentum of a training that goes by the table."""

    student: DeepLabV2
    reading: Reading
    iteration: int = 0
    average: dict[str, Tensor] = field(default_factory=dict)
    momentum: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.average = {name: p.detach().clone() for name, p in self.student.named_parameters()}

    def train_once(self, source: DomainBatch, target: DomainBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The terms of the loss, unweighted, with `total`; and the gradient of the total by parameter."""
        self.student.train()
        terms, weights = self._terms(source, target)
        total = sum((weights[name] * term for name, term in terms.items()), torch.zeros((), dtype=torch.float64))
        trained = {name: p for name, p in self.student.named_parameters() if p.requires_grad}
        gradients = dict(zip(trained, torch.autograd.grad(total, list(trained.values())), strict=True))
        self._update(gradients)
        return {name: term.detach() for name, term in {**terms, "total": total}.items()}, gradients

    def _terms(self, source: DomainBatch, target: DomainBatch) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Pass by pass in the order of row 19; the terms as soon as all that they need is there."""
        assert source.view is not None
        assert source.view_label is not None
        assert source.label is not None
        assert target.view is not None
        reading, labels, size = self.reading, source.label.long(), source.weak.shape[1:3]
        images = range(len(labels))

        # Rows 1, 16: the source view. Rows 2, 3: the target view, without gradient, on batch statistics.
        source_labels = source.view_label.long()
        terms = {"source": self._both_heads(self._pass(normalised(source.view)), source_labels, source_labels)}
        with torch.no_grad():
            view = self._pass(normalised(target.view))
        seen = [answer(view, i, size, target.view.shape[1:3], target.boxes[i]) for i in images]

        # Row 7: source pixels pasted, weak, into both target views.
        pasted = torch.stack([self._paste_mask(labels[i], source.class_keys[i]) for i in images])
        weak, strong = (torch.where(pasted[..., None], source.weak, under) for under in (target.weak, target.strong))
        label_st = torch.where(pasted, labels, stacked(seen, "label"))
        strong_logits = self._pass(self._softened(strong, target.strong, pasted))
        if reading.dsp:
            under = self._both_heads(strong_logits, stacked(seen, "label"), stacked(seen, "two_head"))
            auxiliary_st = torch.where(pasted, labels, stacked(seen, "two_head"))
            over = self._both_heads(strong_logits, label_st, auxiliary_st)
            terms["mix"] = OPACITY * over + (1 - OPACITY) * under
            terms["source_mix"] = self._source_mix(source, labels, pasted)
            return terms, {"source": 1.0, "mix": LAMBDA_1, "source_mix": 1.0}

        weak_logits = self._pass(normalised(weak))
        own = [answer(weak_logits, i, size, size, None) for i in images]
        in_hts = own if reading.released else seen
        if reading.released and reading.edge:
            with torch.no_grad():
                crop = self._pass(normalised(target.weak))
            in_hts = [answer(crop, i, size, size, None) for i in images]

        # Rows 8, 16: L_st.
        two_head = torch.where(pasted, labels, stacked(seen, "two_head"))
        auxiliary_st = stacked(own, "two_head") if reading.released else two_head
        terms["mix"] = self._both_heads(strong_logits, label_st, auxiliary_st)

        # Rows 9, 10, 25: x_hts, its labels and L_hts.
        confident = stacked(in_hts, "confidence") > reading.tau
        from_target = confident & ~pasted if reading.edge else confident
        over_source = strong if reading.released or reading.edge else target.strong
        shows = (confident | pasted if reading.edge else confident)[..., None]
        hts_main, hts_auxiliary = self._pass(normalised(torch.where(shows, over_source, source.strong)))
        label_hts = torch.where(from_target, stacked(in_hts, "label"), labels)
        count = 1 if reading.released else len(labels)
        terms["htcm"] = cross_entropy(hts_main[:count], label_hts[:count])

        if reading.edge:
            paste_band = torch.stack([band(one) for one in pasted])
            hts_band = torch.stack([band(one) for one in confident]) & ~pasted
            on_band = [torch.where(paste_band, one, IGNORED) for one in (label_st, auxiliary_st)]
            terms["edge_mix"] = self._both_heads(strong_logits, *on_band) * self._counts(paste_band)
            around = torch.where(hts_band, label_hts, IGNORED)
            terms["edge_htcm"] = cross_entropy(hts_main[:count], around[:count]) * self._counts(hts_band)
            shown = stacked(own, "two_head") if reading.released else stacked(in_hts, "label")
            of_auxiliary = torch.where(from_target, shown, labels)
            terms["edge_htcm_auxiliary"] = cross_entropy(hts_auxiliary[:count], of_auxiliary[:count])

        # Rows 12 to 14: the contrasts between weak and strong view, gradient through both.
        pairs = list(zip(weak_logits[0], strong_logits[0], strict=True))
        terms["pixel"] = torch.stack([pixel_contrast(*pair) for pair in pairs]).mean()
        known = torch.where(pasted, labels, torch.where(confident, stacked(in_hts, "label"), IGNORED))
        of_each = [prototype_contrast(*pairs[i], known[i]) for i in images[:count]]
        terms["prototype"] = torch.stack(of_each).sum() / len(labels)
        edge = {"edge_mix": LAMBDA_1, "edge_htcm": 0.1 * LAMBDA_1, "edge_htcm_auxiliary": 0.01 * LAMBDA_1}
        printed = {"source": 1.0, "mix": LAMBDA_1, "htcm": LAMBDA_1, "pixel": LAMBDA_2, "prototype": LAMBDA_2}
        return terms, printed | edge

    @staticmethod
    def _both_heads(logits: tuple[Tensor, Tensor], labels: Tensor, auxiliary_labels: Tensor) -> Tensor:
        """Row 16: the auxiliary head's cross-entropy weighs a tenth."""
        return cross_entropy(logits[0], labels) + AUXILIARY * cross_entropy(logits[1], auxiliary_labels)

    def _counts(self, bands: Tensor) -> bool:
        """Row 25: as released a band counts for all images or for none."""
        return not self.reading.released or all(bool(one.any()) for one in bands)

    def _softened(self, mixed: Tensor, under: Tensor, pasted: Tensor) -> Tensor:
        """Row 27: under a soft paste a share of the target's pixel stays."""
        over = normalised(mixed)
        if not self.reading.dsp:
            return over
        share = torch.where(pasted, torch.tensor(OPACITY, dtype=torch.float64), 1.0)[:, None]
        return share * over + (1 - share) * normalised(under)

    def _pass(self, images: Tensor) -> tuple[Tensor, Tensor]:
        main, auxiliary, *_ = self.student(images)
        assert auxiliary is not None
        return main, auxiliary

    def _paste_mask(self, labels: Tensor, keys: Tensor) -> Tensor:
        """Row 7, on the sorted list of what is present, ignored pixels first as -1."""
        present = sorted(-1 if value == IGNORED else int(value) for value in labels.unique())
        eligible = [value for value in present if value >= (5 if self.reading.released else 0)]
        drawn = sorted(eligible, key=lambda value: float(keys[value]))[: max(1, len(eligible) // 2)]
        if self.reading.released:
            drawn = [present[present.index(value) - 1] for value in drawn]
        if self.reading.dsp:
            drawn = [*drawn, *LONG_TAIL]
        mask = torch.zeros_like(labels, dtype=torch.bool)
        for value in drawn:
            mask |= labels == (IGNORED if value == -1 else value)
        return mask

    def _source_mix(self, source: DomainBatch, labels: Tensor, pasted: Tensor) -> Tensor:
        """Row 27: each strong source crop's pasted classes on the batch's next, each label by its share."""
        images, num_images = normalised(source.strong), len(labels)
        mixed, over_label, under_label = images.clone(), labels.clone(), labels.clone()
        for i in range(num_images):
            following = (i + 1) % num_images
            soft = images[following] + OPACITY * (images[i] - images[following])
            mixed[i] = torch.where(pasted[i], soft, images[following])
            over_label[i] = torch.where(pasted[i], labels[i], labels[following])
            under_label[i] = labels[following]
        logits = self._pass(mixed)
        over, under = (self._both_heads(logits, one, one) for one in (over_label, under_label))
        return OPACITY * over + (1 - OPACITY) * under

    @torch.no_grad()
    def _update(self, gradients: dict[str, Tensor]) -> None:
        """Rows 4 and 21: SGD entry by entry, then the average."""
        names = {parameter: name for name, parameter in self.student.named_parameters()}
        factor = (1 - self.iteration / self.reading.num_iterations) ** POWER
        for parameter, rate in self._entries():
            name = names[parameter]
            slope = gradients[name] + WEIGHT_DECAY * parameter
            before = self.momentum.get(name)
            velocity = slope if before is None or self.iteration == 0 else MOMENTUM * before + slope
            # Rates are held in single precision.
            parameter -= float(np.float32(rate * factor)) * velocity
            self.momentum[name] = velocity
        for name, parameter in self.student.named_parameters():
            self.average[name] = DECAY * self.average[name] + (1 - DECAY) * parameter
        self.iteration += 1

    def _entries(self) -> Iterator[tuple[nn.Parameter, float]]:
        backbone = self.student.backbone
        for layer in backbone.children():
            for module in layer.modules():
                held = module.parameters(recurse=True) if self.reading.released else module.parameters(recurse=False)
                rate = self.reading.lr_backbone / (3 if self.reading.released else 1)
                yield from ((parameter, rate) for parameter in held if parameter.requires_grad)
        of_backbone = {id(parameter) for parameter in backbone.parameters()}
        for parameter in self.student.parameters():
            if id(parameter) not in of_backbone:
                yield parameter, self.reading.lr_head


def stacked(answers: list[Answer], what: str) -> Tensor:
    """One field of several images' answers, [B, H, W]."""
    return torch.stack([getattr(one, what) for one in answers])


def normalised(images: Tensor) -> Tensor:
    """Row 20: uint8 RGB [B, H, W, 3] minus ImageNet's mean, by its deviation."""
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64)
    return ((images.double() / 255 - mean) / deviation).permute(0, 3, 1, 2)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Row 17: logits [B, C, h, w] upsampled to int64 [B, H, W], corners aligned; mean over what is not ignored."""
    full = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=True)
    log_probability = full.log_softmax(1).permute(0, 2, 3, 1)[labels != IGNORED]
    known = labels[labels != IGNORED]
    if len(known) == 0:
        return full.sum() * 0
    return -log_probability[torch.arange(len(known)), known].mean()


def answer(logits: tuple[Tensor, Tensor], i: int, size: torch.Size, view: torch.Size, box: Tensor | None) -> Answer:
    """Row 5: image i's logits, read at the crop's own pixel centres and then arg-maxed."""
    top, left, height, width = [0.0, 0.0, *map(float, view)] if box is None else box.tolist()
    probabilities = []
    for head in logits:
        rows = top + (torch.arange(size[0], dtype=torch.float64) + 0.5) * height / size[0] - 0.5
        columns = left + (torch.arange(size[1], dtype=torch.float64) + 0.5) * width / size[1] - 0.5
        y, x = 2 * rows / (view[0] - 1) - 1, 2 * columns / (view[1] - 1) - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
        read = F.grid_sample(head[i : i + 1].detach(), grid, "bilinear", "border", align_corners=True)
        probabilities.append(read[0].softmax(0))
    main, auxiliary = probabilities
    return Answer(main.argmax(0), main.amax(0), (main + auxiliary).argmax(0))


def band(mask: Tensor) -> Tensor:
    """Row 25: 2×2 dilation minus 2×2 erosion of bool [H, W]."""
    window, image = np.ones((2, 2), np.uint8), mask.numpy().astype(np.uint8)
    return torch.from_numpy(cv2.dilate(image, window) != cv2.erode(image, window))


def contrast(first: Tensor, second: Tensor, scale: float) -> Tensor:
    """Equations 10, 11: rows of two views [N, C], probabilities; the positive is the same row of the other view."""
    rows = torch.cat([first, second])
    similarity = scale * rows @ rows.T
    similarity = similarity.masked_fill(torch.eye(len(rows), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(similarity, torch.arange(len(rows)).roll(len(first)))


def pixel_contrast(weak: Tensor, strong: Tensor) -> Tensor:
    """Row 13: all positions of one image's logits [C, h, w]."""
    return contrast(*(one.flatten(1).T.softmax(1) for one in (weak, strong)), SCALE_PIXEL)


def prototype_contrast(weak: Tensor, strong: Tensor, labels: Tensor) -> Tensor:
    """Row 14: of each class the mean logits of its positions in one image; labels int64 [H, W]."""
    height, width = weak.shape[1:]
    rows = torch.arange(height) * labels.shape[0] // height
    columns = torch.arange(width) * labels.shape[1] // width
    nearest = labels[rows[:, None], columns]
    classes = [value for value in nearest.unique().tolist() if value != IGNORED]
    if not classes:
        return weak.sum() * 0
    means = [torch.stack([one[:, nearest == value].mean(1) for value in classes]).softmax(1) for one in (weak, strong)]
    return contrast(*means, SCALE_PROTOTYPE)
