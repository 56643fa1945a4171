"""Reading a mailbox as people write it: `Acme News <news@acme.example>` (RFC 5322, 3.4).

Pure. Decides who a From or Reply-To names; refuses lists, groups and anything that could
break out of a header.
"""

from __future__ import annotations

import re
from email.utils import getaddresses

from mailer.core.envelope import UnsafeAddress, checked
from mailer.core.headers import InvalidHeader, Mailbox, ascii_address

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def parse_mailbox(text: str) -> Mailbox:
    """Read one mailbox, with or without a display name. Raises `InvalidHeader`."""
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise InvalidHeader(f"{text!r} holds a line break or a control character: remove it")
    if ":" in _QUOTED.sub("", text):
        # The library takes what stands before a colon for a group's name, and drops it.
        raise InvalidHeader(
            f"{text!r} holds a colon: put the name in quotation marks, "
            'such as "Acme: News" <news@acme.example>'
        )
    found = getaddresses([text])
    if len(found) != 1:
        raise InvalidHeader(f"{text!r} must be one address, such as Acme News <news@acme.example>")
    name, address = found[0]
    local, at, domain = address.rpartition("@")
    if not (local and at and "." in domain):
        raise InvalidHeader(
            f"{text!r} holds no complete address: write Acme News <news@acme.example>"
        )
    try:
        checked(address)
    except UnsafeAddress as error:
        raise InvalidHeader(str(error)) from None
    ascii_address(address)  # what no header may carry is said now, not at the launch
    return Mailbox(address=address, name=name)
