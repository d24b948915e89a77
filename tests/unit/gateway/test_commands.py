"""Commands: carried out on a model of HAProxy they lead from anything it may show to what is wanted, and then end."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from app.domain.lifecycle import State
from app.domain.routing import Member, MemberKind, ReplicaFacts, Standing, plan_routes
from app.gateway.assignment import Picture, assign, servers_of, slot_names
from app.gateway.commands import Command, Place, Shown, plan_commands
from app.gateway.maps import make_maps
from app.gateway.servers import WEIGHT
from app.haproxy.shown import ShownServer

PLACE = Place("/m", "/run/relay.sock", "check inter 1s")
KEYS = st.tuples(st.sampled_from(["route_0001", "route_0002"]), st.sampled_from(["a-1", "b-1", "c-2"]))
MEMBERS = st.builds(
    Member,
    server=st.just("?"),
    kind=st.sampled_from(MemberKind),
    id=st.just("a"),
    attempt=st.just(1),
    model=st.just("m"),
    ip=st.just("127.0.0.1"),
    port=st.integers(20000, 20002),
    standing=st.sampled_from(Standing),
)
WANTED = st.builds(
    Picture,
    servers=st.dictionaries(KEYS, MEMBERS),
    maps=st.fixed_dictionaries({"routes.map": st.dictionaries(st.sampled_from("ABC"), st.sampled_from("xyz"))}),
)
SHOWN_SERVERS = st.builds(
    ShownServer,
    backend=st.just("?"),
    name=st.just("?"),
    ip=st.sampled_from(["127.0.0.1", "-"]),
    port=st.integers(20000, 20002),
    weight=st.sampled_from([1, 100]),
    up=st.booleans(),
    draining=st.booleans(),
    maintenance=st.booleans(),
)
SHOWN = st.builds(
    Shown,
    servers=st.dictionaries(KEYS, SHOWN_SERVERS),
    maps=st.fixed_dictionaries(
        {"routes.map": st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("xyz")), max_size=6)}
    ),
)


class Haproxy:
    """What HAProxy does with these commands, as far as they can tell."""

    def __init__(self, shown: Shown) -> None:
        self.servers = dict(shown.servers)
        self.maps = {f"/m/{name}": list(entries) for name, entries in shown.maps.items()}

    def do(self, command: Command) -> str:
        words = command.line.split(" ")
        return getattr(self, f"{words[0]}_{words[1]}")(*words[2:])

    def shown(self) -> Shown:
        return Shown(dict(self.servers), {path.removeprefix("/m/"): entries for path, entries in self.maps.items()})

    def add_server(self, name: str, address: str, *words: str) -> str:
        key = _key(name)
        if key in self.servers:
            return "Already exists a server with the same name in backend."
        ip, _, port = ("-", "", "0") if address.startswith("unix@") else address.partition(":")
        weight = int(words[words.index("weight") + 1])
        self.servers[key] = ShownServer(*key, ip, int(port), weight, up=True, draining=False, maintenance=True)
        return "New server registered."

    def enable_health(self, name: str) -> str:
        return "" if _key(name) in self.servers else "No such server."

    def set_server(self, name: str, what: str, value: str) -> str:
        found = self.servers.get(_key(name))
        if found is None:
            return "No such server."
        if what == "weight":
            changed = replace(found, weight=int(value))
        else:
            changed = replace(found, draining=value == "drain", maintenance=value == "maint")
        self.servers[_key(name)] = changed
        return ""

    def del_server(self, name: str) -> str:
        found = self.servers.get(_key(name))
        if found is None:
            return "No such server."
        if not found.maintenance:
            return "Only servers in maintenance mode can be deleted."
        del self.servers[_key(name)]
        return "Server deleted."

    def add_map(self, path: str, key: str, value: str) -> str:
        self.maps[path].append((key, value))
        return ""

    def set_map(self, path: str, key: str, value: str) -> str:
        if key not in dict(self.maps[path]):
            return "entry not found."
        self.maps[path] = [(one, value if one == key else old) for one, old in self.maps[path]]
        return ""

    def del_map(self, path: str, key: str) -> str:
        self.maps[path] = [(one, value) for one, value in self.maps[path] if one != key]
        return ""


@given(SHOWN, WANTED)
def test_from_anything_to_what_is_wanted_and_no_further(shown: Shown, wanted: Picture) -> None:
    haproxy = Haproxy(shown)
    for command in plan_commands(shown, wanted, PLACE):
        answer = haproxy.do(command)
        assert command.succeeded(answer), (command, answer)
    for key, member in wanted.servers.items():
        if not member.standing.takes_requests:
            assert key not in haproxy.servers or haproxy.servers[key].draining
        else:
            found = haproxy.servers[key]
            assert (found.draining, found.maintenance, found.weight) == (False, False, WEIGHT)
            ours = ("-", found.port) if member.kind is MemberKind.REGISTERED else (member.ip, member.port)
            assert (found.ip, found.port) == ours
    assert set(haproxy.servers) <= set(wanted.servers)
    assert {key: dict(entries) for key, entries in haproxy.shown().maps.items()} == wanted.maps
    assert plan_commands(haproxy.shown(), wanted, PLACE) == []


@given(SHOWN, WANTED)
def test_no_name_leads_to_a_server_before_it_is_there(shown: Shown, wanted: Picture) -> None:
    lines = [command.line for command in plan_commands(shown, wanted, PLACE)]
    added = [number for number, line in enumerate(lines) if line.startswith("add server")]
    named = [number for number, line in enumerate(lines) if line.startswith(("add map", "set map"))]
    assert not added or not named or max(added) < min(named)


def test_one_replica_among_a_thousand_costs_a_handful() -> None:
    rows = [ReplicaFacts(f"{n:012x}", 1, State.READY, f"m{n % 500}", "127.0.0.1", 20000 + n) for n in range(1000)]
    before, after = _picture(rows[:-1]), _picture(rows)
    haproxy = Haproxy(Shown({}, {name: [] for name in before.maps}))
    for command in plan_commands(haproxy.shown(), before, PLACE):
        assert command.succeeded(haproxy.do(command))
    come = plan_commands(haproxy.shown(), after, PLACE)
    # the server, its health, its state; its check's path and its address by name
    assert len(come) == 5
    for command in come:
        assert command.succeeded(haproxy.do(command))
    assert len(plan_commands(haproxy.shown(), before, PLACE)) == 4


def _picture(rows: list[ReplicaFacts]) -> Picture:
    table = plan_routes(rows)
    assignment = assign(table, {}, slot_names(500))
    return Picture(servers_of(table, assignment), make_maps(table, assignment))


def _key(name: str) -> tuple[str, str]:
    slot, _, server = name.partition("/")
    return slot, server
