"""Photos of rare categories come more often: how much more, in which epoch, and what is told of it."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright import pixels
from maskwright.batches import batch_photos
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.rarity import Rarity, expected, factor, factors, rarities, told, turn

CATEGORIES = (Category(3, "bolt"), Category(7, "nut"), Category(9, "screw"))
SOME = pixels.encode(np.ones((4, 4), dtype=bool))


def dataset(photos):
    """Return a dataset whose photos hold objects of these category ids; negative ids are crowds."""
    images = [Image(i + 1, f"{i}.png", 4, 4) for i in range(len(photos))]
    held = [(i + 1, c) for i, ids in enumerate(photos) for c in ids]
    found = [Annotation(k + 1, i, abs(c), SOME, crowd=c < 0) for k, (i, c) in enumerate(held)]
    return Dataset.build(CATEGORIES, images, found)


worlds = st.lists(st.lists(st.sampled_from([3, 7, 9, -3, -7]), max_size=4), min_size=1, max_size=30)
factor_lists = st.lists(st.floats(1, 7), min_size=1, max_size=20)


# How often


def test_a_photo_comes_as_often_as_its_rarest_category_asks():
    # bolt in 1 of 16 photos, nut in 4, screw in 12
    data = dataset([[3, 7], [7], [7, 9], [7, 7], *[[9]] * 11, []])
    assert rarities(data) == (Rarity("bolt", 1, 1), Rarity("nut", 4, 3), Rarity("screw", 12, 11))
    np.testing.assert_allclose(factors(data, 0.5625), [3.0, 1.5, 1.5, 1.5, *[1.0] * 12])
    np.testing.assert_array_equal(factors(data, 0.0625), np.ones(16))


def test_crowds_and_objects_without_a_mask_do_not_make_a_photo_rare():
    images = [Image(i + 1, f"{i}.png", 4, 4) for i in range(2)]
    crowd, nut = Annotation(1, 1, 3, SOME, crowd=True), Annotation(2, 2, 7, SOME)
    box = Annotation(3, 2, 3, None, box=(0.0, 0.0, 2.0, 2.0))
    data = Dataset.build(CATEGORIES, images, [crowd, nut, box])
    assert rarities(data)[:2] == (Rarity("bolt", 0, 0), Rarity("nut", 1, 1))
    np.testing.assert_allclose(factors(data, 1.0), [1.0, math.sqrt(2)])


def test_a_dataset_without_objects_repeats_nothing():
    data = dataset([[], []])
    np.testing.assert_array_equal(factors(data, 1.0), [1.0, 1.0])
    assert expected(rarities(data), 2, 1.0) == 2


@given(worlds, st.floats(0, 1))
def test_what_is_expected_is_the_sum_of_the_photos_factors(photos, threshold):
    data = dataset(photos)
    assert expected(rarities(data), len(photos), threshold) == pytest.approx(factors(data, threshold).sum())


@given(worlds, st.floats(0, 1))
def test_a_photos_factor_is_the_greatest_of_its_categories(photos, threshold):
    """Against the words of the paper, photo by photo."""
    objects = [{c for c in ids if c > 0} for ids in photos]
    share = {c: sum(c in ids for ids in objects) / len(photos) for c in (3, 7, 9)}
    wanted = [max((max(1.0, math.sqrt(threshold / share[c])) for c in ids), default=1.0) for ids in objects]
    np.testing.assert_allclose(factors(dataset(photos), threshold), wanted)


def test_a_category_at_the_threshold_is_not_rare():
    assert factor(4, 400, 0.01) == 1.0
    assert factor(3, 400, 0.01) > 1.0
    assert factor(0, 400, 0.01) == 1.0


# When


@settings(max_examples=60)
@given(factor_lists, st.integers(0, 2**32), st.integers(0, 400))
def test_epochs_lie_end_to_end_without_a_gap(each, seed, position):
    each = np.array(each)
    epoch, offset, times = turn(each, seed, position)
    assert 0 <= offset < times.sum()
    assert turn(each, seed, position - offset)[:2] == (epoch, 0)
    assert turn(each, seed, position - offset + int(times.sum()))[:2] == (epoch + 1, 0)
    if position == offset:
        assert epoch == 0


@settings(max_examples=60)
@given(factor_lists, st.integers(0, 2**32))
def test_a_photo_is_never_a_whole_turn_ahead_or_behind(each, seed):
    each, position, total = np.array(each), 0, np.zeros(len(each))
    for epoch in range(12):
        at, _, times = turn(each, seed, position)
        assert at == epoch
        assert ((np.floor(each) <= times) & (times <= np.ceil(each))).all()
        total += times
        assert (np.abs(total - (epoch + 1) * each) < 1 + 1e-6).all()
        position += int(times.sum())


def test_fractions_are_rounded_by_chance_and_right_on_average():
    each = np.full(4000, 1.3)
    first = turn(each, 5, 0)[2]
    assert set(first) == {1, 2}
    assert first.mean() == pytest.approx(1.3, abs=0.03)
    assert (turn(each, 6, 0)[2] != first).any()


def test_a_photos_turns_do_not_hang_on_the_others():
    few, many = np.array([1.5, 2.2, 1.7]), np.array([1.5, 2.2, 1.7, 3.0, 1.0])
    np.testing.assert_array_equal(turn(few, 3, 0)[2], turn(many, 3, 0)[2][:3])


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 99), st.integers(0, 300))
def test_factors_of_one_change_nothing(count, batch, seed, step):
    assert batch_photos(count, batch, step, seed, np.ones(count)) == batch_photos(count, batch, step, seed)


def test_a_step_sees_the_same_photos_whatever_was_drawn_before():
    each = np.array([1.0, 2.5, 1.0, 1.25, 3.1])
    row = [p for step in range(40) for p in batch_photos(5, 3, step, 8, each)]
    assert [p for step in range(20) for p in batch_photos(5, 6, step, 8, each)] == row
    position = 0
    while position + 20 < len(row):  # each epoch holds each photo as often as its turn says
        _, _, times = turn(each, 8, position)
        seen = Counter(row[position : position + int(times.sum())])
        assert [seen[i] for i in range(5)] == times.tolist()
        position += int(times.sum())


# What is told


def test_the_rarest_are_told_and_the_others_counted():
    rare = [Rarity(name, n, n) for n, name in enumerate("abcde", start=1)]
    text = told(rare, 100, 0.16)
    assert text.startswith("a is in 1 of 100 photos: its photos come 4.0 times an epoch; b is in 2 of 100 photos")
    assert text.endswith("; and 2 more categories")
    assert told(rare[:4], 100, 0.16).endswith("; and 1 more category")
    assert told(rare, 100, 0.01) == "every category is in 0.01 of the photos or more: none is repeated"
