"""Ask a service of vLLM's, and read in its metrics what that cost.

    python examples/vllm_simple_example_with_metrics.py                        a service of its own, stopped at the end
    python examples/vllm_simple_example_with_metrics.py --service my-service   one that runs already, left running

The metrics are Prometheus text, of all replicas together; each sample says by its labels which replica it is of.
"""

from __future__ import annotations

import argparse
import re
import sys
import time

from hostler import Client, HostlerError

REQUESTS = 5
#: Counters of interest, and what they count.
COUNTERS = {
    "vllm:prompt_tokens_total": "tokens read",
    "vllm:generation_tokens_total": "tokens written",
    "vllm:request_success_total": "requests answered",
}
SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)", re.MULTILINE)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Ask a service of vLLM's and read what that cost.")
    parser.add_argument("--service", help="id or name of a service that runs; without it one is made")
    parser.add_argument("--recipe", default="inference/vllm-replicas", help="what to run [%(default)s]")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds to wait for it [%(default)s]")
    options = parser.parse_args()
    try:
        with Client() as hostler:
            service = options.service
            if not service:
                service = hostler.create_service({"recipe_name": options.recipe})["id"]
                print(f"asked for {service}")
            try:
                hostler.wait_service(service, timeout_s=options.timeout)
                measure(hostler, service)
            finally:
                if not options.service:
                    hostler.cancel_service(service)
                    print(f"stopped {service}")
    except HostlerError as error:
        print(f"{error.message} {error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    return 0


def measure(hostler: Client, service: str) -> None:
    """Send some prompts, and show what grew meanwhile."""
    before = counted(hostler.service_metrics(service))
    began = time.monotonic()
    for number in range(REQUESTS):
        answer = hostler.prompt_service(service, f"Count to {number + 3}.", max_tokens=32)
        print(f"{answer['routed_to']}: {answer['text'].strip()[:60]!r}")
    seconds = time.monotonic() - began
    after = counted(hostler.service_metrics(service))
    print(f"\n{REQUESTS} requests in {seconds:.2f} s")
    for name, about in COUNTERS.items():
        grown = {
            replica: value - before.get((name, replica), 0.0) for (one, replica), value in after.items() if one == name
        }
        print(f"{about}: {sum(grown.values()):.0f}", {replica: round(value) for replica, value in grown.items()})


def counted(page: str) -> dict[tuple[str, str], float]:
    """(counter, replica) -> its value, summed over all other labels."""
    found: dict[tuple[str, str], float] = {}
    for sample in SAMPLE.finditer(page):
        replica = re.search(r'replica="([^"]*)"', sample["labels"] or "")
        if sample["name"] in COUNTERS and replica:
            key = sample["name"], replica[1]
            found[key] = found.get(key, 0.0) + float(sample["value"])
    return found


if __name__ == "__main__":
    sys.exit(main())
