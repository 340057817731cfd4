"""Each machine-readable way of opting out that a page, a response or a file carries is seen, and named."""

import io
import time
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from crossgrain.collect.opt_outs import embedded_opt_out, forbids_training, page_opt_out, response_opt_out

PLUS = "http://ns.useplus.org/ldf/vocab/"


@pytest.mark.parametrize("word", ["noai", "noimageai", "noindex", "noimageindex", "noml", "NoAI", "DisallowAITraining"])
def test_each_word_of_robots_meta_and_header_is_named(word):
    said = word.lower()
    assert page_opt_out([("robots", f"follow, {word}")], {}) == f"opted out: meta {said}"
    assert response_opt_out({"x-robots-tag": f"nofollow, {word}"}) == f"opted out: X-Robots-Tag {said}"


@pytest.mark.parametrize(
    ("metas", "reason"),
    [
        ([("robots", "none")], "opted out: meta noindex"),
        ([("robots", "noai,noimageai")], "opted out: meta noai"),
        ([("robots", "index, follow"), ("tdm-reservation", "1")], "opted out: meta tdm-reservation"),
        ([("gptbot", "noindex")], "opted out: meta noindex"),
        ([("crossgrain", "noimageai")], "opted out: meta noimageai"),
        ([("content-usage", "train-ai=n")], "opted out: meta content-usage"),
        ([("googlebot", "noindex")], None),
        ([("tdm-reservation", "0"), ("tdm-policy", "https://example.com/policy")], None),
        ([("robots", "index, follow, max-image-preview:large")], None),
        ([("description", "noai noindex noml")], None),
        ([("robots", "max-image-preview: none, max-snippet: 20")], None),
        ([("robots", "max-image-preview:large noindex")], "opted out: meta noindex"),
        ([("robots", "index; noai")], "opted out: meta noai"),
        ([("robots", "unavailable_after: 25-Jun-2010 15:00:00 EST")], "opted out: meta noindex"),
        ([], None),
    ],
)
def test_metas(metas, reason):
    assert page_opt_out(metas, {}) == reason


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("noai", "noai"),
        ("googlebot: noindex\nnoimageai", "noimageai"),  # two headers: the second is for everybody
        ("googlebot: nofollow, noindex", None),  # the agent stands for all words up to the next agent
        ("googlebot: noindex, ccbot: noml", "noml"),
        ("crossgrain: noimageindex", "noimageindex"),
        ("*: noai", "noai"),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST, noai", "noai"),
        ("unavailable_after: Wed, 25 Jun 2098 15:00:00 GMT, noai", "noai"),
        ("unavailable_after: Wednesday, 25-Jun-98 15:00:00 GMT, noai", "noai"),
        ("unavailable_after: 2098-06-25T15:00:00+00:00, noai", "noai"),
        ("unavailable_after: Wed, 25 Jun 2098 15:00:00 GMT", None),
        ("unavailable_after: Fri, 25 Jun 2010 15:00:00 GMT", "noindex"),
        ("unavailable_after: 2010-06-25", "noindex"),
        ("unavailable_after: some day", None),
        ("googlebot: unavailable_after: 25 Jun 2010 15:00:00 GMT", None),
        ("crossgrain/1.0: noai", "noai"),
        ("otherbot/2.1: noindex, noai", None),
        ("max-image-preview: none", None),
        ("max-image-preview:none, noimageindex", "noimageindex"),
        ("noai; noindex", "noai"),
        ("max-snippet:20, noindex", "noindex"),
        ("all", None),
        ("", None),
    ],
)
def test_x_robots_tag_with_agents_and_several_headers(header, reason):
    assert response_opt_out({"x-robots-tag": header}) == (reason and f"opted out: X-Robots-Tag {reason}")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("tdm-reservation", "1", "opted out: header tdm-reservation"),
        ("tdm-reservation", "0", None),
        ("tdm-reservation", "0\n1", "opted out: header tdm-reservation"),
        ("tdm-reservation", "0, 1", "opted out: header tdm-reservation"),
        ("tdm-reservation", "0\n0", None),
        ("content-usage", "train-ai=n", "opted out: header Content-Usage"),
        ("content-usage", "search=y, train-ai=y", None),
        ("content-signal", "search=yes, ai-train=no", "opted out: header Content-Signal"),
    ],
)
def test_other_headers(name, value, reason):
    assert response_opt_out({name: value}) == reason
    assert page_opt_out([], {name: value}) == reason


