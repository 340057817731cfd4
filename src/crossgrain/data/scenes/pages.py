"""A web page around a scene: what a crawler would find, for the collection pipeline.

The picture stands among things that a pipeline must tell from it: navigation icons, a tracking pixel, advertisements,
file names as alternative texts, text in other languages, and boilerplate.
"""

import zlib
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
_ICONS = ("home", "menu", "search", "logo", "facebook", "print", "arrow-left")
_JUNK_ALTS = ("", "image", "IMG_{:04d}.JPG", "photo {:d}", "thumbnail", "click to enlarge")


def _tag(source: str, alt: str, title: str = "", size: tuple[int, int] | None = None) -> str:
    extent = f' width="{size[0]}" height="{size[1]}"' if size else ""
    titled = f' title="{escape(title)}"' if title else ""
    return f'<img src="{escape(source)}" alt="{escape(alt)}"{titled}{extent}>'


def page(record: Record, image_url: str | None = None) -> str:
    """An HTML page that shows the record's picture (at `image_url`, by default "KEY.jpg") with some of its captions.

    Where a caption stands (alt, title, figcaption, the paragraph beside) varies from page to page, and some places hold
    junk instead; at least one of alt and figcaption is always a caption. The record needs five captions, as every scene
    has; the page is a function of its key and captions.
    """
    dice = Dice(zlib.crc32(record.key.encode()), zlib.crc32("\n".join(record.captions).encode()))
    source = image_url or f"{record.key}.jpg"
    captions = dice.shuffled(record.captions)
    alt = captions[0] if dice.chance(0.7) else dice.pick(_JUNK_ALTS).format(dice.below(10_000))
    show_caption = alt != captions[0] or dice.chance(0.6)
    title = captions[2] if dice.chance(0.3) else ""
    language, foreign = dice.pick(_FOREIGN)
    icons = "\n".join(_tag(f"/static/{name}.png", name, size=(16, 16)) for name in dice.shuffled(_ICONS)[:4])
    boilerplate = dice.shuffled(_BOILERPLATE)
    caption = f"\n      <figcaption>{escape(captions[1])}</figcaption>" if show_caption else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>{escape(captions[3])} | Example Pictures</title>
  <meta name="description" content="{escape(boilerplate[0])}">
  <script>var tracker = "<img src='/never.gif' alt='not an image'>";</script>
</head>
<body>
  <nav>
{icons}
    <a href="/">Home</a> <a href="/gallery?page={dice.below(90) + 2}">Next</a>
  </nav>
  <main>
    <p lang="{language}">{foreign}</p>
    <figure>
      {_tag(source, alt, title)}{caption}
    </figure>
    <p>{escape(captions[4] if dice.chance(0.6) else boilerplate[1])}</p>
    {_tag("/ads/banner.gif", boilerplate[2], size=(468, 60))}
  </main>
  <aside lang="{language}">{_tag("/thumbs/related.jpg", foreign, size=(90, 90))}</aside>
  <footer>{escape(boilerplate[3])} {_tag("https://tracker.example/pixel.gif", "", size=(1, 1))}</footer>
</body>
</html>
"""
