"""Cut off what pages put around a caption: stock photo prefixes, credits, site names, addresses, names of files."""

import re

from crossgrain.collect.sentences.boilerplate import is_file_name
from crossgrain.collect.sentences.split import words_of
from crossgrain.collect.sentences.wordlists import word_set

_PICTURE = r"(?:photo(?:graph(?:y|s)?)?|image|picture|illustration|vector|footage|video|clip ?art|pic|graphic)s?"
_AGENCIES = (
    r"(?:getty ?images|getty|shutterstock|i ?stock(?: ?photo)?|alamy|adobe ?stock|unsplash|pexels|pixabay|dreamstime"
    r"|123rf|depositphotos|flickr|pinterest|wikimedia commons|wikipedia|youtube|reuters|associated press|ap photo"
    r"|bigstock|freepik|corbis)"
)
_CLICK = (
    r"(?:click|tap|press|hover)(?: here| on| the| this| image| photo| picture| thumbnail)* (?:to|for)"
    r" (?:a |the |this |full )*(?:enlarge|larger|bigger|zoom|expand|see|view|open|magnify|full|download|read)"
)
_STOCK = r"(?:royalty[- ]free |vintage |free |premium )*(?:stock|royalty[- ]free|premium)"
_HEAD = re.compile(
    rf"{_STOCK} {_PICTURE}(?: of| showing|\s*[:|–—-])?\s+"
    r"|(?:(?:file|representative|featured|image|media|photo|main|cover) )?"
    rf"(?:{_PICTURE}|caption|fig(?:ure)?\.?|slide|above|below|pictured|thumbnail|alt|title|description)\s*\d{{0,3}}\s*[:=]\s+"
    r"|(?:image|media|photo|picture) ?caption(?= ?[A-Z\"“])"
    rf"|(?:{_PICTURE}|slide|page) ?#?\d{{1,3}} ?(?:of|/) ?\d{{1,3}}(?=\D)\s*[:.|–—-]*\s*(?=\S)"
    r"|#?\d{1,3} ?(?:of|/) ?\d{1,3}\s*[:.|–—-]+\s+(?=\S)"
    r"|#?\d{1,3} of \d{1,3}\s+(?-i:(?=[\"“]?[A-Z]))"  # not of "3 of 5 dogs"
    rf"|{_PICTURE} (?:may|might) contain\s*:\s*|may be an? (?:[a-z-]+ ){{0,4}}?{_PICTURE} of\s+"
    rf"|thumbnail (?:{_PICTURE} )?(?:for|of)\s+|(?:enlarge|zoom)(?: this)? {_PICTURE}\s*[:|–—-]\s+"
    rf"|{_CLICK}(?: (?:this|the|full|size|{_PICTURE}|version))*\s*[:|–—-]\s*",
    re.IGNORECASE,
)
_INSIDE = re.compile(
    rf"[(\[](?:(?:file )?{_PICTURE}|credits?|source|courtesy|via|©|\(c\)|copyright|ap|afp|reuters|getty|{_CLICK})\b"
    r"[^()\[\]]*[)\]]|(?:(?:\.\.\.|…) ?)?\[(?:…|\.\.\.|\+)\]|\(\d{1,3} (?:of|/) \d{1,3}\)",
    re.IGNORECASE,
)
# Ends by the words of which one stands in every match: a text without them need not be searched.
_ENDS = tuple(
    (word_set(words), re.compile(rf"(?:{end})$", re.IGNORECASE))
    for words, end in (
        # "built 50 years ago" is of the caption
        ("ago", r"(?:\b(?:\d{1,2}|an?) (?:minute|hour|day)|[^\w\s]\s*(?:\d{1,2}|an?) (?:week|month|year))s? ago"),
        ("click tap press hover", rf"\b{_CLICK}\b[^.!?]{{0,60}}[.!?)\]]*"),
        (
            "copyright rights",
            r"(?:\bcopyright (?:©|\(c\)|\d{4}|by\b|held\b|reserved\b)|\ball rights reserved).*",
        ),
        ("stock royalty royalty-free premium", rf"[,|–—-]\s*{_STOCK} {_PICTURE}(?:,? .{{0,40}})?"),
        (
            "getty gettyimages shutterstock istock istockphoto stock alamy adobe adobestock unsplash pexels pixabay "
            "123rf dreamstime depositphotos flickr pinterest wikimedia wikipedia youtube reuters associated ap "
            "bigstock freepik corbis",
            rf"\b(?:(?:{_PICTURE} )?(?:by (?:[^\s,;]+ ){{1,3}}(?:on|via|for|from|/) |by |via |from )|on ){_AGENCIES}"
            r"\b.{0,30}"
            rf"|[,;|/(–—-]\s*(?:{_PICTURE} on )?{_AGENCIES}\b.{{0,40}}",
        ),
    )
)
_END_WORDS = frozenset(word for trigger, _ in _ENDS for word in trigger)
_CREDIT = re.compile(  # "Photo: Ann Example", "Credit...Ann Example"
    rf"\b(?:{_PICTURE} )?(?:credits?|source|{_PICTURE}(?: by| courtesy(?: of)?)?|courtesy of|via)"
    r"\s*(?::|\.\.\.|…)[^.!?]{0,80}[.)\]]?$",
    re.IGNORECASE,
)
_MAX_CREDIT = 200  # characters, more than any match of it has: no need to look before them
_COPYRIGHT_SIGN = re.compile(r"(?:©|\(c\) ?\d{4}).*$", re.IGNORECASE)
# Every match of _HEAD holds one of these words, or a sign, or is a counter ("3 of 7").
_HEAD_WORDS = word_set("stock royalty royalty-free premium thumbnail click tap press hover enlarge zoom may")
# Signs by which nothing is cut, but where they stand as in _ODD.
_PLAIN = re.compile(r"[A-Za-z0-9\"“‘'’”.,;!?$&%/+@~ -]*")
_ODD = re.compile(r"\.[A-Za-z0-9.]| [ .,!?;-]")
_COUNTER = re.compile(r"(?:[a-z]+ )?#?\d{1,3} ?(?:of|/) ?\d", re.IGNORECASE)

