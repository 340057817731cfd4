"""Tell what pages say about themselves, and names of files, from what is said about a picture.

Every phrase stands under one word of it, so that a text is searched only for the few phrases that it can hold. They are
English, the web's own language for this; an operator adds others with a list (`phrases.PhraseList`).
"""

import re

from crossgrain.collect.sentences.split import sentences, words_of
from crossgrain.collect.sentences.wordlists import word_set

_FRIENDS = r"(?:on|via|with) (?:facebook|twitter|x|social|e-?mail|friends|pinterest|whatsapp|linkedin|reddit|instagram)"
_SHORT = r"(?:[^\w.!?]+\w+){0,3}[^\w.!?]*(?:[.!?]|$)"  # a sentence ends after up to three more words
_SHORT_BEFORE = r"(?:^|[.!?] )(?:[^\s.!?]+ ){0,3}"  # it began up to three words before
_PHRASES = {
    "cookies": r"\b(?:use|uses|using|accept|allow|enable|our|all) (?:of )?cookies\b"
    rf"|^cookies (?:help|allow|enable|must|are used|on (?:this|our))\b|^cookies\b{_SHORT}",
    "cookie": r"\bcookie (?:polic|prefer|setting|consent|notice|banner)",
    "reserved": r"\b(?:all|some) rights reserved\b",
    "copyright": r"\bcopyright\b",
    "terms": r"\bterms (?:of|and) (?:service|use|conditions)\b",
    "privacy": r"\bprivacy (?:policy|notice|settings|statement)\b",
    "subscribe": r"\bsubscribe\b",
    "newsletter": r"\bnewsletter\b",
    "newsletters": r"\bnewsletters\b",
    "sign": r"\bsign up (?:now|here|today|to (?!(?:the|an?|his|her)\b)|for (?:our|free|more))\b"
    r"|(?:^|[^\w\s] ?)sign up (?:to|for)\b"
    rf"|\bsign in (?:to|with)\b|^sign (?:up|in)\b(?! (?:the|an?|front)\b){_SHORT}",
    "log": rf"\blog in (?:to|with|here)\b|^log (?:in|out)\b{_SHORT}",
    "login": r"^login\b|\blogin (?:to|with|here|page)\b",
    "logged": r"\bmust be logged\b",
    "account": r"\bcreate an? (?:free |new )?account\b",
    "password": r"\b(?:forgot(?:ten)?|forget|lost|reset)(?: your)? password\b",
    "javascript": r"\bjavascript\b",
    "browser": r"\byour browser (?:does|is|version)\b",
    "share": rf"^share (?:this|it|on|via)\b|^share\b{_SHORT}"
    rf"|\bshare (?:this |it )?(?:page |post |article |story |link |photo |image )?{_FRIENDS}\b",
    "social": r"\bsocial (?:share|icons?|links?)\b|\b(?:follow|find|join|connect)\b.{0,30}\bsocial media\b",
    "follow": rf"\bfollow us\b|^follow (?:me|our|this)\b|^follow\b.{{1,40}}\b{_FRIENDS}\b|^follow\b{_SHORT}",
    "like": rf"\blike us on\b|^like this\b{_SHORT}|\byou may also like\b",
    "tweet": r"\btweet this\b",
    "pin": r"\bpin it\b",
    "email": r"\be-?mail (?:this|us|address|to a friend)\b",
    "read": r"\bread (?:more|the full|full|next|also)\b",
    "more": r"\b(?:learn|find out|see|show|load|view|discover) more\b|\bmore info(?:rmation)?$",
    "continue": r"\bcontinue (?:reading|to site|shopping)\b",
    "click": r"\bclick (?:here|on|to|the|for|this|below|image|photo|picture)\b|\bjust a click\b",
    "tap": r"\btap (?:here|to (?:open|view|enlarge|zoom|see|expand))\b",
    "enlarge": r"\benlarge (?:this |the )?(?:image|photo|picture)\b|\bto enlarge\b",
    "buy": r"\bbuy (?:now|online|tickets|it now)\b",
    "cart": rf"\b(?:add to|view|your) (?:(?:my|your|shopping) )?cart\b|^shopping cart\b{_SHORT}",
    "basket": r"\badd to (?:my |your )?basket\b",
    "wishlist": r"\bwishlist\b",
    "now": r"\b(?:shop|order|book|call|apply|register|donate|watch|listen) now\b",
    "free": r"\bfree (?:shipping|delivery|download|trial|returns|quote)\b",
    "offer": r"\b(?:special|limited(?: time)?) offer\b",
    "promo": r"\bpromo code\b",
    "coupon": r"\bcoupon (?:code|codes)\b",
    "advertisement": rf"^(?:an )?advertisement(?: ?[:|–—-]|\b{_SHORT})",
    "sponsored": rf"\bsponsored (?:content|links?|post)\b|^sponsored\b{_SHORT}"
    r"|(?:^|\b(?:article|content|page|post|story|video) (?:is |was )?)sponsored by\b",
    "powered": r"(?:^|[.!?] |\b(?:proudly|site|website|blog|forum|is) )powered by\b(?! (?:a|an|the|two|three|four)\b)"
    r"|\bpowered by$",
    "affiliate": r"\baffiliate (?:link|links|program)\b",
    "missing": r"\bmissing (?:image|photo|picture)\b",
    "available": r"\b(?:no )?(?:image|photo|picture) (?:is )?(?:not )?available\b"
    r"|\bno (?:\w+ )?description available\b|\bavailable on the app store\b",
    "unavailable": r"\bunavailable\b",
    "found": r"\b(?:image|photo|picture|page|file) not found\b",
    "coming": r"\b(?:image|photo|picture|photos?) coming soon\b|^coming soon\b",
    "placeholder": r"\bplaceholder\b",
    "skip": r"\bskip to (?:main|content|navigation|the)\b",
    "back": r"\bback to (?:top|home|the top|gallery|results)\b",
    "next": r"\bnext (?:page|slide|image|post|article|photo|story)\b",
    "previous": r"\bprevious (?:page|slide|image|post|article|photo|story)\b",
    "view": r"\bview (?:all|larger|full|image|photo|gallery|profile|our|comments|details|product)\b",
    "menu": r"\b(?:close|open|toggle|main|mobile) menu\b",
    "navigation": r"\b(?:toggle|main|site|skip) navigation\b|\bnavigation menu\b",
    "download": r"\bdownload (?:the |our )?(?:app|pdf|now|here|free|image|wallpaper)\b"
    rf"|^download (?:an?|the|this|our|your)\b|^download\b{_SHORT}",
    "google": r"\bgoogle play\b|\bgoogle plus\b",
    "stock": r"\bstock (?:photos?|images?|photography|vectors?|illustrations?|footage|pictures?)\b",
    "royalty": r"\broyalty free\b",
    "royalty-free": r"\broyalty-free\b",
    "comment": r"\bleave a (?:comment|reply)\b|\bpost a comment\b",
    "reply": r"\bleave a reply\b|^reply\b",
    "comments": rf"\b(?:\d+|no|view|show|all|add) comments\b|^comments\b{_SHORT}|\bcomments (?:off|are closed)\b",
    "posted": r"^posted (?:by|in|on|at)\b|\bposted (?:in:|by (?:admin\b|(?-i:[A-Z@]))|on (?:\d|(?-i:[A-Z]\w+,? \d)))",
    "filed": r"\bfiled (?:under|in)\b",
    "published": r"^(?:first )?published\b",
    "contact": r"\bcontact (?:us|form)\b",
    "about": r"^about us\b|\babout us$|\babout the author\b",
    "opens": r"\bopens in (?:a )?new\b",
    "photo": r"\bphotos? (?:credits?|courtesy|source|by (?-i:[A-Z@]))|\bno photo\b|\bphoto gallery\b",
    "image": r"\bimages? (?:credits?|courtesy|source|by (?-i:[A-Z@]))|\bno image\b|\bimage (?:gallery|preview|for)\b",
    "picture": r"\bno picture\b|\bprofile picture\b",
    "thumbnail": r"\bthumbnail\b",
    "captcha": r"\bcaptcha\b",
    "swipe": r"\bswipe (?:left|right|up|down|to|through)\b",
    "scroll": r"\bscroll (?:down|up|to|for)\b",
    "loading": rf"^loading\b{_SHORT}|\bloading(?:\.\.|…)|\b(?:wait|image|page|content)\W+(?:is )?loading\b",
    "report": r"\breport (?:this|abuse|an error)\b",
    "search": rf"^search\b{_SHORT}|\bsearch (?:results|our|this site)\b",
    "related": r"^related (?:posts|articles|stories|products|images|photos|content)\b",
    "rate": r"\brate this\b",
    "photos": r"\bphotos (?:gallery|credits?|courtesy|by (?-i:[A-Z@]))|\b(?:more|all|see|view) photos\b",
    "logo": rf"\b(?:site|our|footer|header) logo\b|{_SHORT_BEFORE}logo$|^logo\b{_SHORT}",
    "icon": rf"{_SHORT_BEFORE}icon$|^icon\b{_SHORT}",
}  # fmt: skip
_BY_WORD = {word: re.compile(phrase, re.IGNORECASE) for word, phrase in _PHRASES.items()}
_SPEAKING = frozenset(_BY_WORD)
_FURNITURE = word_set(
    "the a an our my of to here for site main home homepage company header footer default featured small large "
    "big blank empty website web social media profile background hero cover post page article user author "
    "product thumbnail nav navigation menu search arrow left right up down next previous prev close play print "
    "facebook twitter instagram linkedin pinterest youtube google whatsapp rss email e-mail share icon icons "
    "logo image images img photo photos picture pictures pic banner button avatar spacer pixel placeholder "
    "untitled unnamed graphic gallery slide slideshow video videos thumb link links ad ads advertisement loading "
    "file jpg png gif new all index contact about blog news login register cart shop store sidebar widget "
    "tracking alt text title caption"
)

