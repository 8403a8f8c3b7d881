"""Values that were resolved in this process, and every form in which one might be written.

A secret that a transport has resolved may come back in an answer, an error or a header that no detector
knows. So each value is remembered, and refused wherever this process writes, for as long as it lives.
"""

from __future__ import annotations

import base64
import json
import urllib.parse

from perdure.secrets.markers import marker

RESOLVED_SECRET = "resolved_secret"
"""The name under which a resolved value is reported; it tells nothing of which one it is."""


class ResolvedValues:
    """Remembers values, and finds them in bytes: raw, JSON-escaped, in hexadecimal, URL-encoded, Base64."""

    def __init__(self) -> None:
        self.needles: tuple[bytes, ...] = ()
        """Every form of each value; mostly there are none."""

    def remember(self, value: str) -> None:
        """Refuse ``value`` from now on."""
        forms = _forms(value)
        if not forms <= set(self.needles):
            # The longest first: redaction then leaves no rest of a longer form.
            self.needles = tuple(sorted(forms | set(self.needles), key=lambda each: (-len(each), each)))

    def occurs_in(self, data: bytes) -> bool:
        """Whether any remembered value stands in ``data``, in any form."""
        return any(needle in data for needle in self.needles)

    def pointer_in(self, value: object) -> str:
        """The JSON pointer of the first string or key that holds a value; the whole if none does alone."""
        from perdure.secrets.judge import pointer

        stack: list[tuple[object, tuple[object, ...]]] = [(value, ())]
        while stack:
            item, place = stack.pop()
            if isinstance(item, str) and self.occurs_in(_encoded(item)):
                return pointer(place)
            if isinstance(item, dict):
                if any(isinstance(key, str) and self.occurs_in(_encoded(key)) for key in item):
                    return pointer(place)
                stack.extend((child, (*place, key)) for key, child in reversed(item.items()))
            elif isinstance(item, (list, tuple)):
                stack.extend((item[index], (*place, index)) for index in reversed(range(len(item))))
        return ""

    def redact(self, text: str) -> str:
        """``text`` with a marker in the place of each remembered value."""
        data = _encoded(text)
        if not self.occurs_in(data):
            return text
        for needle in self.needles:
            data = data.replace(needle, marker(RESOLVED_SECRET).encode())
        return data.decode("utf-8", "surrogatepass")


RESOLVED = ResolvedValues()
"""What this process has resolved. One for all: a value must not be written by any run of the process."""


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _forms(value: str) -> set[bytes]:
    raw = _encoded(value)
    texts = {
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        raw.hex(),
        raw.hex().upper(),
    }
    for safe in ("", "/", "-._~!$&'()*+,;=:@/?"):
        quoted = urllib.parse.quote(raw, safe=safe)
        texts |= {quoted, quoted.replace("%20", "+"), _lower_escapes(quoted)}
    for offset in range(3):
        encoded = _base64_at(raw, offset)
        texts |= {encoded, encoded.replace("+", "-").replace("/", "_"), encoded.replace("/", "\\/")}
    return {raw, *map(_encoded, texts)}


def _lower_escapes(quoted: str) -> str:
    head, *rest = quoted.split("%")
    return head + "".join(f"%{each[:2].lower()}{each[2:]}" for each in rest)


def _base64_at(raw: bytes, offset: int) -> str:
    """What stays of ``raw`` in the Base64 of any text that holds it ``offset`` bytes after a group begins."""
    encoded = base64.b64encode(bytes(offset) + raw).decode().rstrip("=")
    # Characters that share bits with what stands before or behind depend on it.
    behind = 1 if (offset + len(raw)) % 3 else 0
    before = (0, 2, 3)[offset]
    return encoded[before : len(encoded) - behind]
