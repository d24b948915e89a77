"""The recorders: a stream that is cut off goes on where it was, and who outlives his leases is seen."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.faults.checker.story import C, Story, name_of
from tests.faults.harness.facts import StackFacts
from tests.faults.harness.recorders import sightings, streams
from tests.faults.harness.recorders.sightings import Sightings
from tests.faults.harness.recorders.streams import EVERYTHING, Streams
from tests.support.embedded import wait_until
from tests.support.handlers import Breaking, serving

EVENTS = [(f"{10 + number}-{number}", {"kind": "x", "replica_id": "r", "to_state": None}) for number in range(1, 8)]


class _Api(Breaking):
    """Two events per connection, the second half-way told."""

    def tell(self, behind: str | None) -> None:
        assert behind is not None
        left = [one for one in EVENTS if int(one[0].split("-")[1]) > int(behind.split("-")[1])]
        self.wfile.write(b"retry: 2000\n\n: keep-alive\n\n")
        for place, event in left[:1]:
            self.wfile.write(f"id: {place}\nevent: x\ndata: {json.dumps(event)}\n\n".encode())
        for place, event in left[1:2]:
            self.wfile.write(f"id: {place}\nevent: x\ndata: {json.dumps(event)}".encode())


def test_a_stream_that_breaks_misses_and_doubles_nothing(tmp_path: Path) -> None:
    _Api.asked = []
    with serving(_Api) as url:
        recorder = Streams(StackFacts(tmp_path, tmp_path, "", url, "key"))
        recorder.start()
        try:
            wait_until(lambda: len(_heard(tmp_path)) >= len(EVENTS), 30, "all events")
        finally:
            recorder.stop()
    assert _heard(tmp_path) == [place for place, _ in EVENTS]
    assert {line["op"] for line in streams.read(tmp_path)} == {"begin", "open", "event", "broke", "closed"}


def test_an_engine_is_seen_once_and_told_of_when_it_outlives_its_attempt(story: Story) -> None:
    recorder = Sightings(story.run.stack)
    recorder.look()
    recorder.look()
    seen = [line for line in sightings.read(story.folder) if line["attempt"] == name_of(C)]
    assert [line["op"] for line in seen] == ["seen", "seen"], "one of the story's own, one of the recorder's"
    story.sql("UPDATE attempts SET released_at = now() WHERE replica_id = %s", C)
    recorder.look()
    recorder.look()
    told = [line for line in sightings.read(story.folder) if line["op"] == "outlived"]
    assert [(line["attempt"], line["pid"]) for line in told] == [(name_of(C), story.engines[0].pid)]
    story.engines[0].kill()
    story.engines[0].wait(30)
    recorder.stop()


def test_sightings_go_on_without_a_database(story: Story) -> None:
    recorder = Sightings(StackFacts(story.folder, story.state_dir, "postgresql://127.0.0.1:1/none", "", "key"))
    recorder.start()
    time.sleep(3 * sightings.EVERY_S)
    recorder.stop()
    assert not [line for line in sightings.read(story.folder) if line["op"] == "outlived"]


def _heard(folder: Path) -> list[str]:
    return [line["id"] for line in streams.read(folder) if line["op"] == "event" and line["stream"] == EVERYTHING]
