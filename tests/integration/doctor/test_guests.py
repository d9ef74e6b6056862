"""Guests that cannot be asked, for real reasons; and that what is advised mends them."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd
from lab.process import wait_until

from .conftest import examine

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def guest(host: Libvirtd, image: GuestImage) -> Iterator[Guest]:
    """A guest that is well; a test leaves it so."""
    with Guest(host, image, namespace="prod", name="web") as machine:
        machine.wait_agent()
        yield machine


class Bare(Guest):
    """A guest without any channel, and so without a controller for one."""

    @property
    def xml(self) -> str:
        return re.sub(r'<channel type="unix">.*?</channel>', "", super().xml, flags=re.DOTALL)


def found_about(guest: Guest, **settings: Any) -> dict[str, Any]:
    """The finding about a guest."""
    found = examine(guest.domain_name, LIBVIRT__URIS=guest.host.uri, **settings)
    return found.one("guests", guest.domain_name)


def follow(advice: list[str], directory: Path) -> None:
    """Do what is advised about a channel: write the file, run the command."""
    (directory / "channel.xml").write_text(advice[1])
    subprocess.run(shlex.split(advice[2]), cwd=directory, check=True, timeout=20)


@pytest.mark.parametrize("name", ["prod_web", "prod/web", "{uuid}"])
def test_agent_answers(guest: Guest, name: str) -> None:
    """A guest that is well is ok, by whatever name it was asked for; the agent's version is told."""
    found = examine(name.format(uuid=guest.uuid), LIBVIRT__URIS=guest.host.uri)
    finding = found.one("guests", "prod_web")

    assert "ok" == finding["outcome"]
    assert re.match(r"qemu-ga \d+\.\d+", finding["text"])


def test_agent_stopped(guest: Guest) -> None:
    """Without an agent in the guest: what to install and start there."""
    guest.control("agent", "stop")
    wait_until(lambda: not guest.agent_connected(), 10, "agent gone")
    finding = found_about(guest)
    guest.control("agent", "start")
    guest.wait_agent()

    assert ("problem", "no agent at the guest's end of the channel") == (finding["outcome"], finding["text"])
    assert "systemctl enable --now qemu-guest-agent" in finding["advice"][0]


def test_agent_hangs(guest: Guest) -> None:
    """An agent that is connected and silent is told from one that is not there."""
    guest.control("agent", "hang")
    finding = found_about(guest)
    guest.control("agent", "wake")
    guest.wait_agent()

    assert "problem" == finding["outcome"]
    assert "connected and does not answer" in finding["text"]
    assert "systemctl restart qemu-guest-agent" in finding["advice"][0]


def test_command_blocked(guest: Guest) -> None:
    """Commands that the guest's administrator forbade are named, with the files in which that is done."""
    guest.control("agent", "block", "guest-get-users,guest-get-fsinfo,guest-exec")
    guest.wait_agent()
    finding = found_about(guest)
    guest.control("agent", "block")
    guest.wait_agent()

    assert "problem" == finding["outcome"]
    assert finding["text"].endswith(" blocks guest-get-users, guest-get-fsinfo")
    assert [] == [file for file in ("qemu-ga.conf", "sysconfig/qemu-ga") if file not in "".join(finding["advice"])]


def test_optional_kind_that_is_switched_on(guest: Guest) -> None:
    """What is switched on is asked of the agent too: the lab's is too old for one of the commands."""
    finding = found_about(guest, COLLECT__LOAD="60", COLLECT__VCPUS="60")

    assert "problem" == finding["outcome"]
    assert finding["text"].endswith(" lacks guest-get-load")


def test_info_blocked(guest: Guest) -> None:
    """Even guest-info may be forbidden: the agent's own words, and the same files."""
    guest.control("agent", "block", "guest-info")
    guest.wait_agent()
    finding = found_about(guest)
    guest.control("agent", "block")
    guest.wait_agent()

    assert ("problem", True) == (finding["outcome"], "guest-info" in finding["text"])
    assert "qemu-ga.conf" in finding["advice"][0]


def test_frozen(guest: Guest) -> None:
    """A frozen guest blocks commands by itself: no problem of its configuration."""
    with guest.domain() as domain:
        domain.fsFreeze()
        finding = found_about(guest)
        domain.fsThaw()

    assert ("note", True) == (finding["outcome"], finding["text"].endswith("filesystems are frozen"))


def test_paused(guest: Guest) -> None:
    """A paused guest is no problem; it is said that nobody can ask it."""
    guest.suspend()
    finding = found_about(guest)
    guest.resume()

    assert ("note", "is paused, so nobody can ask its agent") == (finding["outcome"], finding["text"])


def test_not_running(host: Libvirtd, image: GuestImage) -> None:
    """A domain that is off is no problem, as long as it has its channel."""
    with Guest(host, image, name="off") as guest:
        guest.destroy()
        finding = examine("off", LIBVIRT__URIS=host.uri).one("guests", "default_off")

    assert ("note", "has a channel for the agent, and is off") == (finding["outcome"], finding["text"])


def test_channel_is_plugged_in(host: Libvirtd, image: GuestImage, tmp_path: Path) -> None:
    """
    Where the machine has a controller, the advised command gives the running guest and its definition a channel. (The
    lab's guest looks for channels when it boots, hence the reboot; udev elsewhere does not need one.)
    """
    with Guest(host, image, name="plug", agent_channel=False, disk=False) as guest:
        wait_until(_controlled(guest), 60, "booted")
        before = found_about(guest)
        follow(before["advice"], tmp_path)
        plugged = found_about(guest)
        guest.control("reboot")
        guest.wait_agent()
        after = found_about(guest)

    assert ("problem", "its domain has no channel for the agent") == (before["outcome"], before["text"])
    assert before["advice"][2].endswith("attach-device default_plug channel.xml --config --live")
    assert "no agent at the guest's end of the channel" == plugged["text"]
    assert "ok" == after["outcome"]


def test_channel_comes_with_the_next_start(host: Libvirtd, image: GuestImage, tmp_path: Path) -> None:
    """Where the machine has no controller, it cannot be plugged in: the command is for the definition, and a start."""
    with Bare(host, image, name="bare", disk=False) as guest:
        before = found_about(guest)
        follow(before["advice"], tmp_path)
        guest.destroy()
        with guest.domain() as domain:
            domain.create()
        guest.wait_agent()
        after = found_about(guest)

    assert before["advice"][2].endswith("attach-device default_bare channel.xml --config")
    assert "after the next start" in before["advice"][3]
    assert "ok" == after["outcome"]


def test_transient_domain(host: Libvirtd, image: GuestImage) -> None:
    """A domain without a definition, and without a controller, gets its channel where it is made only."""
    with Bare(host, image, name="transient", disk=False, persistent=False) as guest:
        finding = found_about(guest)

    assert [] == [line for line in finding["advice"] if "attach-device" in line]
    assert "from which the domain is created" in finding["advice"][-1]


def _controlled(guest: Guest) -> Callable[[], bool]:
    """Whether the guest has booted and obeys."""

    def obeys() -> bool:
        try:
            return guest.control("ping") == "pong"
        except Exception:
            return False

    return obeys
