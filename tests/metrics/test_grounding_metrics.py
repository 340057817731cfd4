import numpy as np
import pytest

from crossgrain.metrics.grounding import accuracy_at, iou


def corners(boxes):
    boxes = np.array(boxes, dtype=float)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def test_iou_of_boxes_worked_out_by_hand():
    a = np.array([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.4, 0.4], [0.2, 0.2, 0.2, 0.2]])
    b = np.array([[0.25, 0.0, 0.75, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.4, 0.4], [0.2, 0.2, 0.2, 0.2]])
    assert iou(a, b) == pytest.approx([1 / 3, 0.0, 1.0, 0.0])


def test_iou_equals_values_recorded_from_the_original():
    # recorded case bbox_swin: boxes as the original decoded them (x, y, w, h in pixels), and its computeIoU
    predicted = [
        [75.42287, 21.359276, 163.6561, 107.91551],
        [77.6548, 38.566734, 165.48746, 88.21985],
        [79.11206, 19.599785, 161.09955, 99.644165],
    ]
    true = [[40, 30, 90, 70], [83, 42, 165, 88], [60, 30, 90, 70]]
    expected = [0.18968616, 0.87366307, 0.2853376]
    assert iou(corners(predicted), corners(true), "pixel") == pytest.approx(expected, abs=1e-6)


def original_iou(box1, box2):
    """X-VLM dataset/utils.py:336 on (x, y, w, h)."""
    near = [max(box1[i], box2[i]) for i in (0, 1)]
    far = [min(box1[i] + box1[i + 2] - 1, box2[i] + box2[i + 2] - 1) for i in (0, 1)]
    meet = near[0] < far[0] and near[1] < far[1]
    overlap = (far[0] - near[0] + 1) * (far[1] - near[1] + 1) if meet else 0
    return overlap / (box1[2] * box1[3] + box2[2] * box2[3] - overlap)


def test_the_pixel_convention_is_the_original_also_where_boxes_hardly_meet():
    generator = np.random.default_rng([7])
    a, b = (np.concatenate([g, s], 1) for g, s in [
        (generator.integers(0, 9, (300, 2)), generator.integers(1, 9, (300, 2))) for _ in range(2)
    ])  # fmt: skip
    expected = [original_iou(x, y) for x, y in zip(a, b, strict=True)]
    assert iou(corners(a), corners(b), "pixel") == pytest.approx(expected)
    assert iou(corners(a), corners(b)).sum() > np.sum(expected)  # some overlaps are one pixel wide


def test_an_iou_of_exactly_one_half_counts():
    assert accuracy_at(np.array([0.5, 0.49, 0.9, 0.0])) == 0.5