def test_preferences_name_training():
    assert forbids_training("ai-train=no") and forbids_training("search=y;train-ai=n") and forbids_training("tdm=?0")
    assert not forbids_training("search=no, ai-input=no") and not forbids_training("ai-train=yes")
    assert not forbids_training("nonsense") and not forbids_training("")


def picture(kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert("RGB").save(file, kind, **options)
    return file.getvalue()


def xmp(body: str) -> bytes:
    return f"<x:xmpmeta><rdf:RDF><rdf:Description {body}</rdf:Description></rdf:RDF></x:xmpmeta>".encode()


MINING = {
    "attribute": xmp(f'plus:DataMining="{PLUS}DMI-PROHIBITED-GENAIMLTRAINING">'),
    "element": xmp(f"><plus:DataMining>{PLUS}DMI-PROHIBITED</plus:DataMining>"),
    "resource": xmp(f'><plus:DataMining rdf:resource="{PLUS}DMI-PROHIBITED-AIMLTRAINING"/>'),
    "words": xmp("><plus:DataMining>Prohibited except for search engine indexing</plus:DataMining>"),
    "list": xmp(f"><plus:DataMining><rdf:Bag><rdf:li>{PLUS}DMI-PROHIBITED</rdf:li></rdf:Bag></plus:DataMining>"),
    "value": xmp(
        f"><plus:DataMining rdf:parseType='Resource'><rdf:value>{PLUS}DMI-PROHIBITED</rdf:value></plus:DataMining>"
    ),
    "about": xmp(f"><plus:DataMining><rdf:Description rdf:about='{PLUS}DMI-PROHIBITED'/></plus:DataMining>"),
    "constraint": xmp(f'plus:DataMining="{PLUS}DMI-PROHIBITED-SEECONSTRAINT">'),
}


@pytest.mark.parametrize("form", MINING)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_iptc_data_mining_in_xmp(kind, form):
    name = {"JPEG": {"xmp": MINING[form]}, "WEBP": {"xmp": MINING[form]}, "TIFF": {"tiffinfo": {700: MINING[form]}}}
    assert embedded_opt_out(picture(kind, **name[kind])) == "opted out: IPTC plus:DataMining"


@pytest.mark.parametrize("packed", [False, True])
def test_xmp_in_png_packed_or_not(packed):
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", MINING["attribute"].decode(), zip=packed)
    data = picture("PNG", pnginfo=info)
    assert (b"DataMining" in data) != packed
    assert embedded_opt_out(data) == "opted out: IPTC plus:DataMining"


@pytest.mark.parametrize("packed", [False, True])
def test_xmp_in_hexadecimal_in_png(packed):
    info = PngInfo()
    text = MINING["attribute"]
    info.add_text("Raw profile type xmp", f"\nxmp\n{len(text):8}\n{text.hex()}\n", zip=packed)
    assert embedded_opt_out(picture("PNG", pnginfo=info)) == "opted out: IPTC plus:DataMining"


def test_a_bomb_in_a_text_chunk_is_not_unpacked_whole():
    packed = zlib.compress(b"\0" * 50_000_000)
    body = b"XML:com.adobe.xmp\0\1\0\0\0" + packed
    chunk = len(body).to_bytes(4) + b"iTXt" + body + zlib.crc32(b"iTXt" + body).to_bytes(4)
    data = picture("PNG")
    assert embedded_opt_out(data[:33] + chunk + data[33:]) is None


@pytest.mark.parametrize("value", ["DMI-ALLOWED", "DMI-UNSPECIFIED"])
@pytest.mark.parametrize(
    "form",
    [
        'plus:DataMining="{}" dc:rights="Copying prohibited">',
        "><plus:DataMining>{}</plus:DataMining><dc:rights>Copying prohibited</dc:rights>",
        '><plus:DataMining rdf:resource="{}"/><dc:rights>Copying prohibited</dc:rights>',
    ],
)
def test_allowed_or_unsaid_mining_is_no_opt_out(value, form):
    assert embedded_opt_out(picture("JPEG", xmp=xmp(form.format(PLUS + value)))) is None


@pytest.mark.parametrize(
    "unit",
    [b"DataMining", b"DataMining resource", b"c2pa.ai_training useuseuseuse", b" tdm:reservation", b"<a:DataMining>"],
)
def test_hostile_metadata_take_no_long_time(unit):
    data = b"GIF8 training-mining" + unit * (2**22 // len(unit))
    start = time.process_time()
    assert embedded_opt_out(data) is None
    assert time.process_time() - start < 1


def test_tdm_reservation_in_xmp():
    assert embedded_opt_out(picture("JPEG", xmp=xmp('tdm:reservation="1">'))) == "opted out: XMP tdm:reservation"
    assert embedded_opt_out(picture("JPEG", xmp=xmp("><tdm:reservation>1</tdm:reservation>"))) is not None
    assert embedded_opt_out(picture("JPEG", xmp=xmp('tdm:reservation="0">'))) is None


def cbor_entries(maker: str, uses: dict[str, str]) -> bytes:
    def text(word: str) -> bytes:
        assert len(word) < 256
        return (bytes([0x60 + len(word)]) if len(word) < 24 else b"\x78" + bytes([len(word)])) + word.encode()

    entries = b"".join(text(f"{maker}.{name}") + b"\xa1" + text("use") + text(use) for name, use in uses.items())
    return text("entries") + bytes([0xA0 + len(uses)]) + entries


def in_app11(jpeg: bytes, box: bytes, cut: int) -> bytes:
    """A box in two APP11 segments, as JPEG XT cuts it; the second one repeats the box's head."""
    parts = (box[:cut], box[:8] + box[cut:])
    segments = (b"JP\0\1" + (i + 1).to_bytes(4) + part for i, part in enumerate(parts))
    joined = b"".join(b"\xff\xeb" + (len(s) + 2).to_bytes(2) + s for s in segments)
    return jpeg[:2] + joined + jpeg[2:]


@pytest.mark.parametrize("maker", ["c2pa", "cawg"])
@pytest.mark.parametrize(
    ("uses", "named"),
    [
        ({"ai_training": "notAllowed"}, "ai_training"),
        ({"data_mining": "allowed", "ai_generative_training": "constrained"}, "ai_generative_training"),
        ({"ai_inference": "notAllowed"}, None),
        ({"ai_training": "allowed", "data_mining": "allowed"}, None),
    ],
)
def test_c2pa_training_and_mining(maker, uses, named):
    body = b"\0\0\1\0jumb jumd " + maker.encode() + b".training-mining\0cbor\xa1" + cbor_entries(maker, uses)
    reason = named and f"opted out: C2PA training-mining {named}"
    jpeg, png = picture("JPEG"), picture("PNG")
    for cut in range(10, len(body), 7):  # wherever the manifest is cut between two segments
        assert embedded_opt_out(in_app11(jpeg, body, cut)) == reason
    chunk = len(body).to_bytes(4) + b"caBX" + body + b"\0\0\0\0"
    assert embedded_opt_out(png[:33] + chunk + png[33:]) == reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_plain_picture_is_no_opt_out_even_cut_anywhere(kind):
    data = picture(kind)
    for end in range(0, len(data), 97):
        assert embedded_opt_out(data[:end]) is None
