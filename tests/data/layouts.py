"""Small data sets in the layouts of others, read in this process."""

import io
from collections import Counter

from PIL import Image

from crossgrain.data.intake import check
from crossgrain.data.records import Dropped
from crossgrain.data.sets import DATASETS


def jpeg(width=40, height=20, shade=0, **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 90, 200)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def put(folder, *names, data=None):
    for shade, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data or jpeg(shade=shade))


def found(source, root, **flags):
    """(records by key, drops) of a layout."""
    results = [one for item in DATASETS[source].reader()(root, **flags) for one in check(item)]
    records = {one.record.key: one.record for one in results if not isinstance(one, Dropped)}
    return records, [one for one in results if isinstance(one, Dropped)]


def reasons(drops):
    return Counter(drop.reason for drop in drops)
