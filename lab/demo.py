"""
The demonstration: a real guest, the whole pipeline, and what arrives where.

The pipeline is `guestwire up`, with settings from the environment, as in production. Everything shown was just received
from the real NATS server, the real API server and plain HTTP; nothing is prepared. A step that does not come true ends
it with one line and exit status 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml

from guestwire import client, logs
from guestwire.errors import GuestwireError
from guestwire.jetstream import Message
from guestwire.settings import Log
from lab.build import build
from lab.errors import LabError
from lab.guest import Guest
from lab.process import free_port
from lab.world import World

NAMESPACE, NAME = "default", "demo"
PATIENCE = 30.0
"""Seconds after which something that should have happened has not."""
GRACE = 3.0
SUBRESOURCES = ("guestosinfo", "userlist", "filesystemlist")
BOLD, DIM, GREEN, RED, PLAIN = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m")
if not sys.stdout.isatty():
    BOLD = DIM = GREEN = RED = PLAIN = ""


def show(text: str, indent: str = "    ") -> None:
    """Something received, set off from the story."""
    print("\n".join(indent + line for line in text.rstrip().splitlines()), flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """A step of the story, with how long it took."""
    print(f"\n{BOLD}{title}{PLAIN}", flush=True)
    began = time.monotonic()
    yield
    print(f"  {GREEN}done{PLAIN} in {time.monotonic() - began:.1f} s", flush=True)


def took(what: str, seconds: float) -> None:
    """How long one thing took to arrive."""
    print(f"  {GREEN}{seconds:6.2f} s{PLAIN}  {what}", flush=True)


class Subscriber:
    """Someone on NATS: every message since the start, with the moment it came."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._messages: queue.Queue[tuple[float, Message]] = queue.Queue()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True, name="subscriber")
        self._thread.start()

    async def _listen(self) -> None:
        async with client.open(self._url) as bus:
            await bus.ensure_stream_patiently(asyncio.Event(), create=False)
            async for message in client.follow(bus):
                self._messages.put((time.monotonic(), message))

    def expect(self, kind: str, holds: Callable[[Any], bool], what: str) -> tuple[float, Message]:
        """The next message of a kind whose body is as expected, and when it came."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                came, message = self._messages.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise LabError(f"no message on NATS within {PATIENCE:g} s: {what}") from None
            if message.address.kind == kind and holds(msgspec.json.decode(message.body)):
                return came, message


class Demo:
    """The story, step by step."""

    def __init__(self, world: World, guest: Guest, env: dict[str, str]) -> None:
        self.world = world
        self.guest = guest
        self.env = env
        self.nats = f"nats://{env['GUESTWIRE_UP__NATS']}"
        self.api = f"http://{env['GUESTWIRE_API__LISTEN']}"
        self.subscriber = Subscriber(self.nats)

    # --- how to look -------------------------------------------------------------------------------------------

    def url(self, subresource: str) -> str:
        """KubeVirt's path of a subresource."""
        path = f"apis/subresources.kubevirt.io/v1/namespaces/{NAMESPACE}/virtualmachineinstances/{NAME}"
        return f"{self.api}/{path}/{subresource}"

    def get(self, subresource: str) -> tuple[int, Any]:
        """Plain HTTP: status and JSON; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(self.url(subresource), timeout=5) as answer:  # noqa: S310 - our own
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())
        except OSError:
            return 0, None

    def vmi_status(self) -> dict[str, Any]:
        """The VMI's status, read with kubectl."""
        text = self.world.cluster.kubectl("get", "vmi", NAME, "-n", NAMESPACE, "-o", "json")
        status: dict[str, Any] = json.loads(text).get("status", {})
        return status

    def condition(self) -> bool:
        """Whether the VMI has the condition AgentConnected."""
        return any(condition["type"] == "AgentConnected" for condition in self.vmi_status().get("conditions", []))

    def until(self, holds: Callable[[], object], what: str) -> float:
        """Wait for it; the moment it held."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise LabError(f"not within {PATIENCE:g} s: {what}")
            time.sleep(0.02)
        return time.monotonic()

    # --- the story ---------------------------------------------------------------------------------------------

    def connects(self, began: float) -> None:
        """The guest boots and its agent answers."""
        with step("The guest boots, and its agent connects"):
            came, _ = self.subscriber.expect("agent", lambda body: body["connected"], "agent connected")
            took("boot until the agent is known to be connected", came - began)
            first = self.until(self.condition, "condition AgentConnected")
            took("from there to the condition AgentConnected on the VMI", max(0.0, first - came))
            known, message = self.subscriber.expect("guestosinfo", lambda body: body["os"], "guestosinfo")
            took("from there to everything the agent knows, on NATS", known - came)
        with step("The message as it is on NATS"):
            show(f"{BOLD}{message.address.subject}{PLAIN}  (revision {message.revision})")
            show("\n".join(f"{name}: {value}" for name, value in message.headers.items()))
            show(_shortened(msgspec.json.decode(message.body)))

    def status(self) -> None:
        """The VMI's status as kubectl shows it."""
        with step(f"kubectl get vmi {NAME} -o yaml: its status"):
            self.until(lambda: self.vmi_status().get("guestOSInfo"), "guestOSInfo in status")
            self.until(
                lambda: any(i.get("ipAddresses") for i in self.vmi_status().get("interfaces", [])),
                "addresses in status",
            )
            show(yaml.safe_dump(self.vmi_status(), sort_keys=False))

    def rest(self) -> None:
        """The three subresources."""
        with step("The three subresources, by plain HTTP"):
            for subresource in SUBRESOURCES:
                self.until(lambda name=subresource: self.get(name)[0] == 200, subresource)  # type: ignore[misc]
                began = time.monotonic()
                _, body = self.get(subresource)
                show(f"{DIM}GET {self.url(subresource)}  ({1000 * (time.monotonic() - began):.1f} ms){PLAIN}")
                show(_shortened(body))

    def login(self) -> None:
        """A user logs in."""
        with step("A user logs in: alice"):
            began = time.monotonic()
            self.guest.control("login", "alice")
            came, _ = self.subscriber.expect("userlist", lambda body: "alice" in str(body), "alice in userlist")
            took("to a subscriber on NATS", came - began)
            seen = self.until(lambda: "alice" in str(self.get("userlist")[1]), "alice in GET userlist")
            took("to GET userlist", seen - began)
            show(json.dumps(self.get("userlist")[1], indent=2))

    def address(self) -> None:
        """An address is added."""
        with step("An address is added: 10.7.7.7/24 on eth0"):
            began = time.monotonic()
            self.guest.control("address", "add", "eth0", "10.7.7.7/24")
            came, _ = self.subscriber.expect("interfaces", lambda body: "10.7.7.7" in str(body), "10.7.7.7")
            took("to a subscriber on NATS", came - began)
            seen = self.until(lambda: "10.7.7.7" in str(self.vmi_status()), "10.7.7.7 in VMI status")
            took("to the VMI's status.interfaces", seen - began)
            show(yaml.safe_dump(self.vmi_status()["interfaces"], sort_keys=False))

    def agent_dies(self) -> None:
        """The agent is killed."""
        with step("The agent is killed"):
            began = time.monotonic()
            self.guest.control("agent", "kill")
            came, _ = self.subscriber.expect("agent", lambda body: not body["connected"], "agent disconnected")
            took("to a subscriber on NATS", came - began)
            seen = self.until(lambda: self.get("guestosinfo")[0] == 409, "409 from GET guestosinfo")
            took("to GET guestosinfo answering 409", seen - began)
            show(self.get("guestosinfo")[1]["message"])
            seen = self.until(lambda: not self.condition(), "condition removed")
            took("to the condition being removed", seen - began)
            seen = self.until(lambda: not self.vmi_status().get("guestOSInfo"), "guestOSInfo removed")
            took(
                f"to the information being no longer shown (after a grace of {GRACE:g} s; a reboot does not flap)",
                seen - began,
            )
            show(yaml.safe_dump(self.vmi_status(), sort_keys=False))

    def agent_returns(self) -> None:
        """The agent is started again."""
        with step("The agent returns"):
            began = time.monotonic()
            self.guest.control("agent", "start")
            came, _ = self.subscriber.expect("agent", lambda body: body["connected"], "agent connected")
            took("to a subscriber on NATS", came - began)
            seen = self.until(lambda: self.get("guestosinfo")[0] == 200, "200 from GET guestosinfo")
            took("to GET guestosinfo answering 200", seen - began)
            seen = self.until(lambda: self.condition() and self.vmi_status().get("guestOSInfo"), "VMI status")
            took("to the VMI's status", seen - began)

    def tell(self, began: float) -> None:
        """All of it, in order; `began` is when the guest was started."""
        self.connects(began)
        for part in (self.status, self.rest, self.login, self.address, self.agent_dies, self.agent_returns):
            part()


