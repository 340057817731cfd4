"""The pages of the planted web: good pairs and bad ones of named kinds, each page a function of its number.

Photographs are of other scenes than those of a data set with the same seed; copies of test images are the only ones of
split "test".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from PIL import Image, ImageOps

from crossgrain.data.scenes import web_images as images
from crossgrain.data.scenes.captions import captions
from crossgrain.data.scenes.pages import BANNER, ICONS, PIXEL, THUMBNAIL, document, figure, icon_url
from crossgrain.data.scenes.web_archive import Resource
from crossgrain.data.scenes.web_texts import bad_text, repeated_text
from crossgrain.data.scenes.world import SPLITS, Dice, Scene, make_scene

SITES = ("https://gallery.example", "https://museum.example", "https://pictures.example", "https://attic.example")
PLACES = ("alt", "title", "figcaption", "near")
FORMS = ("absolute", "relative", "rooted", "protocol-relative", "base", "lazy", "srcset", "picture", "noscript")
BAD = (  # what the pages have in turn beside their good pairs
    "mismatched caption", "file name", "too small", "near-duplicate", "unnatural", "boilerplate", "test-set copy",
    "keyword list", "broken image", "opted-out image: header", "other language", "extreme aspect",
    "mismatched caption", "not an image", "mirrored test-set copy", "missing", "opted-out image: embedded",
)  # fmt: skip
PAGE_OPT_OUTS = ("robots meta", "TDM meta", "X-Robots-Tag", "TDM header")
MAIN, _SECOND, _PLANTED, _REPEATED, _OTHER = range(5)  # the photographs of a page
_OPTED_OUT_EVERY, _SECOND_EVERY, _REPEATED_EVERY = 20, 4, 5
_GROUP = 12  # images that share a text, at least


@dataclass(frozen=True, kw_only=True)
class Planted:
    """An image on a page: what it is (`kind`: "good" or the name of what is wrong), and how it is shown."""

    kind: str
    page: str
    images: tuple[str, ...]  # its URLs, the best first
    scene: str = ""  # the key of the photographed scene, which near-duplicates share
    place: str = ""  # of the text, one of PLACES
    form: str = ""  # one of FORMS
    text: str = ""


@dataclass(frozen=True)
class Web:
    """The planted web of `pages` pages, drawn page by page. `sites` are origins, "https://host[:port]"."""

    pages: int
    seed: int
    sites: Sequence[str] = SITES
    told: dict[str, tuple[str, ...]] = field(default_factory=dict)  # the true captions of every scene that was shown

    def furniture(self) -> Iterator[tuple[Resource, Planted]]:
        """What stands on all pages of the sites: icons, an advertisement, a thumbnail, a tracking pixel."""
        dice = Dice(self.seed, self.pages)
        pixel = Resource(PIXEL, images.gif(images.icon(dice, 3).resize((1, 1))), "image/gif")
        yield pixel, Planted(kind="tracking pixel", page=self.sites[0], images=(PIXEL,))
        for site in self.sites:
            made = [("icon", icon_url(name), images.png(images.icon(dice)), "image/png") for name in ICONS]
            made.append(("banner", BANNER, images.gif(images.banner(dice)), "image/gif"))
            small = images.photograph(self.scene(0, _OTHER), 90)
            made.append(("thumbnail", THUMBNAIL, images.jpeg(small), "image/jpeg"))
            for kind, path, body, content_type in made:
                yield Resource(site + path, body, content_type), Planted(kind=kind, page=site, images=(site + path,))

    def page(self, i: int) -> tuple[list[Resource], list[Planted]]:
        """Page `i` with its images, and what is planted on it."""
        dice = Dice(self.seed, self.pages, i, 7)
        site = self.sites[i % len(self.sites)]
        url = f"{site}/pages/{i // 100}/{i:06d}.html"
        builder = _Builder(self, url, f"{site}/photos/", i, dice)
        opted_out = self.opted_out(i)
        builder.good(MAIN, FORMS[i % len(FORMS)], PLACES[i % len(PLACES)], opted_out)
        if i % _SECOND_EVERY == 1:
            builder.good(_SECOND, FORMS[(i // 4 + 3) % len(FORMS)], PLACES[(i // 4) % len(PLACES)], opted_out)
        if not opted_out:
            builder.bad(BAD[i % len(BAD)])
            if i % _REPEATED_EVERY == 3 and self._num_repeated() >= _GROUP:
                group = min(i // _REPEATED_EVERY // _GROUP, self._num_repeated() // _GROUP - 1)
                builder.repeated(repeated_text(group))
        return [builder.document(opted_out), *builder.resources], builder.planted

    def test_image(self, i: int) -> Image.Image:
        """The image of the test set that page `i` holds a copy of."""
        return images.photograph(make_scene(self.world, "test", i), 352)

    def _num_repeated(self) -> int:
        every = (_REPEATED_EVERY, _OPTED_OUT_EVERY)
        assert every[1] % every[0] == 0
        return sum(not self.opted_out(i) for i in range(3, self.pages, _REPEATED_EVERY))

    def opted_out(self, i: int) -> str:
        """How page `i` opts out, "" if it does not."""
        if i % _OPTED_OUT_EVERY != 7:
            return ""
        return PAGE_OPT_OUTS[i // _OPTED_OUT_EVERY % len(PAGE_OPT_OUTS)]

    @property
    def world(self) -> int:
        """The seed of the scenes."""
        return 1_000_000 + self.seed

    def scene(self, i: int, which: int) -> Scene:
        """The scene of the `which`-th photograph of page `i`."""
        return make_scene(self.world, "train", 5 * i + which)

    def side(self, i: int) -> int:
        """The width of the photographs of page `i`, in pixels."""
        return 336 + 16 * (i % 5)

    def captions(self, scene: Scene) -> tuple[str, ...]:
        """What is true of a scene, in five sentences; noted for `truth.json`."""
        if scene.key not in self.told:
            said = captions(scene, Dice(scene.seed, SPLITS.index(scene.split), scene.index, 2))
            self.told[scene.key] = tuple(caption.text for caption in said)
        return self.told[scene.key]

    def false_caption(self, i: int, scene: Scene) -> str:
        """A caption of another scene that does not hold for this one."""
        for step in range(1, 100):
            other = self.scene(i + 10_007 * step, _OTHER)
            for caption in captions(other, Dice(self.seed, i, step)):
                if not all(claim.holds(scene) for claim in caption.claims):
                    return caption.text
        raise AssertionError("no caption is false")


class _Builder:
    """One page while it is put together."""

    def __init__(self, web: Web, url: str, folder: str, number: int, dice: Dice):
        self.web, self.url, self.folder, self.number, self.dice = web, url, folder, number, dice
        self.based = False
        self.resources: list[Resource] = []
        self.planted: list[Planted] = []
        self._blocks: list[str] = []

    def good(self, which: int, form: str, place: str, opted_out: str) -> None:
        """A photograph with a true caption; of kind "opted-out page" where the page opts out."""
        scene = self.web.scene(self.number, which)
        picture = images.photograph(scene, self.web.side(self.number))
        said = self.dice.shuffled(self.web.captions(scene))
        texts = {place: said[0]}
        if place in ("title", "figcaption") and self.dice.chance(0.3):
            texts["alt"] = bad_text("file name", self.dice)
        if place == "alt" and self.dice.chance(0.3):
            texts["figcaption"] = said[1]
        kind = f"opted-out page: {opted_out}" if opted_out else "good"
        self._show(kind, f"{scene.key}.jpg", images.jpeg(picture), texts, form=form, place=place, scene=scene)

    def repeated(self, text: str) -> None:
        """A photograph whose only text many others have, too."""
        scene = self.web.scene(self.number, _REPEATED)
        picture = images.photograph(scene, self.web.side(self.number))
        self._show("repeated text", f"{scene.key}.jpg", images.jpeg(picture), {"alt": text}, scene=scene)

    def bad(self, kind: str) -> None:
        """What is wrong in the way that `kind` says, and in no other."""
        if kind == "near-duplicate":
            self._near_duplicate()
            return
        scene, dice = self.web.scene(self.number, _PLANTED), self.dice
        if kind.endswith("test-set copy"):
            scene = make_scene(self.web.world, "test", self.number)
        name = f"{scene.split}-{scene.index:06d}-{dice.below(100)}.jpg"
        text = dice.pick(self.web.captions(scene))
        if kind == "mismatched caption":
            text = self.web.false_caption(self.number, scene)
        elif kind in ("file name", "boilerplate", "other language", "keyword list", "unnatural"):
            text = bad_text(kind, dice)
        content_type, status, headers = "image/jpeg", 200, {}
        if kind == "unnatural":
            draw = (images.chart, images.screenshot, images.logo)[self.number // len(BAD) % 3]
            name, body, content_type = name.replace(".jpg", ".png"), images.png(draw(dice)), "image/png"
        elif kind == "missing":
            body, content_type, status = b"<html><body>Not found</body></html>", "text/html", 404
        else:
            body = self._photograph(kind, scene)
        if kind == "not an image":
            body = b"<!DOCTYPE html><html><body>Please log in to see this photo.</body></html>"
            content_type = dice.pick(("image/jpeg", "text/html"))
        if kind == "opted-out image: header":
            headers = {"X-Robots-Tag": dice.pick(("noai", "noimageai", "ccbot: nofollow, noai", "noml"))}
        place = dice.pick(("alt", "figcaption"))
        self._show(kind, name, body, {place: text}, content_type, status, headers, place=place, scene=scene)

    def _photograph(self, kind: str, scene: Scene) -> bytes:
        side = self.web.side(self.number)
        if kind.endswith("test-set copy"):
            picture = self.web.test_image(self.number)
            picture = ImageOps.mirror(picture) if kind.startswith("mirrored") else picture
            return images.jpeg(picture.resize((side - 8, side - 8), Image.Resampling.BICUBIC), 60)
        picture = images.photograph(scene, 208 if kind == "too small" else side)
        if kind == "extreme aspect":
            return images.jpeg(picture.resize((3 * side + 30, side - 16), Image.Resampling.BICUBIC))
        data = images.jpeg(picture)
        if kind == "broken image":
            return data[: int(len(data) * self.dice.uniform(0.2, 0.7))]
        return images.reserved(data) if kind == "opted-out image: embedded" else data

    def _near_duplicate(self) -> None:
        """A smaller, worse compressed copy of the main photograph of the page before, with a text that says less."""
        before = self.number - 1 if self.number and not self.web.opted_out(self.number - 1) else self.number
        scene = self.web.scene(before, MAIN)
        side = self.web.side(before)
        smaller = images.photograph(scene, side).resize((side - 24, side - 24), Image.Resampling.BICUBIC)
        name, text = f"copy-of-{scene.index}.jpg", bad_text("vague", self.dice)
        self._show("near-duplicate", name, images.jpeg(smaller, 55), {"alt": text}, scene=scene)

    def _show(
        self,
        kind: str,
        name: str,
        body: bytes,
        texts: dict[str, str],
        content_type: str = "image/jpeg",
        status: int = 200,
        headers: dict[str, str] | None = None,
        *,
        form: str = "absolute",
        place: str = "alt",
        scene: Scene,
    ) -> None:
        """Put an image on the page, in a form of FORMS."""
        url = self.folder + name
        self.resources.append(Resource(url, body, content_type, status, headers or {}))
        urls, small = [url], ""
        if form in ("srcset", "picture"):
            small = self.folder + "small/" + name
            thumbnail = images.photograph(scene, self.web.side(self.number)).resize((160, 160), Image.Resampling.BOX)
            self.resources.append(Resource(small, images.jpeg(thumbnail, 75), "image/jpeg"))
            urls.append(small)
        self.based |= form == "base"
        source = self._reference(url, form)
        side = self.web.side(self.number)
        size = (side, side) if kind == "good" and self.dice.chance(0.4) else None
        markup = form if form in ("lazy", "srcset", "picture", "noscript") else "plain"
        shown = figure(source, texts, markup, small=self._reference(small, form), size=size, dice=self.dice)
        heading = ("More from the attic", "Also on show", "Next picture", "In the same room")[len(self._blocks) % 4]
        self._blocks.append(shown if not self._blocks else f"<h2>{heading}</h2>\n    {shown}")
        self.planted.append(
            Planted(
                kind=kind,
                page=self.url,
                images=tuple(urls),
                scene=scene.key,
                place=place,
                form=form,
                text=texts.get(place, ""),
            )
        )

    def _reference(self, url: str, form: str) -> str:
        """The URL of an image as the page writes it."""
        path = urlsplit(url).path
        if form == "protocol-relative":
            return url.partition(":")[2]
        if form in ("relative", "lazy"):
            return f"../..{path}"
        if form in ("rooted", "srcset"):
            return path
        return path.removeprefix("/photos/") if form == "base" else url

    def document(self, opted_out: str) -> Resource:
        """The page itself."""
        head = '\n  <base href="/photos/">' if self.based else ""
        metas = {"robots meta": ("robots", "noai, noimageai"), "TDM meta": ("tdm-reservation", "1")}
        headers = {"X-Robots-Tag": {"X-Robots-Tag": "noai"}, "TDM header": {"tdm-reservation": "1"}}
        if opted_out in metas:
            name, content = metas[opted_out]
            head += f'\n  <meta name="{name}" content="{content}">'
        html = document(f"Page {self.number}", self._blocks, self.dice, head=head)
        return Resource(self.url, html.encode(), "text/html; charset=utf-8", 200, headers.get(opted_out, {}))
