"""Key templates: ``USER#{user_id}`` and the request's values give the key of a stored item.

Names in braces are ``user_id``, ``session_id`` and the keys of the request's
context, written ``{region}`` or ``{context.region}``. There is no escape: a
key that holds a brace cannot be written.
"""

import re
from collections.abc import Mapping

from enrichment.errors import EnrichmentRejected, KeyTemplateInvalid

REQUEST_NAMES = ("user_id", "session_id")
CONTEXT_PREFIX = "context."
# The bound that the API sets on a context key.
LONGEST_NAME = 64

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def template_names(template: str) -> tuple[str, ...]:
    """Return the names a template needs, each once, in order; raise KeyTemplateInvalid."""
    literal = _PLACEHOLDER.sub("", template)
    if "{" in literal or "}" in literal:
        raise KeyTemplateInvalid(
            f'The braces in "{template}" do not match: write each name as {{user_id}}.'
        )
    return tuple(dict.fromkeys(_name(raw) for raw in _PLACEHOLDER.findall(template)))


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """Return the key; raise EnrichmentRejected when a value is missing."""

    def value(match: re.Match[str]) -> str:
        name = _name(match.group(1))
        found = values.get(name)
        if not found:
            raise EnrichmentRejected(f'The key "{template}" needs a value for {name}.')
        return found

    return _PLACEHOLDER.sub(value, template)


def _name(raw: str) -> str:
    name = raw.strip()
    in_context = name.startswith(CONTEXT_PREFIX)
    if in_context:
        name = name.removeprefix(CONTEXT_PREFIX)
    if not name:
        raise KeyTemplateInvalid(
            f'"{{{raw}}}" has no name: write {{user_id}}, {{session_id}} or a context key.'
        )
    if len(name) > LONGEST_NAME:
        raise KeyTemplateInvalid(
            f'"{name[:20]}…" is longer than {LONGEST_NAME} characters, as no context key can be.'
        )
    if in_context and name in REQUEST_NAMES:
        raise KeyTemplateInvalid(f"{name} is a value of the request itself: write {{{name}}}.")
    return name
