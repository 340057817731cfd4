import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from crossgrain.evaluation.heatmaps import SIDE, drawn, heat_map_sections
from crossgrain.evaluation.pictures import Pictures
from crossgrain.tasks.heat import to_line


def line(key, point, truth, text="a <star>"):
    heat = np.zeros((4, 4))
    heat[int(4 * point[1]), int(4 * point[0])] = 1.0
    told = {"key": key, "text": text, "box": [0.0, 0.0, 0.25, 0.25], "truth": truth, "iou": 0.5, "method": "gradcam"}
    return told | {"point": point, "heat": to_line(heat)}


@pytest.fixture
def pictures(make_run):
    return Pictures(make_run([])[1], "test")


def test_the_map_is_clear_where_it_is_cold_and_brightest_at_the_peak():
    picture = drawn(line("k0", [0.875, 0.125], None)["heat"])
    assert picture.shape == (SIDE, SIDE, 4)
    assert picture[SIDE - 1, 0].tolist()[3] == 0
    rows, columns = np.nonzero(picture[..., 3] == picture[..., 3].max())
    assert rows.max() < SIDE // 4 and columns.min() >= SIDE * 3 // 4


def test_sections_show_maps_and_the_peaks_that_are_furthest_off(pictures):
    inside = line("k0", [0.125, 0.125], [0.0, 0.0, 0.5, 0.5])
    near, far = (line("k1", [x, 0.125], [0.5, 0.0, 0.6, 0.5], f"{x}") for x in (0.375, 0.125))
    unknown = line("k2", [0.125, 0.125], None)
    boxes_only = {"key": "k2", "text": "no map", "box": [0, 0, 1, 1], "truth": None, "iou": None, "method": "box"}
    (title, _, body), (worst, _, missed) = heat_map_sections([boxes_only, inside, near, far, unknown], pictures)
    assert (title, worst) == ("Heat maps", "Worst mistakes: heat maps")
    assert body.count('class="heat"') == body.count('class="point"') == 4 and "no map" not in body
    assert body.count("inside") == 1 and body.count("outside") == 2 and "a &lt;star&gt;" in body
    assert missed.count("<figure") == 1 and "<b>0.125</b>" in missed  # of each picture the worst
    assert body.count('class="true"') == 3 and body.count('class="predicted"') == 4
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).mode for data in re.findall(r"png;base64,([^\"]+)", body)]
    assert sizes == ["RGBA"] * 4


def test_lines_without_maps_make_no_section(pictures):
    assert list(heat_map_sections([], pictures)) == []
    (only,) = heat_map_sections([line("k0", [0.1, 0.1], [0.0, 0.0, 0.5, 0.5])], pictures)
    assert only[0] == "Heat maps"