_TOP_DOMAINS = (  # before a path any ending is one; by themselves these, the last in small letters: they are words too
    "com|org|net|edu|gov|info|biz|io|co|uk|de|fr|es|nl|eu|ca|au|ru|jp|cn|br|tv|blog|shop|html?|php|online"
    "|site|website|store|xyz|app|dev|club|pro|tech|gallery|photography|studio|agency|cloud|pl|cz|sk|ch|dk|fi|pt|gr|hu"
    "|ro|bg|hr|lt|lv|ee|ie|il|tr|ua|ir|kr|tw|hk|sg|vn|ph|nz|za|mx|cl|pe|(?-i:it|us|in|me|at|be|no|se|si|ai|my|to)"
)
_URL = re.compile(
    r"(?:https?|ftp)://\S*|www\.\S+|(?<![\w@＠.-])[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)*"
    rf"\.(?:(?:{_TOP_DOMAINS})(?:/\S*)?|(?-i:[a-z]{{2,}}/[a-z0-9~?#@%_-])\S*)(?![\w-]|\.\w|@)",
    re.IGNORECASE,
)
_LEADING = word_set("visit via from source website see at on")  # "see www.example.com"
_INVITATION = re.compile(  # to the end of its sentence, which may be swallowed by the address
    rf"\b(?:visit|see|go to|check out)\s+(?:{_URL.pattern})(?:(?<=[.!?])|(?<![.!?])[^.!?;]*[.!?;]?)", re.IGNORECASE
)
_FILE = re.compile(
    r"(?<!\S)\S*[^\s.]\.(?:jpe?g|png|gif|webp|svg|bmp|tiff?|ico|avif|heic|pdf|mp4|mov)(?:\?\S*)?(?=[\s,;:!)]|\.?$)",
    re.IGNORECASE,
)
_DOT_INSIDE = re.compile(r"\.[A-Za-z0-9]|://")

