"""Requests: what users of generated tasks ask for, in several wordings, with the calls that do it.

In an argument, `$file` is the value that the wording's `{file}` shows, `@0.user_id` an entry of what the request's
first call answered, and anything else stands for itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from anyorder_jax.environments.bfcl.tools import functions


class Request(NamedTuple):
    """wordings: imperatives without an end. calls: (function, arguments by name)."""

    name: str
    wordings: tuple[str, ...]
    calls: tuple[tuple[str, dict[str, Any]], ...]

    @property
    def class_name(self) -> str:
        """The class whose functions it needs: one for each request."""
        return functions()[self.calls[0][0]].class_name


def _request(name: str, wordings: str, *calls: tuple[str, dict[str, Any]]) -> Request:
    return Request(name, tuple(wordings.split(" | ")), calls)


def _call(function: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    return function, arguments


_FILES = (
    _request("make file", "create an empty file called {new_file} | "
             "make a new file {new_file} | add a file named {new_file} here",
        _call("touch", file_name="$new_file")),
    _request("make folder", "create a folder called {new_folder} | "
             "make a directory {new_folder} | set up a new folder, {new_folder}",
        _call("mkdir", dir_name="$new_folder")),
    _request("write", "write '{text}' into {file} | replace what is in {file} by '{text}' | let {file} say '{text}'",
        _call("echo", content="$text", file_name="$file")),
    _request("make and write", "create {new_file} with the text '{text}' | put '{text}' into a new file {new_file}",
        _call("touch", file_name="$new_file"), _call("echo", content="$text", file_name="$new_file")),
    _request("show file", "show me what is in {file} | display {file} | read {file} to me",
        _call("cat", file_name="$file")),
    _request("copy", "copy {file} into {folder} | "
             "put a copy of {file} into the folder {folder} | back {file} up to {folder}",
        _call("cp", source="$file", destination="$folder")),
    _request("move", "move {file} into {folder} | "
             "put {file} away into the folder {folder} | shift {file} over to {folder}",
        _call("mv", source="$file", destination="$folder")),
    _request("rename", "rename {file} to {new_file} | "
             "give {file} the name {new_file} | let {file} be called {new_file}",
        _call("mv", source="$file", destination="$new_file")),
    _request("delete file", "delete {file} | remove the file {file} | get rid of {file}",
        _call("rm", file_name="$file")),
    _request("count words", "count the words of {file} | tell me how many words {file} has",
        _call("wc", file_name="$file", mode="w")),
    _request("sort", "sort the lines of {file} | "
             "show the lines of {file} in order | put {file}'s lines in alphabetical order",
        _call("sort", file_name="$file")),
    _request("search file", "look for '{word}' in {file} | find the lines of {file} that have '{word}' in them",
        _call("grep", file_name="$file", pattern="$word")),
    _request("look into folder", "go into {folder} and list what is there | "
             "open the folder {folder} and tell me what it holds",
        _call("cd", folder="$folder"), _call("ls")),
    _request("make in folder", "make a file {new_file} in the folder {folder} | "
             "inside {folder}, create {new_file}, and stay there",
        _call("cd", folder="$folder"), _call("touch", file_name="$new_file")),
)  # fmt: skip
_MATHS = (
    _request("add", "add {a} and {b} | work out {a} plus {b}", _call("add", a="$a", b="$b")),
    _request("subtract", "take {b} from {a} | work out {a} minus {b}", _call("subtract", a="$a", b="$b")),
    _request("multiply", "multiply {a} by {b} | work out {a} times {b}", _call("multiply", a="$a", b="$b")),
    _request("divide", "divide {a} by {b} | work out {a} over {b}", _call("divide", a="$a", b="$b")),
    _request("mean", "average {numbers} | find the mean of {numbers}", _call("mean", numbers="$numbers")),
    _request("largest", "pick the largest of {numbers}", _call("max_value", numbers="$numbers")),
    _request("total", "sum up {numbers} | total {numbers}", _call("sum_values", numbers="$numbers")),
    _request("double the sum", "add {a} and {b} and double what comes out | take {a} plus {b}, times two",
        _call("add", a="$a", b="$b"), _call("multiply", a="@0.result", b=2)),
)  # fmt: skip
_MESSAGES = (
    _request("send", "send {person} the message '{text}' | write '{text}' to {person} | let {person} know: '{text}'",
        _call("get_user_id", user="$person"), _call("send_message", receiver_id="@0.user_id", message="$text")),
    _request("add contact", "add {new_person} to my contacts | make {new_person} a contact",
        _call("add_contact", user_name="$new_person")),
    _request("greet new contact", "add {new_person} as a contact and send them '{text}' | "
             "take {new_person} in and greet them with '{text}'",
        _call("add_contact", user_name="$new_person"),
        _call("send_message", receiver_id="@0.user_id", message="$text")),
    _request("sent messages", "show me all messages that were sent | list the messages sent",
        _call("view_messages_sent")),
    _request("search messages", "look for messages with '{word}' in them | search my messages for '{word}'",
        _call("search_messages", keyword="$word")),
    _request("take back", "delete the latest message to {person} | take back what {person} was sent last",
        _call("get_user_id", user="$person"), _call("delete_message", receiver_id="@0.user_id")),
    _request("users", "tell me who is in the workspace | list all users", _call("list_users")),
)  # fmt: skip
_POSTS = (
    _request("post", "post '{text}' | publish a tweet that says '{text}' | tweet '{text}'",
        _call("post_tweet", content="$text")),
    _request("post with tag", "post '{text}' with the tag {tag} | tweet '{text}', tagged {tag}",
        _call("post_tweet", content="$text", tags=["$tag"])),
    _request("comment", "comment '{text}' on tweet {tweet} | answer tweet {tweet} with '{text}'",
        _call("comment", tweet_id="$tweet", comment_content="$text")),
    _request("retweet", "retweet number {tweet} | share tweet {tweet}", _call("retweet", tweet_id="$tweet")),
    _request("follow", "follow {new_person} | begin to follow {new_person}",
        _call("follow_user", username_to_follow="$new_person")),
    _request("unfollow", "stop following {followed} | unfollow {followed}",
        _call("unfollow_user", username_to_unfollow="$followed")),
    _request("following", "list whom I follow | tell me whom I am following", _call("list_all_following")),
    _request("show tweet", "show me tweet {tweet} | open tweet {tweet}", _call("get_tweet", tweet_id="$tweet")),
    _request("post and comment", "post '{text}' and comment '{word}' under it | "
             "tweet '{text}', then add the comment '{word}' to it",
        _call("post_tweet", content="$text"), _call("comment", tweet_id="@0.id", comment_content="$word")),
)  # fmt: skip
_TICKETS = (
    _request("open ticket", "open a ticket titled '{title}' | file a ticket called '{title}'",
        _call("create_ticket", title="$title")),
    _request("open urgent ticket", "open a ticket '{title}' with priority {priority} | "
             "file '{title}' as a ticket of priority {priority}",
        _call("create_ticket", title="$title", priority="$priority")),
    _request("show ticket", "show me ticket {ticket} | look ticket {ticket} up",
        _call("get_ticket", ticket_id="$ticket")),
    _request("close ticket", "close ticket {ticket} | shut ticket {ticket}",
        _call("close_ticket", ticket_id="$ticket")),
    _request("resolve ticket", "resolve ticket {ticket} with '{text}' | mark ticket {ticket} as resolved: '{text}'",
        _call("resolve_ticket", ticket_id="$ticket", resolution="$text")),
    _request("change priority", "set the priority of ticket {ticket} to {priority} | "
             "give ticket {ticket} priority {priority}",
        _call("edit_ticket", ticket_id="$ticket", updates={"priority": "$priority"})),
    _request("open and resolve", "open a ticket '{title}' and resolve it with '{text}'",
        _call("create_ticket", title="$title"), _call("resolve_ticket", ticket_id="@0.id", resolution="$text")),
)  # fmt: skip
_TRADES = (
    _request("quote", "look up the stock {stock} | tell me how {stock} is doing",
        _call("get_stock_info", symbol="$stock")),
    _request("buy", "buy {amount} shares of {stock} at the current price | "
             "get me {amount} of {stock} at what it costs now",
        _call("get_stock_info", symbol="$stock"),
        _call("place_order", order_type="Buy", symbol="$stock", price="@0.price", amount="$amount")),
    _request("sell at", "sell {amount} shares of {stock} at {price} dollars | "
             "place an order to sell {amount} {stock} at {price}",
        _call("place_order", order_type="Sell", symbol="$stock", price="$price", amount="$amount")),
    _request("watch", "put {stock} on my watchlist | watch {stock} for me", _call("add_to_watchlist", stock="$stock")),
    _request("watch company", "put {company} on my watchlist | find {company}'s symbol and watch it",
        _call("get_symbol_by_name", name="$company"), _call("add_to_watchlist", stock="@0.symbol")),
    _request("watchlist", "show me my watchlist | list the stocks that I watch", _call("get_watchlist")),
    _request("deposit", "pay {price} dollars in | add {price} dollars to my account",
        _call("fund_account", amount="$price")),
    _request("account", "show me my account | tell me how my account stands", _call("get_account_info")),
    _request("show order", "show me order {order} | look order {order} up",
        _call("get_order_details", order_id="$order")),
    _request("cancel order", "cancel order {order} | call order {order} off", _call("cancel_order", order_id="$order")),
)  # fmt: skip
_TRAVELS = (
    _request("airport", "find the airport nearest to {city} | tell me which airport is close to {city}",
        _call("get_nearest_airport_by_city", location="$city")),
    _request("fare", "price a {cabin} flight from {airport} to {airport2} on {date} | "
             "tell me what {airport} to {airport2} costs in {cabin} on {date}",
        _call("get_flight_cost", travel_from="$airport", travel_to="$airport2", travel_date="$date",
            travel_class="$cabin")),
    _request("book", "book {airport} to {airport2} in {cabin} on {date} with card {card} and token {token}",
        _call("book_flight", access_token="$token", card_id="$card", travel_date="$date",
            travel_from="$airport", travel_to="$airport2", travel_class="$cabin")),
    _request("balance", "tell me the balance of card {card}; my token is {token} | "
             "with token {token}, check the balance of {card}",
        _call("get_credit_card_balance", access_token="$token", card_id="$card")),
    _request("budget", "limit my budget to {price} dollars with token {token} | "
             "with token {token}, set a budget of {price}",
        _call("set_budget_limit", access_token="$token", budget_limit="$price")),
    _request("exchange", "change {price} US dollars into {currency} | tell me what {price} USD are in {currency}",
        _call("compute_exchange_rate", base_currency="USD", target_currency="$currency", value="$price")),
    _request("fare between cities", "price {city} to {city2} on {date}, {cabin}",
        _call("get_nearest_airport_by_city", location="$city"),
        _call("get_nearest_airport_by_city", location="$city2"),
        _call("get_flight_cost", travel_from="@0.nearest_airport", travel_to="@1.nearest_airport",
            travel_date="$date", travel_class="$cabin")),
)  # fmt: skip
_CARS = (
    _request("fuel", "put {gallons} gallons into the tank | refuel {gallons} gallons",
        _call("fillFuelTank", fuelAmount="$gallons")),
    _request("lock", "lock the {door} door | see that the {door} door is locked",
        _call("lockDoors", unlock=False, door=["$door"])),
    _request("unlock", "unlock the {door} door | open the lock of the {door} door",
        _call("lockDoors", unlock=True, door=["$door"])),
    _request("lights", "turn the headlights {on_off} | switch the headlights {on_off}",
        _call("setHeadlights", mode="$on_off")),
    _request("brake", "{engage} the parking brake | see to it that you {engage} the parking brake",
        _call("activateParkingBrake", mode="$engage")),
    _request("climate", "set the climate to {degrees} degrees celsius, mode {mode} | "
             "make it {degrees} degrees celsius in {mode} mode",
        _call("adjustClimateControl", temperature="$degrees", mode="$mode")),
    _request("status", "show the car's {part} status | check the {part} of the car",
        _call("displayCarStatus", option="$part")),
    _request("navigate", "navigate to {address} | set {address} as the destination",
        _call("set_navigation", destination="$address")),
    _request("tires", "check the tire pressure | tell me the tires' pressure", _call("check_tire_pressure")),
    _request("liters", "convert {gallons} gallons to liters | tell me how many liters {gallons} gallons are",
        _call("gallon_to_liter", gallon="$gallons")),
    _request("start", "lock all doors, press the brake and start the engine",
        _call("lockDoors", unlock=False, door=["driver", "passenger", "rear_left", "rear_right"]),
        _call("pressBrakePedal", pedalPosition=1.0),
        _call("startEngine", ignitionMode="START")),
)  # fmt: skip

REQUESTS = (*_FILES, *_MATHS, *_MESSAGES, *_POSTS, *_TICKETS, *_TRADES, *_TRAVELS, *_CARS)
