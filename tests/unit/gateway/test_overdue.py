"""Reading HAProxy's sessions and servers, and judging them."""

from __future__ import annotations

import pytest

from app.gateway.overdue import Limits, Request, all_out, parse_requests, seconds
from app.haproxy.shown import ShownServer

LINE = (
    "{id}: proto=tcpv4 src=127.0.0.1:59794 fe={fe} be={be} srv=x-1 ts=00 epoch=0 age={age} calls=3 rate=0 cpu=0 lat=0"
    " rq[f=848000h,i=0,an=8000h,ax=] rp[f=80040000h,i=0,an={an}h,ax=] scf=[8,402h,fd=17,rex=,wex=]"
    " scb=[8,1011h,fd=20,rex={rex},wex=] exp=0s rc=0 c_exp="
)


def line(**more: str) -> str:
    common = {"id": "0x1", "fe": "door", "be": "route_0001", "age": "2s", "an": "4000000", "rex": "9m58s"}
    return LINE.format(**{**common, **more})


@pytest.mark.parametrize(
    "written,wanted", [("0s", 0), ("59s", 59), ("9m58s", 598), ("10m", 600), ("1h5m", 3900), ("2d3h", 183600), ("", 0)]
)
def test_times_as_haproxy_writes_them(written: str, wanted: int) -> None:
    assert seconds(written) == wanted


@pytest.mark.parametrize(
    "told,wanted",
    [
        (line(), [Request("0x1", 2, 2)]),
        # its first byte is still waited for
        (line(an="1400000"), [Request("0x1", 2, None)]),
        # in the queue: no server, no timer
        (line(an="00", rex=""), [Request("0x1", 2, None)]),
        (line(be="slow_lane"), [Request("0x1", 2, None)]),
        (line(fe="inside"), [Request("0x1", 2, 2)]),
        (line(be="control"), []),
        (line(be="flower"), []),
        (line(fe="GLOBAL", be="<NONE>"), []),
        ("", []),
        ("nonsense", []),
    ],
)
def test_requests_to_replicas(told: str, wanted: list[Request]) -> None:
    assert list(parse_requests(told, 600)) == wanted


@pytest.mark.parametrize(
    "request_,idle_s,total_s,over",
    [
        (Request("0x1", 10, 5), 0, 0, False),
        (Request("0x1", 10, 5), 5, 0, False),
        (Request("0x1", 10, 6), 5, 0, True),
        (Request("0x1", 10, None), 5, 0, False),
        (Request("0x1", 10, None), 5, 9, True),
        (Request("0x1", 10, 0), 5, 10, False),
    ],
)
def test_what_is_over(request_: Request, idle_s: float, total_s: float, over: bool) -> None:
    assert request_.is_over(Limits(600, idle_s, total_s, tries=False)) is over


def server(slot: str, name: str, **more: bool) -> ShownServer:
    flags = {"up": False, "draining": False, "maintenance": False, **more}
    return ShownServer(slot, name, "127.0.0.1", 1, 100, **flags)


def test_only_slots_that_are_wholly_out() -> None:
    servers = [
        server("route_0001", "a-1"),
        server("route_0001", "b-1", up=True),
        server("route_0002", "c-1"),
        server("route_0002", "d-1", up=True, draining=True),
        server("route_0002", "e-1", maintenance=True),
        server("control", "web"),
    ]
    assert all_out(servers) == [("route_0002", "c-1")]
