"""How a value is written into an item's hash, read back, and compared: the one place for all types.

Loading encodes with it, search decodes with it and filters compare with it, so
that a value means the same on the way in, in a filter and on the way out.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime
from typing import Any, Final, TypeGuard

import orjson

from indexes.schema import FieldSpec, FieldType

# A tag field of one value still needs a separator at FT.CREATE. This one cannot
# stand in a value, so that "AT|T" stays whole.
SINGLE_VALUE_SEPARATOR: Final = "\x1f"
# A stored value that starts with it is JSON; any other is the string itself.
_JSON_MARK: Final = b"\x00"
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
# What both engines take for the end of a word. "_" is a letter to them.
_WORD_BREAKS: Final = re.compile(r"[\s\x00-\x1f\x7f!-/:-@\[-^`{-~]+")
# Whitespace as the engines know it, when they trim a tag.
_ASCII_WHITESPACE: Final = " \t\n\v\f\r"

# Bytes of one tag value. valkey-search refuses queries above 10,240 bytes, and
# escaping may double a value: no filter could be written with a longer one.
MAX_TAG: Final = 4000


class TooLong(ValueError):
    """A value that is right but for its length."""


def tag_text(value: object) -> str:
    """Return the text of one tag value: trimmed, ``true``/``false``, ``5`` for 5.0."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        value = _whole(value)
    if isinstance(value, str | int | float):
        return str(value).strip(_ASCII_WHITESPACE)
    raise ValueError(f"a tag is a text, a number or true/false, not {_kind(value)}")


def has_controls(text: str) -> bool:
    """Tell whether the text holds control characters, which a search would silently drop."""
    return _CONTROLS.search(text) is not None


def as_number(value: object) -> float | int:
    """Return a finite number from a number, a numeric text, true/false or an ISO date (epoch seconds)."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, datetime | date):
        return _epoch(value)
    if isinstance(value, str):
        return _number_in(value)
    if not isinstance(value, int | float):
        raise ValueError(f"a number is expected, not {_kind(value)}")
    # Also refuses NaN, and integers that no double can hold.
    if not abs(value) <= sys.float_info.max:
        raise ValueError("the number is not finite")
    return value


def words(text: str) -> list[str]:
    """Split a text into the lower-case words that the engines index."""
    return [word for word in _WORD_BREAKS.split(text.lower()) if word.strip("_")]


def encode(field: FieldSpec, value: object) -> bytes | None:
    """Return the bytes that a hash holds for a row's value, None to leave the field out.

    Raises ValueError with a reason that completes "field x: …".
    """
    if value is None:
        return None
    match field.type:
        case FieldType.NUMERIC:
            return None if value == "" else _number_text(as_number(value)).encode()
        case FieldType.TAG:
            text = _tags(field, value)
        case FieldType.TEXT:
            text = " ".join(_text(part) for part in value) if _is_list(value) else _text(value)
        case FieldType.STORED:
            return _stored(value)
    return _utf8(text) or None


def decode(field: FieldSpec, raw: bytes) -> Any:
    """Return what an answer shows for the bytes of a hash."""
    return decoder(field)(raw)


def decoder(field: FieldSpec) -> Callable[[bytes], Any]:
    """Return the function that decodes a field: a search decodes the same few fields of many hits."""
    match field.type:
        case FieldType.NUMERIC:
            return _decode_number
        case FieldType.STORED:
            return _decode_stored
        case FieldType.TAG if field.multiple:
            return lambda raw: split_tags(field, _decode_text(raw))
    return _decode_text


def _decode_text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _decode_number(raw: bytes) -> float | int | str:
    try:
        number = float(raw)
    except ValueError:
        return _decode_text(raw)
    # Beyond 2^53 a double is no count, and JSON writers refuse what exceeds 64 bits.
    whole = number.is_integer() and abs(number) <= 2**53
    return int(number) if whole else number


def _decode_stored(raw: bytes) -> Any:
    if not raw.startswith(_JSON_MARK):
        return _decode_text(raw)
    json = raw[len(_JSON_MARK) :]
    try:
        return orjson.loads(json)
    except orjson.JSONDecodeError:
        return _decode_text(json)


def split_tags(field: FieldSpec, text: str) -> list[str]:
    """Return the values of a tag field that may hold several."""
    parts = [part.strip(_ASCII_WHITESPACE) for part in text.split(field.separator)]
    return [part for part in parts if part]


def _tags(field: FieldSpec, value: object) -> str:
    if not field.multiple:
        if _is_list(value):
            raise ValueError('it holds a list; mark the field as "several values"')
        return _within(_clean_tag(value))
    # An empty value among others is no value; valkey-search would count it as a failure.
    if not _is_list(value):
        return field.separator.join(map(_within, split_tags(field, _clean_tag(value))))
    parts = list(filter(None, (_clean_tag(part) for part in value if part is not None)))
    for part in parts:
        if field.separator in part:
            raise ValueError(f'the value "{part[:40]}" holds the separator "{field.separator}"')
    return field.separator.join(map(_within, parts))


def _clean_tag(value: object) -> str:
    text = tag_text(value)
    # Nearly every tag is printable, which is quicker to see.
    return text if text.isprintable() else _CONTROLS.sub("", text).strip(_ASCII_WHITESPACE)


def _within(tag: str) -> str:
    # A character has at most four bytes.
    if len(tag) > MAX_TAG // 4 and len(_utf8(tag)) > MAX_TAG:
        raise TooLong(f'the value "{tag[:40]}…" is longer than {MAX_TAG:,} bytes')
    return tag


def _whole(number: float) -> float | int:
    if not math.isfinite(number):
        raise ValueError("the number is not finite")
    return int(number) if number.is_integer() else number


def _text(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the number is not finite")
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"a text is expected, not {_kind(value)}")


def _stored(value: object) -> bytes:
    if isinstance(value, str) and not value.startswith(_JSON_MARK.decode()):
        return _utf8(value)
    try:
        return _JSON_MARK + orjson.dumps(value)
    except TypeError as error:
        raise ValueError(f"it cannot be stored as JSON: {error}") from error


def _number_in(text: str) -> float | int:
    stripped = text.strip()
    try:
        return int(stripped) if re.fullmatch(r"[+-]?\d{1,18}", stripped) else _finite(stripped)
    except ValueError:
        pass
    try:
        return _epoch(datetime.fromisoformat(stripped))
    except ValueError:
        raise ValueError(f'"{text[:40]}" is not a number') from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or "_" in text:
        raise ValueError(text)
    return number


def _epoch(moment: date) -> float | int:
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = moment.timestamp()
    return int(seconds) if seconds.is_integer() else seconds


def _number_text(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else repr(number)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text is broken Unicode (half of a surrogate pair)") from None


def _is_list(value: object) -> TypeGuard[Collection[object]]:
    return isinstance(value, list | tuple | set | frozenset)


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", type(None): "null"}.get(
        type(value), f"a {type(value).__name__}"
    )
