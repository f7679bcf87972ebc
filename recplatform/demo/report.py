"""What the demo prints once it runs: a call to each surface with its best items, and the logins."""

import json
import os
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recplatform.demo.content import INDEX, SURFACES
from recplatform.demo.credentials import Credentials
from recplatform.demo.shop import Shop
from surfaces.contracts import Item, RecommendResponse
from surfaces.preview.result import part_label

DOCUMENT: Path = settings.BASE_DIR / ".local" / "demo.json"
SHOWN = 5


class Call(NamedTuple):
    """A realistic question to a surface, and what happens in the shop."""

    surface: str
    story: str
    question: dict[str, Any]


CALLS = (
    Call(
        "search-carousel",
        "Anna, who hikes in Nordfjell and Peregrin, searches",
        {
            "query": "waterproof jacket for hiking",
            "user_id": "anna",
            "context": {"region": "eu"},
            "filters": {"price": {"lte": 250}},
        },
    ),
    Call(
        "similar-items",
        "A shopper looks at noise cancelling headphones for travel",
        {"item_ids": ["headphones-041"], "context": {"region": "us"}},
    ),
    Call(
        "home-row",
        "Ben, who looked at coffee and espresso machines, opens the shop",
        {"user_id": "ben", "context": {"region": "us"}},
    ),
    Call(
        "deals-row",
        "Emma, a parent of two, looks at today's deals",
        {"user_id": "emma", "context": {"region": "uk"}},
    ),
)


def show(shop: Shop, console: Console) -> list[str]:
    """Print each call with its best items; return the surfaces that did not answer."""
    silent = []
    for call in CALLS:
        reply = shop.ask_warm(call.surface, {**call.question, "limit": SHOWN, "explain": True})
        console.print(Text(f"\n{call.surface}", style="bold"), Text(f"— {call.story}"))
        console.print(Text(json.dumps(call.question, ensure_ascii=False), style="dim"))
        if reply.status != 200:
            silent.append(call.surface)
            console.print(Text(f"status {reply.status}: {reply.body[:500]!r}", style="red"))
            continue
        answer = RecommendResponse.model_validate_json(reply.body)
        console.print(_table(answer.items))
        console.print(_timings(answer))
    return silent


def show_doors(shop: Shop, credentials: Credentials, console: Console) -> None:
    """Print the addresses, the logins and a call that can be pasted into a shell."""
    table = Table.grid(padding=(0, 2))
    for name, text in (
        ("Admin", f"{shop.base_url}/admin/"),
        ("Preview", f"{shop.base_url}/preview/"),
        ("API docs", f"{shop.base_url}/api/v1/docs/"),
        ("User", credentials.admin_user),
        ("Password", credentials.admin_password),
        ("API key", credentials.api_key),
    ):
        table.add_row(Text(name, style="bold"), Text(text))
    console.print()
    console.print(table)
    console.print()
    # Not wrapped, so that it can be copied in one piece.
    console.out(_curl(shop, CALLS[0]), highlight=False)


def write_document(path: Path, shop: Shop, credentials: Credentials) -> None:
    """Write what scripts need to talk to the running demo."""
    document = {
        "base_url": shop.base_url,
        **credentials.model_dump(include={"api_key", "admin_user", "admin_password"}),
        "surfaces": list(SURFACES),
        "indexes": [INDEX],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file, indent=2)


def _table(items: list[Item]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    table.add_column("title", max_width=52)
    table.add_column("brand")
    table.add_column("price", justify="right")
    table.add_column("why", style="dim")
    for item in items:
        fields = item.fields
        table.add_row(
            str(item.rank),
            f"{item.score:.3f}",
            Text(str(fields.get("title", item.id))),
            Text(str(fields.get("brand", ""))),
            f"{float(fields.get('price', 0)):.2f}",
            Text(_why(item)),
        )
    return table


def _why(item: Item) -> str:
    parts = item.explanation.parts if item.explanation else {}
    largest = sorted(parts.items(), key=lambda part: -abs(part[1]))
    return ", ".join(f"{part_label(name)} {value:.2f}" for name, value in largest[:3] if value)


def _timings(answer: RecommendResponse) -> Text:
    stages = "  ".join(f"{stage} {ms:.1f}" for stage, ms in answer.timings_ms.items())
    line = Text(f"ms: {stages}   build {answer.build}, revision {answer.revision}", style="dim")
    for entry in answer.degraded:
        line.append(f"   without {entry.stage}: {entry.reason}", style="yellow")
    if answer.fallback:
        line.append(f"   fallback: {answer.fallback.reason}", style="yellow")
    return line


def _curl(shop: Shop, call: Call) -> str:
    body = json.dumps(call.question, ensure_ascii=False)
    return (
        f"curl -s {shop.base_url}/api/v1/surfaces/{call.surface}/recommendations \\\n"
        f"  -H 'Authorization: Api-Key {shop.api_key}' -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )
