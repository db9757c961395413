"""Device code of mixing: one pass over the crops, each byte read from memory once and each output written once.

B images, C classes, H W pixels. Images are seen as flat rows of 3·H·W bytes, RGB RGB …, which is also the order of
a channels-last result, so that reads and writes are contiguous; a program takes a run of pixels, three steps of
its images' values and one of its labels. A value's pixel is its index divided by three.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _normalised(value, channel, mean0, mean1, mean2, scale0, scale1, scale2):
    """(value - mean) · scale of the output channel, fp32."""
    mean = tl.where(channel == 0, mean0, tl.where(channel == 1, mean1, mean2))
    scale = tl.where(channel == 0, scale0, tl.where(channel == 1, scale1, scale2))
    return (value.to(tl.float32) - mean) * scale


@triton.jit
def _is_chosen(chosen_ptr, image, label, inside, C: tl.constexpr):
    return tl.load(chosen_ptr + image * C + label, mask=inside & (label < C), other=0) != 0


@triton.jit
def _pasted_at(labels_ptr, chosen_ptr, image, pixel, inside, num_pixels, C: tl.constexpr, BY_PIXEL: tl.constexpr):
    if BY_PIXEL:
        return tl.load(chosen_ptr + image * num_pixels + pixel, mask=inside, other=0) != 0
    label = tl.load(labels_ptr + image * num_pixels + pixel, mask=inside, other=0).to(tl.int32)
    return _is_chosen(chosen_ptr, image, label, inside, C)


@triton.jit
def _confident_at(confidence_ptr, image, pixel, inside, num_pixels, threshold):
    return tl.load(confidence_ptr + image * num_pixels + pixel, mask=inside, other=0.0) > threshold


@triton.jit
def _kept(pasted, confident, KEEP: tl.constexpr):
    """Where the HTCM image shows the class-mixed view's pasted source pixels."""
    if KEEP == 0:
        return pasted & False
    if KEEP == 1:
        return pasted & confident
    return pasted


