"""Fill a vector database with random points, search it, and read in its metrics what it holds and did.

    python examples/qdrant_simple_example_with_metrics.py                        a store of its own, stopped at the end
    python examples/qdrant_simple_example_with_metrics.py --service my-store     one that runs already, left running

The metrics are the store's own Prometheus text, with the labels `service` and `replica` added.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time

from hostler import Client, HostlerError

COLLECTION = "example_points"
SIZE = 64
POINTS, BATCH, SEARCHES = 500, 100, 20


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Fill a vector database, search it, and read its metrics.")
    parser.add_argument("--service", help="id or name of a vector database that runs; without it one is made")
    parser.add_argument("--recipe", default="vector-db/qdrant-edge", help="what to run [%(default)s]")
    parser.add_argument("--timeout", type=float, default=300, help="seconds to wait for it [%(default)s]")
    options = parser.parse_args()
    try:
        with Client() as hostler:
            service = options.service
            if not service:
                service = hostler.create_service({"recipe_name": options.recipe})["id"]
                print(f"asked for {service}")
            try:
                hostler.wait_service(service, timeout_s=options.timeout)
                work(hostler, service)
            finally:
                if not options.service:
                    hostler.cancel_service(service)
                    print(f"stopped {service}")
    except HostlerError as error:
        print(f"{error.message} {error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    return 0


def work(hostler: Client, service: str) -> None:
    """Fill, search, and tell what the metrics say before and after."""
    tell("before", hostler.service_metrics(service))
    chance = random.Random(7)
    hostler.create_collection(service, COLLECTION, SIZE, "Dot")
    try:
        began = time.monotonic()
        for first in range(1, POINTS + 1, BATCH):
            points = [
                {
                    "id": number,
                    "vector": [chance.gauss(0, 1) for _ in range(SIZE)],
                    "payload": {"even": number % 2 == 0},
                }
                for number in range(first, first + BATCH)
            ]
            hostler.upsert_points(service, COLLECTION, points)
        print(f"{POINTS} points in {time.monotonic() - began:.2f} s")
        began = time.monotonic()
        for _ in range(SEARCHES):
            hostler.search_points(service, COLLECTION, [chance.gauss(0, 1) for _ in range(SIZE)], limit=3)
        print(f"{SEARCHES} searches in {time.monotonic() - began:.2f} s")
        tell("after", hostler.service_metrics(service))
    finally:
        hostler.delete_collection(service, COLLECTION)


def tell(when: str, page: str) -> None:
    """The samples about collections and requests, a line each."""
    print(f"metrics {when}:")
    for line in page.splitlines():
        if re.match(r"(collections|rest_responses|app)_", line):
            print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
