"""Examples of what each stage kept and dropped, a few for every reason, with a small picture where there is one.

Which ones is decided by a hash of what they are, so the same run shows the same examples however many workers it had.
What an operator's block list matched is never added: the caller leaves it out.
"""

import base64
import hashlib
import heapq
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from crossgrain.config import UserError
from crossgrain.data.images import ImageError
from crossgrain.data.thumbnails import small_jpeg
from crossgrain.documents.writing import write_whole

SAMPLES = "samples.jsonl"
KEPT = ""  # the reason of what was not dropped
MOST = 8  # of each reason of each stage
SIDE = 160  # pixels of a picture
MAX_TEXT = 400  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One thing that a stage kept (`reason` is empty) or dropped.

    `picture` is a small JPEG and `sha256` that of the file it was made from; both empty where there is none.
    """

    stage: str
    reason: str = KEPT
    text: str = ""
    image_url: str = ""
    page_url: str = ""
    detail: str = ""  # the value that decided: "87 x 90", "score 0.03"
    sha256: str = ""
    picture: bytes = b""

    def rank(self) -> bytes:
        """Where it stands among those of its stage and reason: by content, not by when it came."""
        named = (self.stage, self.reason, self.image_url, self.text, self.page_url)
        return hashlib.sha256("\0".join(named).encode("utf-8", "replace")).digest()


class Samples:
    """The `most` lowest-ranked samples of every stage and reason; the same set in whatever order they come."""

    def __init__(self, most: int = MOST):
        self.most = most
        self._groups: dict[tuple[str, str], dict[bytes, Sample]] = {}

    def add(self, sample: Sample, image: bytes | Callable[[], bytes] | None = None) -> None:
        """Offer a sample; `image` is its file, or gives it, and is decoded only where the sample is chosen."""
        group = self._groups.setdefault((sample.stage, sample.reason), {})
        rank = sample.rank()
        if rank in group or (len(group) >= self.most and rank >= max(group)):
            return
        group[rank] = _with_picture(sample, image() if callable(image) else image)
        if len(group) > self.most:
            del group[max(group)]

    def update(self, samples: Iterable[Sample]) -> None:
        """Offer those of another part, which have their pictures."""
        for sample in samples:
            self.add(sample)

    def __iter__(self) -> Iterator[Sample]:
        """All of them: stages and reasons in alphabetical order, samples by rank."""
        for group in sorted(self._groups):
            yield from (sample for _, sample in heapq.nsmallest(self.most, self._groups[group].items()))

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """One JSON line a sample, its picture in base64; whole or not at all."""
    write_whole(path, (json.dumps(_to_json(sample), ensure_ascii=True) + "\n" for sample in samples))


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file; none where there is no file. UserError where it is something else."""
    if not path.is_file():
        return []
    try:
        return [_from_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} holds no samples: {error}") from None


def _with_picture(sample: Sample, image: bytes | None) -> Sample:
    values = {**asdict(sample), "text": sample.text[:MAX_TEXT]}
    if image:
        values["sha256"] = hashlib.sha256(image).hexdigest()
        try:
            values["picture"] = small_jpeg(image, SIDE)[0]
        except ImageError:  # its reason says so
            values["picture"] = b""
    return Sample(**values)


def _to_json(sample: Sample) -> dict[str, str]:
    return {**asdict(sample), "picture": base64.b64encode(sample.picture).decode()}


def _from_json(line: str) -> Sample:
    values = json.loads(line)
    return Sample(**{**values, "picture": base64.b64decode(values["picture"])})