@triton.jit
def masked_mix_kernel(
    source_weak_ptr,
    source_strong_ptr,
    target_weak_ptr,
    target_strong_ptr,
    source_label_ptr,
    pseudo_label_ptr,
    htcm_label_ptr,
    auxiliary_label_ptr,
    confidence_ptr,
    chosen_ptr,
    weak_ptr,
    strong_ptr,
    hts_ptr,
    labels_ptr,
    masks_ptr,
    num_pixels,
    W,
    threshold,
    ignore_index,
    mean0,
    mean1,
    mean2,
    scale0,
    scale1,
    scale2,
    C: tl.constexpr,
    BY_PIXEL: tl.constexpr,
    KEEP: tl.constexpr,
    BGR: tl.constexpr,
    BANDS: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """A run of pixels of one image: three mixed images, four labels, the paste mask and the bands.

    `chosen_ptr` has a byte a class, of which a pixel's label picks its own, or with BY_PIXEL a byte a pixel.
    """
    image = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * BLOCK_P
    for step in tl.static_range(3):
        value = 3 * first + step * BLOCK_P + tl.arange(0, BLOCK_P)
        pixel, channel = value // 3, value % 3
        inside = pixel < num_pixels
        pasted = _pasted_at(source_label_ptr, chosen_ptr, image, pixel, inside, num_pixels, C, BY_PIXEL)
        confident = _confident_at(confidence_ptr, image, pixel, inside, num_pixels, threshold)
        to = image * num_pixels * 3 + value
        at = to + 2 - 2 * channel if BGR else to
        source_weak = tl.load(source_weak_ptr + at, mask=inside, other=0)
        source_strong = tl.load(source_strong_ptr + at, mask=inside, other=0)
        target_weak = tl.load(target_weak_ptr + at, mask=inside, other=0)
        target_strong = tl.load(target_strong_ptr + at, mask=inside, other=0)
        weak = tl.where(pasted, source_weak, target_weak)
        strong = tl.where(pasted, source_weak, target_strong)
        onto_source = tl.where(confident, target_strong, source_strong)
        hts = tl.where(_kept(pasted, confident, KEEP), source_weak, onto_source)
        dtype = weak_ptr.dtype.element_ty
        weak = _normalised(weak, channel, mean0, mean1, mean2, scale0, scale1, scale2)
        strong = _normalised(strong, channel, mean0, mean1, mean2, scale0, scale1, scale2)
        hts = _normalised(hts, channel, mean0, mean1, mean2, scale0, scale1, scale2)
        tl.store(weak_ptr + to, weak.to(dtype), mask=inside)
        tl.store(strong_ptr + to, strong.to(dtype), mask=inside)
        tl.store(hts_ptr + to, hts.to(dtype), mask=inside)

    pixel = first + tl.arange(0, BLOCK_P)
    inside = pixel < num_pixels
    at = image * num_pixels + pixel
    source_label = tl.load(source_label_ptr + at, mask=inside, other=0)
    pseudo = tl.load(pseudo_label_ptr + at, mask=inside, other=0)
    if BY_PIXEL:
        pasted = _pasted_at(source_label_ptr, chosen_ptr, image, pixel, inside, num_pixels, C, BY_PIXEL)
    else:
        pasted = _is_chosen(chosen_ptr, image, source_label.to(tl.int32), inside, C)
    confident = _confident_at(confidence_ptr, image, pixel, inside, num_pixels, threshold)
    htcm_label = tl.load(htcm_label_ptr + at, mask=inside, other=0)
    auxiliary = tl.load(auxiliary_label_ptr + at, mask=inside, other=0)
    target_in_hts = confident & (pasted == 0) if KEEP == 2 else confident
    label_st = tl.where(pasted, source_label, pseudo)
    ignored = (tl.zeros_like(pixel) + ignore_index).to(tl.uint8)
    plane = tl.num_programs(1).to(tl.int64) * num_pixels
    tl.store(labels_ptr + at, label_st, mask=inside)
    tl.store(labels_ptr + plane + at, tl.where(target_in_hts, htcm_label, source_label), mask=inside)
    tl.store(labels_ptr + 2 * plane + at, tl.where(pasted | confident, label_st, ignored), mask=inside)
    tl.store(labels_ptr + 3 * plane + at, tl.where(pasted, source_label, auxiliary), mask=inside)
    tl.store(masks_ptr + at, pasted.to(tl.int8), mask=inside)
    if BANDS:
        # The window reaches up and left; at the border it holds the pixel itself twice.
        left = tl.where(pixel % W == 0, 0, 1)
        up = tl.where(pixel < W, 0, W)
        paste = pasted.to(tl.int32)
        sure = confident.to(tl.int32)
        for corner in tl.static_range(1, 4):
            near = pixel - (left if corner % 2 else 0) - (up if corner >= 2 else 0)
            near_pasted = _pasted_at(source_label_ptr, chosen_ptr, image, near, inside, num_pixels, C, BY_PIXEL)
            paste += near_pasted.to(tl.int32)
            sure += _confident_at(confidence_ptr, image, near, inside, num_pixels, threshold).to(tl.int32)
        band_st = (paste > 0) & (paste < 4)
        band_hts = (sure > 0) & (sure < 4) & (pasted == 0)
        tl.store(masks_ptr + plane + at, band_st.to(tl.int8), mask=inside)
        tl.store(masks_ptr + 2 * plane + at, band_hts.to(tl.int8), mask=inside)


@triton.jit
def normalise_kernel(
    image_ptr,
    out_ptr,
    num_values,
    mean0,
    mean1,
    mean2,
    scale0,
    scale1,
    scale2,
    BGR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """uint8 RGB values to the network's input, in the same order or with each pixel's channels reversed."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    channel = ((first % 3).to(tl.int32) + tl.arange(0, BLOCK)) % 3
    value = first + tl.arange(0, BLOCK)
    inside = value < num_values
    at = value + 2 - 2 * channel if BGR else value
    pixel = tl.load(image_ptr + at, mask=inside, other=0)
    out = _normalised(pixel, channel, mean0, mean1, mean2, scale0, scale1, scale2)
    tl.store(out_ptr + value, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def presence_kernel(labels_ptr, present_ptr, num_pixels, BLOCK_P: tl.constexpr):
    """Which of the 256 values occur in a run of pixels: int8 [B, runs, 256]."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    # Pixels outside repeat the image's last one, which is present anyway.
    pixel = tl.minimum(pixel, num_pixels - 1)
    label = tl.load(labels_ptr + image * num_pixels + pixel).to(tl.int32)
    values = tl.arange(0, 256)
    run = image * tl.num_programs(0) + tl.program_id(0)
    tl.store(present_ptr + run * 256 + values, (tl.histogram(label, 256) > 0).to(tl.int8))


@triton.jit
def choose_kernel(
    present_ptr,
    keys_ptr,
    chosen_ptr,
    num_runs,
    fraction,
    min_class,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_PART: tl.constexpr,
):
    """The present classes with the smallest keys: bool [B, C]; equal keys go by class number."""
    image = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK_C)
    real = c < C
    present = tl.zeros((BLOCK_C,), tl.int32)
    for run in range(num_runs):
        present |= tl.load(present_ptr + (image * num_runs + run) * 256 + c, mask=real, other=0).to(tl.int32)
    candidate = (present != 0) & (c >= min_class)
    share = tl.sum(candidate.to(tl.int32)).to(tl.float32) * fraction
    count = tl.maximum(share.to(tl.int32), 1)
    key = tl.load(keys_ptr + image * C + c, mask=real, other=0.0)
    key = tl.where(candidate, key, float("inf"))
    # All classes against all at once would not fit into registers: a part of them at a time.
    parts = tl.reshape(key, (BLOCK_C // BLOCK_PART, BLOCK_PART))
    part_number = tl.arange(0, BLOCK_C // BLOCK_PART)[:, None]
    rank = tl.zeros((BLOCK_C,), tl.int32)
    for part in range(BLOCK_C // BLOCK_PART):
        other = tl.min(tl.where(part_number == part, parts, float("inf")), 0)[None, :]
        other_c = (part * BLOCK_PART + tl.arange(0, BLOCK_PART))[None, :]
        before = (other < key[:, None]) | ((other == key[:, None]) & (other_c < c[:, None]))
        rank += tl.sum(before.to(tl.int32), 1)
    tl.store(chosen_ptr + image * C + c, (candidate & (rank < count)).to(tl.int8), mask=real)


@triton.jit
def entry_before_kernel(present_ptr, chosen_ptr, before_ptr, num_runs, C: tl.constexpr, BLOCK_PART: tl.constexpr):
    """bool [B, 256]: the entry before each chosen one in the list of what is present, ignored pixels its first."""
    image = tl.program_id(0).to(tl.int64)
    value = tl.arange(0, 256)
    present = tl.zeros((256,), tl.int32)
    for run in range(num_runs):
        present |= tl.load(present_ptr + (image * num_runs + run) * 256 + value).to(tl.int32)
    place = tl.where(value < C, value + 1, 0)
    chosen = tl.load(chosen_ptr + image * C + value, mask=value < C, other=0).to(tl.int32)
    # Place and choice in one number, so that the least one behind a place tells whether its entry is chosen.
    code = tl.where(present != 0, 2 * place + chosen, 2 * (C + 1))
    parts = tl.reshape(code, (256 // BLOCK_PART, BLOCK_PART))
    part_number = tl.arange(0, 256 // BLOCK_PART)[:, None]
    behind = tl.zeros((256,), tl.int32) + 2 * (C + 1)
    for part in range(256 // BLOCK_PART):
        other = tl.min(tl.where(part_number == part, parts, 2 * (C + 1)), 0)[None, :]
        behind = tl.minimum(behind, tl.min(tl.where(other // 2 > place[:, None], other, 2 * (C + 1)), 1))
    following = tl.where(behind < 2 * (C + 1), behind, tl.min(code, 0))
    tl.store(before_ptr + image * 256 + value, (present & (following % 2)).to(tl.int8))
