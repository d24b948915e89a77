"""Run a vector database, put some sentences in, and find the one that is nearest to a question.

    python examples/qdrant_simple_example.py                        a store of its own, stopped at the end
    python examples/qdrant_simple_example.py --service my-store     one that runs already, left running

By default it is Qdrant's engine in one small process; `--recipe vector-db/qdrant` is the server itself.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import zlib

from hostler import Client, HostlerError

COLLECTION = "example_documents"
SIZE = 384
DOCUMENTS = (
    "A locomotive is kept warm over night so that it can leave early.",
    "The signal box decides which train may pass the junction.",
    "Coal and water are taken on at the engine shed.",
    "Passengers change trains at the big station in the valley.",
)
QUESTION = "Where does an engine take on water and coal?"


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Run a vector database and search it.")
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
                search(hostler, service)
            finally:
                if not options.service:
                    hostler.cancel_service(service)
                    print(f"stopped {service}")
    except HostlerError as error:
        print(f"{error.message} {error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    return 0


def search(hostler: Client, service: str) -> None:
    """Fill a collection, ask it, and take it away again."""
    hostler.create_collection(service, COLLECTION, SIZE, "Cosine")
    try:
        points = [
            {"id": number, "vector": embedded(text), "payload": {"text": text}}
            for number, text in enumerate(DOCUMENTS, 1)
        ]
        hostler.upsert_points(service, COLLECTION, points)
        print(f"{len(points)} documents in {COLLECTION}\n> {QUESTION}")
        for hit in hostler.search_points(service, COLLECTION, embedded(QUESTION), limit=2)["result"]:
            print(f"  {hit['score']:.3f}  {hit['payload']['text']}")
    finally:
        hostler.delete_collection(service, COLLECTION)


def embedded(text: str) -> list[float]:
    """A vector for a text: its words, each counted at a place that its letters pick. A model would do better."""
    vector = [0.0] * SIZE
    for word in re.findall(r"[a-z]{3,}", text.lower()):
        vector[zlib.crc32(word.encode()) % SIZE] += 1.0
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


if __name__ == "__main__":
    sys.exit(main())
