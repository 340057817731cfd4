"""A web page around a scene: what a crawler would find, for the collection pipeline.

The picture stands among things that a pipeline must tell from it: navigation icons, a tracking pixel, advertisements,
file names as alternative texts, text in other languages, and boilerplate.
"""

import zlib
from collections.abc import Mapping, Sequence
from html import escape

from crossgrain.data.records import Record
from crossgrain.data.scenes.world import Dice

_BOILERPLATE = (
    "Click here to subscribe to our newsletter", "All rights reserved. Copyright 2019 Example Media Ltd.",
    "We use cookies to improve your experience", "Share this on social media", "Read more", "Terms of service",
    "Please enable JavaScript to view this page", "Buy now: free shipping on orders over $49.99!!!",
)  # fmt: skip
_FOREIGN = (
    ("de", "Ein Bild aus unserer Sammlung, das auf dem Dachboden gefunden wurde und niemandem gehört."),
    ("fr", "Une image de notre collection, trouvée dans un grenier et qui n'appartient à personne."),
    ("es", "Una imagen de nuestra colección, hallada en un desván y que no pertenece a nadie."),
    ("zh", "这是我们收藏中的一幅画，在阁楼上被发现，不属于任何人。"),
    ("ru", "Картина из нашего собрания, найденная на чердаке и никому не принадлежащая."),
)
ICONS = ("home", "menu", "search", "logo", "facebook", "print", "arrow-left")
BANNER, THUMBNAIL, PIXEL = "/ads/banner.gif", "/thumbs/related.jpg", "https://tracker.example/pixel.gif"
# what lazy loaders show first
EMPTY_IMAGE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
_LAZY = ("data-src", "data-original", "data-lazy-src")
_JUNK_ALTS = ("", "image", "IMG_{:04d}.JPG", "photo {:d}", "thumbnail", "click to enlarge")


def icon_url(name: str) -> str:
    """Where a site keeps the icon `name`, one of ICONS."""
    return f"/static/{name}.png"


def _tag(source: str, alt: str, title: str = "", size: tuple[int, int] | None = None, more: str = "") -> str:
    extent = f' width="{size[0]}" height="{size[1]}"' if size else ""
    titled = f' title="{escape(title)}"' if title else ""
    return f'<img src="{escape(source)}" alt="{escape(alt)}"{titled}{extent}{more}>'


def figure(
    source: str,
    texts: Mapping[str, str],
    markup: str = "plain",
    *,
    small: str = "",
    size: tuple[int, int] | None = None,
    dice: Dice,
) -> str:
    """An image with its texts by place (alt, title, figcaption, near), in one of the ways in which pages show images.

    markup: plain · lazy (the source in a data attribute) · noscript (in there only) · srcset and picture, which offer
    `small` as the plain source, 160 pixels wide, and `source` as the best. `size` is what the page declares.
    """
    alt, title = texts.get("alt", ""), texts.get("title", "")
    best = escape(f"{small} 160w, {source} 640w") if small else ""
    if markup == "lazy":
        shown = _tag(EMPTY_IMAGE, alt, title, size, f' {dice.pick(_LAZY)}="{escape(source)}" class="lazy"')
    elif markup == "noscript":
        shown = f"{_tag(EMPTY_IMAGE, '')}<noscript>{_tag(source, alt, title, size)}</noscript>"
    elif markup == "srcset":
        shown = _tag(small, alt, title, None, f' srcset="{best}" sizes="(max-width: 600px) 160px, 640px"')
    elif markup == "picture":
        shown = f'<picture><source srcset="{best}">{_tag(small, alt, title)}</picture>'
    else:
        shown = _tag(source, alt, title, size)
    caption = f"\n      <figcaption>{escape(texts['figcaption'])}</figcaption>" if texts.get("figcaption") else ""
    near = f"\n    <p>{escape(texts['near'])}</p>" if texts.get("near") else ""
    return f"""<figure>
      {shown}{caption}
    </figure>{near}"""


def document(title: str, main: Sequence[str], dice: Dice, *, head: str = "") -> str:
    """A page of a picture site: the blocks of `main` among navigation, advertisements, other languages, a tracker."""
    language, foreign = dice.pick(_FOREIGN)
    icons = "\n".join(_tag(icon_url(name), name, size=(16, 16)) for name in dice.shuffled(ICONS)[:4])
    boilerplate = dice.shuffled(_BOILERPLATE)
    blocks = "\n    ".join(main)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>{escape(title)} | Example Pictures</title>
  <meta name="description" content="{escape(boilerplate[0])}">{head}
  <script>var tracker = "<img src='/never.gif' alt='not an image'>";</script>
</head>
<body>
  <nav>
{icons}
    <a href="/">Home</a> <a href="/gallery?page={dice.below(90) + 2}">Next</a>
  </nav>
  <main>
    <p lang="{language}">{foreign}</p>
    {blocks}
    <p>{escape(boilerplate[1])}</p>
    {_tag(BANNER, boilerplate[2], size=(468, 60))}
  </main>
  <aside lang="{language}">{_tag(THUMBNAIL, foreign, size=(90, 90))}</aside>
  <footer>{escape(boilerplate[3])} {_tag(PIXEL, "", size=(1, 1))}</footer>
</body>
</html>
"""


def page(record: Record, image_url: str | None = None) -> str:
    """An HTML page that shows the record's picture (at `image_url`, by default "KEY.jpg") with some of its captions.

    Where a caption stands (alt, title, figcaption, the paragraph beside) varies from page to page, and some places hold
    junk instead; at least one of alt and figcaption is always a caption. The record needs five captions, as every scene
    has; the page is a function of its key and captions.
    """
    dice = Dice(zlib.crc32(record.key.encode()), zlib.crc32("\n".join(record.captions).encode()))
    captions = dice.shuffled(record.captions)
    texts = {"alt": captions[0] if dice.chance(0.7) else dice.pick(_JUNK_ALTS).format(dice.below(10_000))}
    if texts["alt"] != captions[0] or dice.chance(0.6):
        texts["figcaption"] = captions[1]
    if dice.chance(0.3):
        texts["title"] = captions[2]
    if dice.chance(0.6):
        texts["near"] = captions[4]
    return document(captions[3], [figure(image_url or f"{record.key}.jpg", texts, dice=dice)], dice)
