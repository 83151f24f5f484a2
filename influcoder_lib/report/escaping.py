"""Text that comes from data, written into markdown so that it reads letter by letter."""

import re

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|~^$:=\"'/@])")
_LINK_START = re.compile(r"(https?:|ftp:|www|mailto:|xmpp:|@)", re.IGNORECASE)
_WORD_JOINER = "\u2060"


def escape(text: str) -> str:
    """Text that markdown shows as it is, on one line.

    A word joiner (which has no width) is put where a bare address would become a link.
    """
    line = " ".join(text.split())
    inert = _LINK_START.sub(lambda match: match[0] + _WORD_JOINER, line)
    marked = _MARKUP.sub(r"\\\1", inert)
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
