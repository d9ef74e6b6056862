"""
From the agent's answer to everyone who needs it, on a real guest.

Every change is made in the guest (its host name, which REST shows, and an address, which VMI status shows) and picked
up by the collector's own schedule. The clock starts when the agent's answer is in (the message's `ce-time`) and stops
when (a) a subscriber has the message, (b) a client that asks over and over gets the changed REST answer, (c) a watcher
of the API server sees the patched VMI. All on one machine and one clock, which the emulated guest shares.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes
import msgspec

from guestwire import client, logs
from guestwire.settings import Log
from lab.build import build
from lab.guest import Guest
from lab.process import free_port, wait_until
from lab.world import World

NAMESPACE, NAME = "default", "bench"
ATTEMPT = 10.0
"""Seconds for which one change may take to be seen everywhere."""


@dataclass
class Seen:
    """When each change was first seen somewhere, by its text."""

    answered: dict[str, float] = field(default_factory=dict)
    bus: dict[str, float] = field(default_factory=dict)
    rest: dict[str, float] = field(default_factory=dict)
    status: dict[str, float] = field(default_factory=dict)


def subscribe(url: str, seen: Seen) -> None:
    """Note every message's arrival, and when its answer was read from the agent."""

    async def listen() -> None:
        async with client.open(url) as bus:
            async for message in client.follow(bus):
                arrived = time.time()
                body = msgspec.json.decode(message.body)
                if message.address.kind == "guestosinfo":
                    marks = [body.get("hostname", "")]
                elif message.address.kind == "interfaces":
                    marks = [a["address"] for nic in body.get("guest", []) for a in nic.get("addresses", [])]
                else:
                    continue
                for mark in marks:
                    if mark not in seen.answered:
                        seen.answered[mark] = message.event.time.timestamp()
                        seen.bus[mark] = arrived

    asyncio.run(listen())


def poll(listen: str, seen: Seen) -> None:
    """Ask REST over and over on one connection, and note when an answer changes."""
    path = f"/apis/subresources.kubevirt.io/v1/namespaces/{NAMESPACE}/virtualmachineinstances/{NAME}/guestosinfo"
    connection = http.client.HTTPConnection(listen)
    etag = ""
    while True:
        connection.request("GET", path, headers={"If-None-Match": etag})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 200 and answer.getheader("ETag"):
            arrived, etag = time.time(), answer.getheader("ETag", "")
            seen.rest.setdefault(json.loads(body).get("hostname", ""), arrived)
        time.sleep(0.0005)


def watch(kubeconfig: Path, seen: Seen) -> None:
    """Note when a watcher of the API server sees an address in the VMI's status."""
    api = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config(str(kubeconfig)))  # type: ignore[no-untyped-call]
    stream: Any = kubernetes.watch.Watch().stream  # type: ignore[no-untyped-call]
    while True:
        for event in stream(
            api.list_namespaced_custom_object, "kubevirt.io", "v1", NAMESPACE, "virtualmachineinstances"
        ):
            arrived = time.time()
            for interface in event["object"].get("status", {}).get("interfaces", []):
                for address in interface.get("ipAddresses", []):
                    seen.status.setdefault(address, arrived)


def start(observer: Callable[..., None], *arguments: Any) -> None:
    """Run an observer until what it observes ends."""

    def run() -> None:
        with contextlib.suppress(Exception):
            observer(*arguments)

    threading.Thread(target=run, daemon=True, name=observer.__name__).start()


def change(guest: Guest, number: int) -> tuple[str, str]:
    """Another host name and another address; both as they will be seen."""
    name, address = f"host-{number}", f"10.8.{number // 250}.{number % 250 + 1}"
    guest.control("hostname", name)
    guest.control("address", "add", "eth0", f"{address}/32")
    if number:
        before = number - 1
        guest.control("address", "del", "eth0", f"10.8.{before // 250}.{before % 250 + 1}/32")
    return name, address


def measure(guest: Guest, seen: Seen, changes: int) -> dict[str, list[float]]:
    """Milliseconds from the agent's answer, per change and destination."""
    took: dict[str, list[float]] = {"to_bus": [], "to_rest": [], "to_status": []}
    for number in range(changes):
        name, address = change(guest, number)
        wait_until(lambda n=name: n in seen.bus and n in seen.rest, ATTEMPT, f"{name} on the bus and over REST")  # type: ignore[misc]
        wait_until(lambda a=address: a in seen.bus and a in seen.status, ATTEMPT, f"{address} in VMI status")  # type: ignore[misc]
        took["to_bus"] += [1000 * (seen.bus[mark] - seen.answered[mark]) for mark in (name, address)]
        took["to_rest"].append(1000 * (seen.rest[name] - seen.answered[name]))
        took["to_status"].append(1000 * (seen.status[address] - seen.answered[address]))
        if number % 20 == 0:
            print(f"  {number} of {changes} changes", file=sys.stderr, flush=True)
    return took


def report(took: dict[str, list[float]]) -> None:
    """A table for people, a line for programs."""
    figures: dict[str, float] = {}
    print(f"{'from the agents answer':<26}{'changes':>8}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}")
    for name, values in took.items():
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        print(f"{name.replace('_', ' '):<26}{len(values):>8}{cuts[49]:>9.1f}{cuts[98]:>9.1f}{max(values):>9.1f}")
        figures |= {f"{name}_ms_p50": round(cuts[49], 2), f"{name}_ms_p99": round(cuts[98], 2)}
    print(json.dumps(figures))


def main() -> None:
    """Build the world, change the guest, say how long it took."""
    parser = argparse.ArgumentParser(prog="make bench BENCH=latency", description=__doc__)
    parser.add_argument("--changes", type=int, default=200)
    arguments = parser.parse_args()
    logs.configure(Log(level="error"))
    seen = Seen()
    with World(build(progress=lambda _: None)) as world:
        uid = world.create_vmi(NAMESPACE, NAME)
        fast = {"COLLECT__SYSTEM": 0.2, "COLLECT__INTERFACES": 0.2, "STATUS__MIN_INTERVAL": 0}
        env = world.environment(UP__NATS=f"127.0.0.1:{free_port()}", **fast)
        log = (world.directory / "up.log").open("w")
        up = subprocess.Popen([Path(sys.executable).with_name("guestwire"), "up"], env=env, stdout=log, stderr=log)
        try:
            with world.guest(namespace=NAMESPACE, name=NAME, uid=uid) as guest:
                guest.wait_agent()
                start(subscribe, f"nats://{env['GUESTWIRE_UP__NATS']}", seen)
                start(poll, env["GUESTWIRE_API__LISTEN"], seen)
                start(watch, world.cluster.kubeconfig, seen)
                wait_until(lambda: bool(seen.status), 30, "the VMI's first status")
                took = measure(guest, seen, arguments.changes)
        finally:
            up.terminate()
            up.wait(30)
            log.close()
    report(took)


if __name__ == "__main__":
    main()
