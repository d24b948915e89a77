"""The gateway's files: the snapshot first, then what HAProxy is started with. Only what differs is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app.domain.routing import Member
from app.gateway.assignment import Picture
from app.gateway.commands import Place
from app.gateway.files import mark_of, reach_disk, read_file, write_file
from app.gateway.maps import render_map
from app.gateway.places import Places
from app.gateway.servers import arguments
from app.gateway.snapshot import Snapshot, to_json

#: slot -> the words after ``server`` of each of its servers, to the configuration file
Render = Callable[[Mapping[str, Sequence[str]]], str]


class Files:
    """Writes and remembers what it wrote: what nobody touched since is not made again."""

    def __init__(self, places: Places, render: Render, place: Place) -> None:
        self._places = places
        self._render = render
        self._place = place
        self._wrote: tuple[Snapshot, Picture] | None = None
        self._unsafe: set[Path] = set()
        self._marks: dict[Path, tuple[int, int, int] | None] = {}

    def reach_disk(self) -> None:
        """Wait for the disk, which takes some 10 ms a file. Raises OSError.

        Before rows of what is gone are deleted: a power cut would else bring back a file that leads to a port which is
        another's by then.
        """
        reach_disk(sorted(self._unsafe))
        self._unsafe.clear()

    def write(self, snapshot: Snapshot, picture: Picture) -> None:
        """Until it returns nothing of ``picture`` may be applied. Raises OSError.

        It is in the files then, for any process that reads them; the disk has it after ``reach_disk``.
        """
        if (snapshot, picture) == self._wrote and all(mark_of(path) == mark for path, mark in self._marks.items()):
            return
        self._wrote = None
        servers = file_servers(picture.servers, self._place)
        texts = {
            self._places.table: to_json(snapshot),
            **{self._places.maps / name: render_map(entries) for name, entries in picture.maps.items()},
            self._places.config: self._render(servers),
        }
        for path, text in texts.items():
            if read_file(path) != text:
                write_file(path, text, at_once=False)
                self._unsafe |= {path, path.parent}
        self._marks = {path: mark_of(path) for path in texts}
        self._wrote = (snapshot, picture)


def file_servers(servers: Mapping[tuple[str, str], Member], place: Place) -> dict[str, list[str]]:
    """What takes requests, by slot: HAProxy started anew has nothing in flight that would have to be drained."""
    found: dict[str, list[str]] = {}
    for (slot, server), member in sorted(servers.items()):
        if member.standing.takes_requests:
            found.setdefault(slot, []).append(f"{server} {arguments(member, place.relay, place.checks)}")
    return found
