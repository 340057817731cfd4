"""Boxes: their two forms, their patches, their overlap."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossgrain.nn.boxes import centre_from_corners, corners_from_centre, giou_loss, patches_inside

unit = st.floats(0, 1, width=32)


@st.composite
def boxes(draw):
    """(x1, y1, x2, y2) with ordered edges, degenerate ones included."""
    (x1, x2), (y1, y2) = (sorted((draw(unit), draw(unit))) for _ in range(2))
    return torch.tensor([[x1, y1, x2, y2]])


grids = st.tuples(st.integers(1, 24), st.integers(1, 24))


def patches(box, grid=(4, 4)):
    """The patches of one box, as rows of # and . from the top."""
    inside = patches_inside(torch.tensor([box]), grid).view(grid)
    return ["".join(".#"[cell] for cell in row) for row in inside.tolist()]


def test_the_two_forms_say_the_same_box():
    corners = torch.tensor([[[0.1, 0.2, 0.5, 0.4]]])
    centre = torch.tensor([[[0.3, 0.3, 0.4, 0.2]]])
    torch.testing.assert_close(centre_from_corners(corners), centre)
    torch.testing.assert_close(corners_from_centre(centre), corners)


@given(boxes())
def test_there_and_back_is_the_same_box(box):
    torch.testing.assert_close(corners_from_centre(centre_from_corners(box)), box, atol=1e-6, rtol=0)


def test_a_box_has_the_patches_that_it_touches():
    assert patches([0.3, 0.0, 0.7, 0.3]) == [".##.", ".##.", "....", "...."]
    assert patches([0.0, 0.6, 0.1, 1.0], grid=(2, 4)) == ["....", "#..."]  # x counts columns, y rows


def test_an_edge_on_the_line_between_two_patches_stays_on_its_side():
    assert patches([0.25, 0.25, 0.5, 0.75]) == ["....", ".#..", ".#..", "...."]
    thirds = [[1 / 3, 0.0, 2 / 3, 1.0], [float(torch.tensor(1.0) / 3), 0.0, 0.6666667, 1.0]]
    assert all(patches(box, grid=(1, 3)) == [".#."] for box in thirds)


def test_a_box_without_area_or_at_the_far_edge_has_a_patch():
    assert patches([0.5, 0.5, 0.5, 0.5]) == ["....", "....", "..#.", "...."]
    assert patches([1.0, 1.0, 1.0, 1.0]) == ["....", "....", "....", "...#"]
    assert patches([0.0, 0.0, 0.0, 0.0]) == ["#...", "....", "....", "...."]


@given(boxes(), grids)
def test_every_box_has_a_patch_and_patches_form_a_rectangle(box, grid):
    inside = patches_inside(box, grid).view(grid)
    rows, columns = inside.any(1), inside.any(0)
    assert inside.sum() == rows.sum() * columns.sum() > 0
    for line in (rows, columns):
        places = line.nonzero().flatten().tolist()
        assert places == list(range(places[0], places[-1] + 1))


@given(grids)
def test_the_whole_image_has_all_patches(grid):
    assert patches_inside(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), grid).all()


@given(boxes(), grids)
def test_a_larger_box_has_all_patches_of_a_smaller_one(box, grid):
    wider = torch.cat([(box[:, :2] - 0.1).clamp(min=0), (box[:, 2:] + 0.1).clamp(max=1)], 1)
    smaller, larger = patches_inside(box, grid), patches_inside(wider, grid)
    assert not (smaller & ~larger).any()


def test_giou_loss_is_one_minus_overlap_plus_the_empty_share_of_the_hull():
    a = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.25, 0.25]])
    b = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75], [0.75, 0.75, 1.0, 1.0]])
    overlap, hull = 0.0625 / 0.4375, (0.5625 - 0.4375) / 0.5625
    expected = torch.tensor([0.0, 1 - overlap + hull, 1 + (1 - 0.125) / 1])
    torch.testing.assert_close(giou_loss(a, b), expected)
    torch.testing.assert_close(giou_loss(b, a), expected)


@pytest.mark.parametrize("side", [1e-6, 1e-3, 1.0])
def test_giou_of_a_tiny_prediction_is_finite_and_has_a_gradient(side):
    predicted = torch.tensor([[0.5, 0.5, side, side]], requires_grad=True)
    loss = giou_loss(corners_from_centre(predicted), torch.tensor([[0.1, 0.1, 0.3, 0.4]]))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()


def test_giou_of_two_boxes_without_area_is_finite():
    dot = torch.tensor([[0.5, 0.5, 0.5, 0.5]], requires_grad=True)
    loss = giou_loss(dot, torch.tensor([[0.25, 0.5, 0.25, 0.5]]))
    loss.sum().backward()
    assert loss.isfinite().all() and dot.grad is not None and dot.grad.isfinite().all()
