"""Serve a model with vLLM, ask it something, and put it away.

    python examples/vllm_simple_example.py                        a service of its own, stopped at the end
    python examples/vllm_simple_example.py --service my-service   one that runs already, left running

Server and key are found as the `hostler` command finds them: HOSTLER_URL and HOSTLER_API_KEY, else this host's stack.
"""

from __future__ import annotations

import argparse
import sys

from hostler import Client, HostlerError

PROMPTS = ("Tell me a joke about programming.", "Write a short haiku about AI.")


def main() -> int:
    """Returns the exit code."""
    options = parsed()
    try:
        with Client() as hostler:
            service = options.service or started(hostler, options)
            try:
                converse(hostler, service)
            finally:
                if not options.service:
                    hostler.cancel_service(service)
                    print(f"stopped {service}")
    except HostlerError as error:
        print(f"{error.message} {error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    return 0


def parsed() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description="Serve a model with vLLM and ask it something.")
    parser.add_argument("--service", help="id or name of a service that runs; without it one is made")
    parser.add_argument("--recipe", default="inference/vllm-single-node", help="what to run [%(default)s]")
    parser.add_argument("--model", help="name of a model on the hub [the recipe's own]")
    parser.add_argument("--cpu", action="store_true", help="without a GPU")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds to wait for it [%(default)s]")
    return parser.parse_args()


def started(hostler: Client, options: argparse.Namespace) -> str:
    """The id of a new service all of whose replicas are ready."""
    config = {}
    if options.model:
        config["environment"] = {"VLLM_MODEL": options.model}
    if options.cpu:
        config["resources"] = {"gpu": None}
    made = hostler.create_service({"recipe_name": options.recipe, "config": config})
    print(f"asked for {made['name']}: {made['recipe_name']} with {made['model_name']}")
    hostler.wait_service(made["id"], timeout_s=options.timeout)
    return str(made["id"])


def converse(hostler: Client, service: str) -> None:
    """Show what it serves, and what it makes of some prompts."""
    print("it serves", ", ".join(hostler.service_models(service)["models"]))
    for prompt in PROMPTS:
        answer = hostler.prompt_service(service, prompt, max_tokens=64, temperature=0.7)
        print(f"\n> {prompt}\n{answer['text'].strip()}\n  from {answer['routed_to']}, {answer['usage']}")


if __name__ == "__main__":
    sys.exit(main())