_BAR = re.compile(r"\s+(?:\|\||::|[»›•·¦┃⋆★])\s+|\s*\|\s*")
_BAR_SIGN = re.compile(r"[|»›•·¦┃⋆★]|::")
_SITE = re.compile(
    r"\s+[–—-]\s+(?:(?:[A-Z][\w.'’&]*|&|of|the|and|for|in)(?:\s+|$)){1,4}$"  # " - The Example Times"
)
_EDGES = " \t|–—-_~*•·»«›‹:;,/\\=+<>¦#^"
_OPEN = "([{"
_EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]|\{\s*\}")
_CLOSING = {")": "(", "]": "[", "}": "{"}
_MAX_LAYERS = 20  # around a caption; where there are more, there is no caption, and to look for it would take long
_DANGLING = re.compile(r"\s+(?=[,.;:!?](?:\s|$))")


def cut(text: str) -> str:
    """A repaired text without its surroundings; may be empty. Idempotent: it only takes away, until nothing more goes.

    A text that is the name of a file as a whole stays as it is, to be counted as one.
    """
    if _is_plain(text):
        return text
    for _ in range(_MAX_LAYERS):
        if is_file_name(text) or (shorter := _cut_once(text)) == text:
            return text
        text = shorter
    return ""


def _is_plain(text: str) -> bool:
    """Whether it is told at a glance, as of most texts, that nothing can be cut off."""
    if not _PLAIN.fullmatch(text) or _ODD.search(text) or text[:1] in _EDGES or text[-1:] in _EDGES:
        return False
    words = words_of(text)
    return (
        _HEAD_WORDS.isdisjoint(words)
        and _END_WORDS.isdisjoint(words)
        and "aption" not in text
        and not (("of" in text or "/" in text) and _COUNTER.match(text))
    )


def _cut_once(text: str) -> str:
    if "." in text[:-1] and _DOT_INSIDE.search(text):
        text = _without_addresses(text)
    words = words_of(text)
    if not _HEAD_WORDS.isdisjoint(words) or "aption" in text or ":" in text or "=" in text or _COUNTER.match(text):
        text = text[match.end() :] if (match := _HEAD.match(text)) else text
    if ":" in text or "..." in text or "…" in text:
        text = text[: match.start()] if (match := _CREDIT.search(text, max(0, len(text) - _MAX_CREDIT))) else text
    if not _END_WORDS.isdisjoint(words):
        for trigger, end in _ENDS:
            text = text if trigger.isdisjoint(words) else end.sub("", text)
    if "©" in text or "(c)" in text or "(C)" in text:
        text = _COPYRIGHT_SIGN.sub("", text)
    text = _without_site_name(text)
    if "(" in text or "[" in text or "{" in text:
        text = _INSIDE.sub("", text)
        if _EMPTY_BRACKETS.search(text):
            text = _without_empty_brackets(text)
    text = " ".join(text.split())
    if " ." in text or " ," in text or " !" in text or " ?" in text or " :" in text or " ;" in text:
        text = _DANGLING.sub("", text)
    return text.lstrip(_EDGES).rstrip(_EDGES + _OPEN)


def _without_empty_brackets(text: str) -> str:
    """In one pass, however deep they are nested."""
    kept: list[str] = []
    for sign in text:
        if sign in _CLOSING:
            last = len(kept) - 1
            while last >= 0 and kept[last].isspace():
                last -= 1
            if last >= 0 and kept[last] == _CLOSING[sign]:
                del kept[last:]
                continue
        kept.append(sign)
    return "".join(kept)


def _without_addresses(text: str) -> str:
    """Words that are addresses or names of files are left out, with a "via" before them, or all that invites to one."""
    kept: list[str] = []
    for token in _INVITATION.sub("", text).split():
        rest = _FILE.sub("", _URL.sub("", token)) if "." in token[:-1] else token
        if rest != token and kept and kept[-1].lower().rstrip(":") in _LEADING:
            kept.pop()
        if rest.strip(".,;:!?()[]\"'") or rest == token:
            kept.append(rest)
    return " ".join(kept)


def _without_site_name(text: str) -> str:
    """The longest of the parts between bars (the first of equals), without a title-cased name after a dash."""
    if _BAR_SIGN.search(text):
        text = max(_BAR.split(text), key=lambda part: len(part.split()))
    if (" - " in text or "–" in text or "—" in text) and (match := _SITE.search(text)):
        before = text[: match.start()]
        if sum(word.islower() for word in before.split()) >= 2:
            return before
    return text
