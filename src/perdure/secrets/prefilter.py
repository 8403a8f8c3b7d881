"""The quick look that lets most documents pass without a walk.

It works on the canonical bytes of a whole document, with the few operations that run at the speed of
memory in plain Python: ``bytes.translate`` and the search for a literal. Two ideas carry it:

- Without vowels and whatever is no letter, all spellings of a key name become one: ``privateKey``,
  ``PRIVATE-KEY`` and ``private key`` are ``prvtky``. Of numbers and short
  keys little is left to search.
- Every token, and every BIP-39 phrase, is a stretch of at least :data:`RUN` characters of a few kinds.
  Mapping these to one letter makes "is there such a stretch" the search for a literal.

What gets caught here is looked at by ``suspicion``. Escapes in JSON only ever add characters, and only
outside of what is searched for, so that the undecoded bytes will do. What was mapped to ASCII is searched
as a string, which for short documents takes a fraction of the time that bytes take.
"""

from __future__ import annotations

from perdure.secrets.names import KEY_NAMES

RUN = 20

LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = b"0123456789"
_EVERY_BYTE = bytes(range(256))


def mapping(members: bytes, kept: bytes = b"") -> bytes:
    """The table that maps the members to ``a`` and all other bytes to a dot, but for those that are kept."""
    return bytes(97 if byte in members else byte if byte in kept else 46 for byte in _EVERY_BYTE)


_LOWER = _EVERY_BYTE.lower()
_NO_CONSONANTS = bytes(byte for byte in _EVERY_BYTE if byte not in LETTERS or byte in b"aeiouAEIOU")
_RUN_MEMBERS = mapping(LETTERS + DIGITS + b"_- \\")
_RUN = "a" * RUN
_LONG = 4096
_WORTH_AN_EXCERPT = 8192


def consonants(data: bytes) -> str:
    """The consonants of ``data``, in lower case."""
    return data.translate(_LOWER, _NO_CONSONANTS).decode("ascii")


def _stems() -> tuple[str, ...]:
    words = {name.rpartition("_")[2] for name in KEY_NAMES} | {"bearer", "basic"}
    # One search does for password and passwd, and for phrase and passphrase.
    stems = {consonants(word.encode()) for word in words - {"password", "passwd"} | {"passw"}}
    return tuple(sorted(stem for stem in stems if not any(other in stem for other in stems - {stem})))


_STEMS = _stems()
_STEM_LENGTH_MIN = min(map(len, _STEMS))


def surely_clean(canonical: bytes) -> bool:
    """Whether a document certainly holds no secret, by the latest version of a policy that is not strict.

    ``canonical`` is the document's canonical JSON. True promises that :func:`find_secret` finds nothing in
    the value; False says nothing.
    """
    if len(canonical) > _WORTH_AN_EXCERPT:
        from perdure.secrets.excerpt import excerpt

        canonical = excerpt(canonical)
    skeleton = consonants(canonical)
    if len(skeleton) >= _STEM_LENGTH_MIN:
        # One letter is found, or found missing, far quicker than several.
        is_long = len(skeleton) > _LONG
        stems = [each for each in _STEMS if all(map(skeleton.__contains__, each))] if is_long else _STEMS
        for stem in stems:
            if stem in skeleton:
                from perdure.secrets.suspicion import may_hold_name

                if may_hold_name(canonical, skeleton):
                    return False
                break
    if b"@" in canonical and b"://" in canonical:
        from perdure.secrets.suspicion import may_hold_url_password

        if may_hold_url_password(canonical):
            return False
    if len(canonical) >= RUN and _RUN in canonical.translate(_RUN_MEMBERS).decode("ascii"):
        from perdure.secrets.suspicion import may_hold_token_or_phrase

        return not may_hold_token_or_phrase(canonical)
    return True
