"""Pictures of a data set, small and inside the page, with boxes drawn over them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossgrain.data.records import Record
from crossgrain.data.shards import Shards
from crossgrain.data.thumbnails import data_uri, small_jpeg
from crossgrain.documents.markup import Html, tag


class Pictures:
    """The pictures of one split by key, as small data URIs."""

    def __init__(self, data: Path, split: str):
        self._records = Shards(data, split)
        self._index = {str(key): index for index, key in enumerate(self._records.column("key"))}
        self._made: dict[str, tuple[str, int, int]] = {}

    def figure(
        self,
        key: str,
        caption: Any = "",
        boxes: Sequence[tuple[str, Sequence[float]]] = (),
        over: Sequence[Html] = (),
        **attributes: Any,
    ) -> Html:
        """A picture with its caption; `boxes` are (CSS class, (x1, y1, x2, y2)) and are cut at the picture's edge.

        `over` lies upon the picture and below the boxes.
        """
        if key not in self._made:
            data, width, height = small_jpeg(self._records[self._index[key]].image)
            self._made[key] = (data_uri(data), width, height)
        uri, width, height = self._made[key]
        image = tag("img", src=uri, width=width, height=height, alt=f"picture {key}", title=key)
        drawn = [tag("i", class_=kind, style=place(box)) for kind, box in boxes]
        note = [tag("figcaption", caption)] if caption else []
        return tag("figure", tag("span", image, *over, *drawn, class_="frame"), *note, **attributes)

    def record(self, key: str) -> Record:
        """What the data set says of a picture."""
        return self._records.texts(self._index[key])

    def __contains__(self, key: str) -> bool:
        return key in self._index


def place(box: Sequence[float]) -> str:
    """The style of an element that lies upon a picture where the box is."""
    left, top, right, bottom = (100 * min(max(side, 0.0), 1.0) for side in box)
    return f"left:{left:.1f}%;top:{top:.1f}%;width:{max(right - left, 0):.1f}%;height:{max(bottom - top, 0):.1f}%"