_EXTENSIONS = tuple(
    f".{extension}"
    for extension in word_set("jpg jpeg png gif webp svg bmp tif tiff ico avif heic jfif psd pdf mp4 mov webm")
)
_CAMERA = re.compile(
    r"(?:img|image|photo|picture|pic|foto|bild|scan|slide|dsc[fn]?|dscn|dcim|cimg|sam|gopr|pxl|mvimg|wp|untitled|unnamed"
    r"|capture|screen ?shot|bildschirmfoto|whatsapp image|thumbnail|thumb|avatar|p\d{3})s?[ _#-]*\(?\d[\d _.:()x-]*"
    r"(?:at [\d _.:-]+(?:[ap]m)?)?(?:_hdr|_burst|~\d)?",
    re.IGNORECASE,
)
_SLUG = re.compile(
    r"(?=\S*\d)[0-9a-f]{12,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # a hash, a UUID
    r"|[^\s,;:!?]+[/\\+=%][^\s]*[_/\\+=%-][^\s]*|[^\s_,;:]+(?:_[^\s_,;:]+)+|[^\s,;:-]+(?:-[^\s,;:-]+){3,}",
    re.IGNORECASE,
)


def is_file_name(text: str) -> bool:
    """A name of a file, a camera's number, a slug or a hash, and nothing else."""
    text = text.strip(" \"'“”()[]")
    if "." in text[-5:] and text.lower().endswith(_EXTENSIONS):
        return True
    if " " not in text:
        return _SLUG.fullmatch(text) is not None or _CAMERA.fullmatch(text) is not None
    return len(text) < 60 and _CAMERA.fullmatch(text) is not None


def is_boilerplate(text: str) -> bool:
    """A phrase that pages say about themselves stands in it, or it is made of such words alone ("site logo")."""
    if "©" in text:
        return True
    words = words_of(text)
    if not _SPEAKING.isdisjoint(words) and any(_BY_WORD[word].search(text) for word in _SPEAKING.intersection(words)):
        return True
    for word in words:
        if word not in _FURNITURE and not word.isdigit():
            return False
    return bool(words)


def without_boilerplate(text: str) -> str:
    """The sentences of a repaired text that are no boilerplate; empty where all of them are."""
    if not is_boilerplate(text):
        return text
    return " ".join(sentence for sentence in sentences(text) if not is_boilerplate(sentence))
