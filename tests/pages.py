"""Pages as people read them."""

import html
import re
from typing import Any


def text_of(response: Any) -> str:
    """Return what a page says, without its tags."""
    body = re.sub(r"<(script|style)[\s\S]*?</\1>", "", response.content.decode())
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())
