"""Several servers' counters as one page that Prometheus reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from app.domain.exposition import joined

PAGE = """\
# HELP busy_seconds How long it worked.
# TYPE busy_seconds histogram
busy_seconds_bucket{le="0.1",model="a}b\\"c"} 3
busy_seconds_bucket{le="+Inf"} 3
busy_seconds_sum 1.5
busy_seconds_count 3 1700000000000
# TYPE requests_total counter
requests_total{ code="200" , } 7
# TYPE up gauge
up{replica="mine"} 1
"""
BOTH = [({"service": "s", "replica": "r1"}, PAGE), ({"service": "s", "replica": "r2"}, PAGE)]


def test_each_family_once_and_each_sample_with_who_said_it() -> None:
    found = {one.name: one for one in text_string_to_metric_families(joined(BOTH))}
    # the reader takes the end off the name of a counter
    assert {name: (one.type, len(one.samples)) for name, one in found.items()} == {
        "busy_seconds": ("histogram", 8),
        "requests": ("counter", 2),
        "up": ("gauge", 2),
    }
    assert found["busy_seconds"].documentation == "How long it worked."
    assert {sample.labels["replica"] for one in found.values() for sample in one.samples} == {"r1", "r2"}
    assert {sample.labels["service"] for one in found.values() for sample in one.samples} == {"s"}
    assert joined(BOTH).count("# TYPE busy_seconds ") == 1


def test_numbers_and_times_stay_as_they_were_written() -> None:
    assert 'busy_seconds_count{service="s",replica="r1"} 3 1700000000000\n' in joined(BOTH)


def test_a_label_of_the_same_name_is_kept_beside_ours() -> None:
    page = 'up{replica="mine",exported_replica="theirs"} 1\n'
    [family] = text_string_to_metric_families(joined([({"replica": "r"}, page)]))
    assert family.samples[0].labels == {
        "replica": "r",
        "exported_replica": "theirs",
        "exported_exported_replica": "mine",
    }


def test_what_is_no_sample_is_left_out() -> None:
    page = 'ok 1\nno value\nbroken{a="b 2\n{} 3\n<html>\n# TYPE ok nonsense\nok 0x10\n'
    assert joined([({"replica": "r"}, page)]) == 'ok{replica="r"} 1\n'


@given(st.lists(st.tuples(st.text(), st.text(alphabet='abc_:{}="\\, \n\t0123456789.#HELPTYP+-eInfNa')), max_size=4))
def test_whatever_is_said_the_page_can_be_read(pages: list[tuple[str, str]]) -> None:
    told = joined(({"replica": label}, page) for label, page in pages)
    list(text_string_to_metric_families(told))


def test_a_long_line_takes_no_time() -> None:
    # each would take minutes if a part of a line could be read in two ways
    for line in (
        'a{b="' + "\\" * 50_000,
        "a{" + 'b="c" ,' * 50_000 + "x",
        "a" + " " * 50_000 + "x y z",
        "# HELP a" + " " * 50_000,
    ):
        assert joined([({}, f"{line}\nok 1\n")]).endswith("ok{} 1\n")
