"""Text as publishers took it from web pages: markup, entities and what was left of scripts."""

import html
import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PHRASES = (
    "a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "del", "dfn", "em", "font", "i", "img", "ins", "kbd",
    "label", "mark", "nobr", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "tt", "u", "var",
    "wbr",
)  # fmt: skip
"""Elements that stand within a line: words on both sides of their tags may be one."""
_BLOCKS = (
    "address", "article", "blockquote", "body", "br", "button", "center", "dd", "div", "dl", "dt", "footer", "form",
    "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "html", "iframe", "input", "li", "link", "meta", "nav",
    "noscript", "ol", "option", "p", "pre", "section", "select", "table", "tbody", "td", "th", "thead", "title", "tr",
    "ul",
)  # fmt: skip


def _tags(names: tuple[str, ...]) -> re.Pattern[str]:
    # Of HTML's own elements alone: "<3" and "<Insert title here>" are text.
    attributes = r"""(?:\s(?:[^<>"']|"[^"]*"|'[^']*')*)?"""
    return re.compile(rf"</?(?:{'|'.join(names)}){attributes}/?>", re.IGNORECASE)


_PHRASE, _BLOCK = _tags(_PHRASES), _tags(_BLOCKS)
_NOT_SHOWN = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_SCRIPT = re.compile(
    r"\bgetTime\s*\(|^\s*(?:var|let|const)\s+[\w$]+\s*=|^\s*\(?\s*function\s*\w*\(|^\s*[.#][\w-]+[^{}]*\{[^{}]*:[^{}]*\}"
)


def without_control(text: str) -> str:
    """Control characters, remnants of other encodings, as blanks."""
    return _CONTROL.sub(" ", text)


def shown(text: str) -> str:
    r"""The text that a page shows: without markup, entities decoded once.

    >>> shown('<b class="x">Salt</b> &amp; Pepper\x92s<br/>new'), shown("I &lt;3 <3 &amp;lt;")
    ('Salt & Pepper s new', 'I <3 <3 &lt;')
    """
    if "<" in text:
        text = _PHRASE.sub("", _BLOCK.sub(" ", _NOT_SHOWN.sub(" ", text)))
    return without_control(html.unescape(text))


def is_script(text: str) -> bool:
    """True if a text is what a page's script or style sheet left in its place.

    Source: the page of Amazon Reviews 2018 (J. Ni), which tells such titles by ``getTime`` and drops them.

    >>> is_script("var aPageStart = (new Date()).getTime();"), is_script(".a-box{color:#fff}"), is_script("var, a play")
    (True, True, False)
    """
    return _SCRIPT.search(text) is not None