def _shortened(body: dict[str, Any]) -> str:
    """A body as JSON, with its long list of commands cut for the eye."""
    commands = body.get("supportedCommands", [])
    if len(commands) > 2:
        body = {**body, "supportedCommands": [*commands[:2], f"... {len(commands) - 2} more"]}
    return json.dumps(body, indent=2)


def _pipeline(env: dict[str, str], log: Path) -> subprocess.Popen[str]:
    """`guestwire up`, its output shown as it comes."""
    guestwire = Path(sys.executable).with_name("guestwire")
    process = subprocess.Popen(
        [guestwire, "up"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )

    def repeat() -> None:
        with log.open("w") as copy:
            for line in process.stdout or ():
                copy.write(line)
                print(f"  {DIM}up | {line.rstrip()}{PLAIN}", flush=True)

    threading.Thread(target=repeat, daemon=True, name="output of up").start()
    return process


def _keep(demo: Demo) -> None:
    """Leave everything running until Ctrl-C, and say what to try."""
    guestwire = Path(sys.executable).with_name("guestwire")
    print(f"\n{BOLD}Everything is left running. Try, from another terminal:{PLAIN}")
    for command in (
        f"curl -s {demo.url('guestosinfo')}",
        f"{guestwire} get userlist {NAMESPACE}/{NAME} --server {demo.api}",
        f"GUESTWIRE_NATS__SERVERS={demo.nats} {guestwire} watch",
        f"{demo.world.kubectl} --kubeconfig {demo.world.cluster.kubeconfig} get vmi {NAME} -o yaml",
    ):
        print(f"  {command}")
    print("Ctrl-C ends it all and cleans up.", flush=True)
    signal.pause()


def _tell(world: World, *, keep: bool) -> None:
    uid = world.create_vmi(NAMESPACE, NAME)
    env = world.environment(
        UP__NATS=f"127.0.0.1:{free_port()}",
        # Shorter than the defaults (users 10 s, addresses 30 s, grace 60 s), to be watched without waiting.
        COLLECT__USERS=2,
        COLLECT__INTERFACES=2,
        STATUS__GRACE=GRACE,
        STATUS__MIN_INTERVAL=0.2,
    )
    with ExitStack() as resources:
        with step("The pipeline starts: guestwire up"):
            up = _pipeline(env, world.directory / "up.log")
            resources.callback(_stop, up)
            demo = Demo(world, world.guest(namespace=NAMESPACE, name=NAME, uid=uid), env)
            demo.until(lambda: demo.get("guestosinfo")[0] == 404 or up.poll() is not None, "the API answers")
            if up.poll() is not None:
                raise LabError(f"guestwire up ended with status {up.returncode}; see above")
        began = time.monotonic()
        resources.enter_context(demo.guest)
        demo.tell(began)
        if keep:
            _keep(demo)
        with step("Everything is stopped, in order"):
            resources.close()
        if up.returncode:
            raise LabError(f"guestwire up ended with status {up.returncode}")


def _stop(up: subprocess.Popen[str]) -> None:
    up.send_signal(signal.SIGINT)
    up.wait(60)


def _interrupted(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Exit status: 0 when every step came true, else 1 after one line."""
    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a shell may have started us with it ignored
        signal.signal(number, _interrupted)
    logs.configure(Log(level="error"))
    keep, kubeconfig = bool(os.environ.get("KEEP")), os.environ.get("KUBECONFIG")
    began = time.monotonic()
    try:
        world = World(build(progress=lambda _: None), kubeconfig=Path(kubeconfig) if kubeconfig else None)
        with ExitStack() as resources:
            with step("A libvirt host and a Kubernetes API server start"):
                resources.enter_context(world)
                show(f"{world.host!r}\n{world.cluster!r}")
            _tell(world, keep=keep)
    except (LabError, GuestwireError, OSError, subprocess.SubprocessError) as error:
        print(f"{RED}demo: {str(error).splitlines()[0]}{PLAIN}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("demo: ended by you", flush=True)
        return 0 if keep else 1
    print(f"\n{GREEN}Every step came true{PLAIN}, in {time.monotonic() - began:.0f} s.")
    return 0
