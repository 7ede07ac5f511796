"""Scenarios: the initial states of generated tasks, and the values that users of them name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from anyorder_jax.environments.bfcl.tools import Instances

_PEOPLE = (
    "Amara", "Bruno", "Chidi", "Delia", "Emil", "Farah", "Goran", "Hanna", "Ivo", "Jelena", "Kofi", "Lena", "Mateo",
    "Nadia", "Oskar", "Priya", "Quentin", "Rosa", "Sven", "Tamar", "Umar", "Vera", "Wanda", "Xenia", "Yusuf", "Zora",
)  # fmt: skip
_NOUNS = (
    "harbor", "ledger", "garden", "lantern", "orchard", "pebble", "quarry", "ribbon", "saddle", "thicket", "velvet",
    "window", "anchor", "basket", "copper", "dragon", "ember", "feather", "glacier", "hammer", "island", "jacket",
)  # fmt: skip
_ENDINGS = ("txt", "md", "csv", "log", "json")
_OPENINGS = ("The {} needs a new {}", "Ask about the {} and the {}", "No {} without a {}", "A {} for every {}")
_STOCKS = {"AAPL": 0, "GOOG": 0, "TSLA": 0, "MSFT": 0, "NVDA": 0, "ZETA": 0, "NEPT": 0, "SYNX": 0, "OMEG": 0}
_COMPANIES = ("Nvidia", "Zeta Corp", "Omega Industries", "Neptune Systems", "Synex Solutions", "Microsoft")
_CITIES = (
    "Rivermist",
    "Stonebrook",
    "Maplecrest",
    "Silverpine",
    "London",
    "Paris",
    "Tokyo",
    "Rome",
    "Boston",
    "Chicago",
)
_AIRPORTS = ("RMS", "SBK", "LAX", "SFO", "JFK", "ORD", "BOS", "CDG", "LHR", "HND", "PEK", "CIA")
_DOORS = ("driver", "passenger", "rear_left", "rear_right")

Draw = np.random.Generator


def one_of(rng: Draw, values: Sequence[Any]) -> Any:
    """One of some values, None of none."""
    return values[int(rng.integers(len(values)))] if values else None


def _file(rng: Draw) -> str:
    return f"{one_of(rng, _NOUNS)}_{int(rng.integers(100))}.{one_of(rng, _ENDINGS)}"


def _text(rng: Draw) -> str:
    return one_of(rng, _OPENINGS).format(one_of(rng, _NOUNS), one_of(rng, _NOUNS))


def _cents(rng: Draw, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 2)


def _folder(rng: Draw, depth: int) -> dict[str, Any]:
    """Files and folders, at most `depth` deep."""
    names = {_file(rng) for _ in range(int(rng.integers(1, 4)))}
    found: dict[str, Any] = {
        name: {"type": "file", "content": "\n".join(_text(rng) for _ in range(int(rng.integers(1, 4))))}
        for name in sorted(names)
    }
    for _ in range(int(rng.integers(1, 3)) if depth else 0):
        found[f"{one_of(rng, _NOUNS)}s"] = {"type": "directory", "contents": _folder(rng, depth - 1)}
    return found


def _messages(rng: Draw) -> dict[str, Any]:
    people = [str(name) for name in rng.choice(_PEOPLE, 5, replace=False)]
    users = {name: f"USR{n:03d}" for n, name in enumerate(people, 1)}
    inbox = [{one_of(rng, [*users.values()]): _text(rng)} for _ in range(int(rng.integers(1, 4)))]
    return {
        "random_seed": int(rng.integers(10**6)), "user_count": 5, "user_map": users, "inbox": inbox,
        "message_count": len(inbox), "current_user": "USR001",
    }  # fmt: skip


def _tweets(rng: Draw) -> dict[str, Any]:
    people = [str(name).lower() for name in rng.choice(_PEOPLE, 4, replace=False)]
    count = int(rng.integers(2, 5))
    tweets = {
        str(n): {"id": n, "username": one_of(rng, people), "content": _text(rng), "tags": [], "mentions": []}
        for n in range(count)
    }
    return {
        "username": people[0], "password": "secret", "authenticated": True, "tweets": tweets, "comments": {},
        "retweets": {}, "following_list": people[1:], "tweet_counter": count,
    }  # fmt: skip


def _tickets(rng: Draw) -> dict[str, Any]:
    user, first = str(one_of(rng, _PEOPLE)), int(rng.integers(100, 900))
    queue = [
        {"id": first + n, "title": _text(rng), "description": "", "status": "Open", "priority": 2, "created_by": user}
        for n in range(int(rng.integers(2, 5)))
    ]
    return {"ticket_queue": queue, "ticket_counter": first + len(queue), "current_user": user}


def _trading(rng: Draw) -> dict[str, Any]:
    stocks = {
        symbol: {
            "price": _cents(rng, 20, 400), "percent_change": _cents(rng, -1, 1), "volume": _cents(rng, 1, 5),
            "MA(5)": _cents(rng, 20, 400), "MA(20)": _cents(rng, 20, 400),
        } for symbol in _STOCKS
    }  # fmt: skip
    first = int(rng.integers(20000, 90000))
    orders = {
        str(first + n): {
            "id": first + n, "order_type": "Buy", "symbol": one_of(rng, [*stocks]), "price": _cents(rng, 20, 400),
            "amount": int(rng.integers(1, 50)), "status": "Open",
        } for n in range(2)
    }  # fmt: skip
    return {
        "random_seed": int(rng.integers(10**6)), "orders": orders, "order_counter": first + 2, "stocks": stocks,
        "account_info": {"account_id": first, "balance": _cents(rng, 2e4, 9e4), "binding_card": 4000 + first},
        "authenticated": True, "market_status": "Open", "watch_list": [one_of(rng, [*stocks])],
        "transaction_history": [],
    }  # fmt: skip


def _travel(rng: Draw) -> dict[str, Any]:
    cards = {
        f"card_{int(rng.integers(1000, 9999))}": {
            "card_number": str(int(rng.integers(10**15, 9 * 10**15))), "expiration_date": "12/2030",
            "cardholder_name": "Owner", "card_verification_number": 123, "balance": _cents(rng, 2e4, 9e4),
        } for _ in range(2)
    }  # fmt: skip
    return {
        "random_seed": int(rng.integers(10**6)), "credit_card_list": cards, "booking_record": {},
        "access_token": f"tok{int(rng.integers(10**5, 10**6))}", "token_type": "Bearer", "token_expires_in": 9000,
        "token_scope": "read_write", "user_first_name": "Owner", "user_last_name": "Of", "budget_limit": None,
    }  # fmt: skip


def _car(rng: Draw) -> dict[str, Any]:
    return {
        "random_seed": int(rng.integers(10**6)), "fuelLevel": _cents(rng, 5, 20),
        "doorStatus": {door: one_of(rng, ("locked", "unlocked")) for door in _DOORS},
        "acTemperature": _cents(rng, 18, 28), "headLightStatus": one_of(rng, ("on", "off")),
    }  # fmt: skip


SCENARIOS: Mapping[str, Callable[[Draw], dict[str, Any]]] = {
    "GorillaFileSystem": lambda rng: {"root": {"home": {"type": "directory", "contents": _folder(rng, 2)}}},
    "MathAPI": lambda rng: {},
    "MessageAPI": _messages,
    "TwitterAPI": _tweets,
    "TicketAPI": _tickets,
    "TradingBot": _trading,
    "TravelAPI": _travel,
    "VehicleControlAPI": _car,
}
"""Class -> its initial state."""


def _here(instances: Instances, is_file: bool) -> list[str]:
    contents = instances["GorillaFileSystem"]._current_dir.contents
    return [name for name, item in contents.items() if hasattr(item, "content") == is_file]


def _other_people(instances: Instances) -> list[str]:
    api = instances["MessageAPI"]
    return [name for name, user in api.user_map.items() if user != api.current_user]


VALUES: Mapping[str, Callable[[Draw, Instances], Any]] = {
    "file": lambda rng, all_: one_of(rng, _here(all_, True)),
    "folder": lambda rng, all_: one_of(rng, _here(all_, False)),
    "new_file": lambda rng, all_: _file(rng),
    "new_folder": lambda rng, all_: f"{one_of(rng, _NOUNS)}_{one_of(rng, _NOUNS)}",
    "text": lambda rng, all_: _text(rng),
    "title": lambda rng, all_: _text(rng),
    "word": lambda rng, all_: one_of(rng, _NOUNS),
    "a": lambda rng, all_: int(rng.integers(2, 1000)),
    "b": lambda rng, all_: int(rng.integers(2, 100)),
    "numbers": lambda rng, all_: [int(n) for n in rng.integers(1, 200, int(rng.integers(3, 6)))],
    "person": lambda rng, all_: one_of(rng, _other_people(all_)),
    "new_person": lambda rng, all_: f"{one_of(rng, _PEOPLE)}{int(rng.integers(10, 99))}",
    "tag": lambda rng, all_: f"#{one_of(rng, _NOUNS)}",
    "tweet": lambda rng, all_: one_of(rng, [*all_["TwitterAPI"].tweets]),
    "followed": lambda rng, all_: one_of(rng, all_["TwitterAPI"].following_list),
    "ticket": lambda rng, all_: one_of(rng, [t["id"] for t in all_["TicketAPI"].ticket_queue if t["status"] == "Open"]),
    "priority": lambda rng, all_: int(rng.integers(1, 6)),
    "stock": lambda rng, all_: one_of(rng, [*_STOCKS]),
    "company": lambda rng, all_: one_of(rng, _COMPANIES),
    "amount": lambda rng, all_: int(rng.integers(1, 40)),
    "price": lambda rng, all_: int(rng.integers(20, 500)),
    "order": lambda rng, all_: one_of(
        rng, [n for n, order in all_["TradingBot"].orders.items() if order["status"] == "Open"]
    ),
    "city": lambda rng, all_: one_of(rng, _CITIES),
    "city2": lambda rng, all_: one_of(rng, _CITIES),
    "airport": lambda rng, all_: one_of(rng, _AIRPORTS),
    "airport2": lambda rng, all_: one_of(rng, _AIRPORTS),
    "date": lambda rng, all_: f"2027-{int(rng.integers(1, 13)):02d}-{int(rng.integers(1, 29)):02d}",
    "cabin": lambda rng, all_: one_of(rng, ("economy", "business", "first")),
    "card": lambda rng, all_: one_of(rng, [*all_["TravelAPI"].credit_card_list]),
    "token": lambda rng, all_: all_["TravelAPI"].access_token,
    "currency": lambda rng, all_: one_of(rng, ("EUR", "JPY", "GBP", "CAD", "MXN")),
    "gallons": lambda rng, all_: int(rng.integers(1, 25)),
    "door": lambda rng, all_: one_of(rng, _DOORS),
    "on_off": lambda rng, all_: one_of(rng, ("on", "off")),
    "engage": lambda rng, all_: one_of(rng, ("engage", "release")),
    "degrees": lambda rng, all_: int(rng.integers(16, 28)),
    "mode": lambda rng, all_: one_of(rng, ("auto", "cool", "heat", "defrost")),
    "part": lambda rng, all_: one_of(rng, ("fuel", "battery", "doors", "climate", "headlights", "engine")),
    "address": lambda rng, all_: (
        f"{int(rng.integers(1, 999))} {one_of(rng, _NOUNS).title()} Street, {one_of(rng, _CITIES)}"
    ),
}
"""What a wording's {name} may stand for in a state; None where there is nothing of the kind."""
