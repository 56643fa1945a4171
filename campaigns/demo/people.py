"""The invented readers of the demo campaign, as the CSV file that a company would export.

Pure but for the random numbers, which come from a seed: the same seed gives the same file.
Faults are spelt in the addresses as sandbox/faults.py reads them; none of them loses a reply
or cuts a connection in the content, so that nothing of a demo is left in doubt.
"""

from __future__ import annotations

import csv
import io
import random
import unicodedata
from collections.abc import Iterator


def _words(*lines: str) -> tuple[str, ...]:
    return tuple(" ".join(lines).split())


HEADER = ("Email", "First name", "Last name", "Company", "City", "Plan")

_DOMAINS = {  # share of the readers, in thousandths
    "gmail.com": 400,
    "outlook.com": 110,
    "hotmail.com": 90,
    "yahoo.com": 150,
    "icloud.com": 100,
    "corp.example": 90,
    "acme.example": 34,
    "northwind.example": 22,
    "slow.example": 4,
}
_FAULTS = (  # share in thousandths, and the local part
    (20, "unknown-{n}"),
    (10, "full-{n}"),
    (14, "tempfail-1-{name}{n}"),
    (6, "tempfail-2-{name}{n}"),
    (10, "ratelimit-1-{name}{n}"),
)
_FIRST_NAMES = _words(
    "Anna Ben Chloé Dmitri Elif Felipe Grace Hiroshi Ingrid João Kofi Lena María Noah Olga Priya",
    "Quentin Rosa Søren Tomás Uma Viktor Wanda Ximena Yusuf Zoë Amara Bruno Clara David Emma",
    "François Greta Hugo Isabel Jonas Katarzyna Liam Mei Nadia",
)
_LAST_NAMES = _words(
    "Almeida Bauer Castillo Dubois Eriksson Ferrari Gupta Hansen Ivanova Jansen Kowalski Larsen",
    "Müller Novak O'Brien Petrov Quiroga Rossi Schneider Tanaka Ueda Vega Weber Xu Yılmaz Zimmer",
)
_COMPANIES = (
    "Northwind Traders",
    "Globex",
    "Initech, Inc.",
    "Hooli",
    "Stark & Sons",
    "Blue Harbour Coffee",
    'The "Old" Bakery',
    "Vehement Capital",
    "Soylent Foods",
    "Umbrella Gardens",
)
_CITIES = (
    "Lisboa",
    "Berlin",
    "København",
    "Kraków",
    "Lyon",
    "Madrid",
    "Ōsaka",
    "Toronto",
    "Austin",
)
_PLANS = ("Starter", "Team", "Business")

_BROKEN_ROWS = (
    "not-an-address,Nobody,Nowhere,,,",
    "two@at@signs.example,Ida,Double,Globex,Lyon,Team",
    "missing.domain@,Max,Short,Hooli,Berlin,Team",
    "spaces in@the.example,Eve,Gap,Globex,Austin,Starter",
    ",Empty,Address,Initech,Madrid,Team",
    "shifted@row.example,Too,Few",
    "shifted@row.example,One,Too,Many,Cells,In,This,Row",
)

#: Added by name, so that the exclusions of a campaign can be shown.
UNSUBSCRIBED = ("quiet.reader@gmail.com", "no.thanks@outlook.com", "goodbye@yahoo.com")
SUPPRESSED = ("bounced.before@gmail.com", "complained@icloud.com")


def csv_text(count: int, *, seed: int) -> str:
    """A file of `count` good rows, a few broken ones among them, and some duplicates."""
    draw = random.Random(seed)
    rows = [_line(row) for row in _people(count, draw)]
    rows += draw.sample(rows, min(12, len(rows)))
    for broken in _BROKEN_ROWS:
        rows.insert(draw.randrange(len(rows) + 1), f"{broken}\r\n")
    return "".join([_line(HEADER), *rows])


def _people(count: int, draw: random.Random) -> Iterator[tuple[str, ...]]:
    domains, shares = list(_DOMAINS), list(_DOMAINS.values())
    special = [*UNSUBSCRIBED, *SUPPRESSED][:count]
    for address in special:
        yield _row(address, draw)
    for n in range(1, count - len(special) + 1):
        yield _row("", draw, n, draw.choices(domains, shares)[0])


def _row(address: str, draw: random.Random, n: int = 0, domain: str = "") -> tuple[str, ...]:
    first, last = draw.choice(_FIRST_NAMES), draw.choice(_LAST_NAMES)
    address = address or f"{_local_part(first, last, n, draw)}@{domain}"
    # A few people never told their name: the template has a stand-in for them.
    shown = "" if draw.random() < 0.03 else first
    company, city, plan = draw.choice(_COMPANIES), draw.choice(_CITIES), draw.choice(_PLANS)
    return (address, shown, last, company, city, plan)


def _local_part(first: str, last: str, n: int, draw: random.Random) -> str:
    name, ticket = _plain(first), draw.randrange(1000)
    for share, pattern in _FAULTS:
        if ticket < share:
            return pattern.format(name=name, n=n)
        ticket -= share
    return f"{name}.{_plain(last)}{n}"


def _plain(name: str) -> str:
    """A name as people write it in an address."""
    spelt = name.replace("ø", "o").replace("ı", "i")
    letters = unicodedata.normalize("NFKD", spelt)
    return "".join(char for char in letters if char.isascii() and char.isalpha()).lower()


def _line(row: tuple[str, ...]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(row)
    return out.getvalue()
