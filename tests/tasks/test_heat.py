import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crossgrain.tasks.heat import box_around_peak, box_scores, from_line, painted, spread, to_line

CELLS = np.random.default_rng(0).normal(size=(5, 7))


@pytest.mark.parametrize("size", [(40, 31), (5, 7), (3, 4)])
def test_maps_are_spread_as_torch_interpolates(size):
    expected = F.interpolate(torch.from_numpy(CELLS)[None, None], size=size, mode="bicubic")[0, 0]
    np.testing.assert_allclose(spread(CELLS, size), expected.numpy(), atol=1e-12)


def test_a_part_of_the_map_is_spread_as_a_cut_out_of_the_whole():
    whole = spread(CELLS, (20, 28))
    np.testing.assert_allclose(spread(CELLS, (10, 20), (2.5, 5.0)), whole[:10, :20], atol=1e-12)


def test_scores_of_boxes_are_sums_over_their_pixels():
    heat = np.random.default_rng(1).normal(size=(12, 16))
    boxes = np.array([[0, 0, 16, 12], [2.7, 3.2, 9.9, 5.5], [4, 4, 4, 9], [10, 6, 99, 99]], dtype=float)
    sums = [heat.sum(), heat[3:5, 2:9].sum(), 0.0, heat[6:, 10:].sum()]
    areas = [192.0, 7.2 * 2.3, 1.0, 89.0 * 93.0]
    np.testing.assert_allclose(box_scores(heat, boxes), np.array(sums) / np.sqrt(areas), atol=1e-12)
    np.testing.assert_allclose(box_scores(heat, boxes, 0.0)[:2], sums[:2], atol=1e-12)


def test_the_box_around_the_peak_leaves_out_other_parts():
    heat = np.zeros((10, 10))
    heat[2:4, 3:6], heat[3, 4], heat[8, 8], heat[4, 6] = 0.5, 1.0, 0.9, 0.1
    assert box_around_peak(heat).tolist() == [0.3, 0.2, 0.6, 0.4]
    assert box_around_peak(np.zeros((4, 4))).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_a_painted_map_has_the_largest_value_over_each_place():
    boxes = np.array([[0.0, 0.0, 0.5, 1.0], [0.25, 0.0, 1.0, 0.5]])
    assert painted(np.array([1.0, 2.0]), boxes, (2, 4)).tolist() == [[1, 2, 2, 2], [1, 1, 0, 0]]
    assert painted(np.zeros(0), np.zeros((0, 4)), (1, 2)).tolist() == [[0, 0]]


def test_a_map_in_a_line_keeps_its_shape_and_256_levels():
    heat = np.clip(CELLS, 0, None)
    told = json.loads(json.dumps(to_line(CELLS)))
    assert told["size"] == [5, 7]
    np.testing.assert_allclose(from_line(told), heat / heat.max(), atol=0.5 / 255 + 1e-9)
    assert from_line(to_line(np.zeros((2, 2)))).tolist() == [[0, 0], [0, 0]]
