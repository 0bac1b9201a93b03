"""Addresses as they may be shown: they can hold passwords, keys and signatures."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["public", "without_secrets"]

# A path of pathlib's has one slash of the two.
_KIND = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}")
# Up to the last @ of the host; a password may hold a slash, but no number of a port is one.
_USER = re.compile(r"[^/]*@|[^/:]*:(?!\d*(?:/|$)).*@", re.DOTALL)
_SECRET = re.compile(r"pass|secret|token|key|sig|cred", re.IGNORECASE)


def public(address: str) -> str:
    """An address without the user, the password and the query.

    Args:
        address: Of anything; what is none stays as it is.

    Example:
        >>> public("https://me:secret@example.com/day.csv?sig=secret")
        'https://example.com/day.csv'
        >>> public("s3://bucket/day-?.csv")
        's3://bucket/day-?.csv'
    """
    return _parted(address)[0]


def without_secrets(text: str, address: str) -> str:
    """What a library says about an address, without what `public` leaves out of it.

    Example:
        >>> without_secrets("no token: 'se%2'", "postgresql://me:se%2@host/days")
        "no token: '***'"
    """
    shown, user, query = _parted(address)
    text = text.replace(address, shown)
    password = user.partition(":")[2]
    secrets = [query, password, *re.split(r"[/@]", password), *([f"{user}@"] if user else [])]
    for name, _, value in (pair.partition("=") for pair in query.split("&")):
        if _SECRET.search(name):
            secrets.append(value)
    for secret in sorted({s for part in secrets for s in (part, unquote(part))}, key=len)[::-1]:
        if secret:
            text = text.replace(secret, "***")
    return text


def _parted(address: str) -> tuple[str, str, str]:
    """What may be shown, the user with the password, and the query."""
    start = _KIND.match(address)
    if start is None:
        return address, "", ""
    rest = address[start.end() :]
    user = found[0][:-1] if (found := _USER.match(rest)) else ""
    rest = rest[len(user) + 1 :] if found else rest
    # Elsewhere than in the web a question mark stands for any character of a name.
    web = start[1].lower() in ("http", "https")
    place, *query = re.split(r"[?#]" if web else r"\?(?=[^/?]*=)", rest, maxsplit=1)
    return f"{start[0]}{place}", user, "".join(query)
