"""Masks as crops are the masks."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskwright.crops import crops, pack, whole

MASKS = hnp.arrays(
    np.uint8, st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)
)


@given(MASKS)
def test_packed_masks_come_back_whole(masks):
    masks = torch.from_numpy(masks)
    packed = pack(masks)
    assert torch.equal(whole(packed, tuple(masks.shape[1:])), masks)
    assert torch.equal(whole({"masks": masks}, tuple(masks.shape[1:])), masks)
    assert len(packed["windows"]) == len(crops(packed)) == len(masks)


@given(MASKS)
def test_crops_are_tight(masks):
    packed = pack(torch.from_numpy(masks))
    for mask, crop, window in zip(masks, crops(packed), packed["windows"].tolist(), strict=True):
        y, x = np.nonzero(mask)
        tight = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0]
        assert window == tight
        assert (crop.left, crop.top) == tuple(tight[:2])
        assert crop.mask.sum() == mask.sum()
    assert len(packed["masks"]) == sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in packed["windows"].tolist())
