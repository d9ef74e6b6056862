"""From a message on NATS to the status that kubectl shows."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from guestwire.snapshot import (
    DomainInterface,
    FilesystemInfo,
    GuestInterface,
    GuestOSInfo,
    Interfaces,
    IPAddress,
    Kind,
    OperatingSystem,
)
from guestwire.subjects import subject

from .conftest import CLUSTER, GRACE, Vmi, Writer, eventually, quiet

METRICS = ("pending", "unacknowledged", "conflicts_total", "no_effect_total", "interfaces_cut_total")
TIME = "2026-08-22T10:00:00Z"
OS = OperatingSystem(id="debian", name="Debian GNU/Linux", version_id="12", kernel_release="6.1.0", machine="x86_64")
FACTS = GuestOSInfo(fs_info=FilesystemInfo(disks=None), os=OS, timezone="UTC, 0")
NETWORK = Interfaces(
    domain=(DomainInterface("default", "52:54:00:00:00:01", 2, "up"),),
    guest=(
        GuestInterface("lo", "00:00:00:00:00:00", (IPAddress("127.0.0.1", 8),)),
        GuestInterface("eth0", "52:54:00:00:00:01", (IPAddress("10.0.0.5", 24), IPAddress("fe80::1", 64))),
    ),
)


async def test_connected_guest_appears(writer: Writer, vmi: Vmi) -> None:
    """A connected guest's condition, system and addresses show up in its VMI."""
    vmi.create()
    since = datetime(2026, 8, 22, 10, 0, 0, 250000, UTC)
    await vmi.publish(Kind.AGENT, vmi.agent(since=since), observed=datetime(2026, 8, 22, 10, 1, tzinfo=UTC))
    await vmi.publish(Kind.INTERFACES, NETWORK)
    await vmi.publish(Kind.GUESTOSINFO, FACTS)
    await eventually(lambda: vmi.status.get("guestOSInfo") and vmi.status.get("interfaces"))

    assert {
        "phase": "Running",
        "conditions": [
            {
                "type": "AgentConnected",
                "status": "True",
                "lastProbeTime": "2026-08-22T10:01:00Z",
                "lastTransitionTime": "2026-08-22T10:00:00Z",
            }
        ],
        "guestOSInfo": {
            "id": "debian",
            "name": "Debian GNU/Linux",
            "versionId": "12",
            "kernelRelease": "6.1.0",
            "machine": "x86_64",
        },
        "interfaces": [
            {
                "name": "default",
                "mac": "52:54:00:00:00:01",
                "interfaceName": "eth0",
                "ipAddress": "10.0.0.5",
                "ipAddresses": ["10.0.0.5", "fe80::1"],
                "infoSource": "domain, guest-agent",
                "queueCount": 2,
                "linkState": "up",
            }
        ],
    } == vmi.status


async def shown(vmi: Vmi) -> Vmi:
    """A VMI that shows a connected guest's facts."""
    vmi.create()
    await vmi.publish(Kind.AGENT, vmi.agent())
    await vmi.publish(Kind.INTERFACES, NETWORK)
    await vmi.publish(Kind.GUESTOSINFO, FACTS)
    await eventually(
        lambda: (
            vmi.condition("AgentConnected")
            and vmi.status.get("guestOSInfo")
            and vmi.status.get("interfaces", [{}])[0].get("ipAddress")
        )
    )
    return vmi


async def test_unchanged_facts_write_nothing(writer: Writer, vmi: Vmi) -> None:
    """The same facts published again are looked at, and cost no write."""
    version = await quiet(await shown(vmi))
    seen = writer.metric('guestwire_status_results_total{result="unchanged"}')
    for _ in range(3):
        await vmi.publish(Kind.AGENT, vmi.agent())
        await vmi.publish(Kind.INTERFACES, NETWORK)
        await vmi.publish(Kind.GUESTOSINFO, FACTS)
    await eventually(lambda: writer.metric('guestwire_status_results_total{result="unchanged"}') > seen)
    await asyncio.sleep(1)

    assert version == vmi.version


async def test_disconnect_and_grace(writer: Writer, vmi: Vmi) -> None:
    """When the agent goes its condition goes at once; its facts stay for the grace, then go as well."""
    await shown(vmi)
    await vmi.publish(Kind.AGENT, vmi.agent(connected=False))
    took = await eventually(lambda: vmi.condition("AgentConnected") is None)
    within = vmi.status
    await eventually(lambda: "guestOSInfo" not in vmi.status)

    assert took < GRACE
    assert "debian" == within["guestOSInfo"]["id"]
    assert "10.0.0.5" == within["interfaces"][0]["ipAddress"]
    assert [
        {"name": "default", "mac": "52:54:00:00:00:01", "infoSource": "domain", "queueCount": 2, "linkState": "up"}
    ] == vmi.status["interfaces"]


async def test_reboot_within_the_grace_keeps_the_facts(writer: Writer, vmi: Vmi) -> None:
    """An agent that comes back within the grace finds its facts still shown, and they stay."""
    await shown(vmi)
    await vmi.publish(Kind.AGENT, vmi.agent(connected=False))
    await eventually(lambda: vmi.condition("AgentConnected") is None)
    await vmi.publish(Kind.AGENT, vmi.agent())
    await eventually(lambda: vmi.condition("AgentConnected"))
    await asyncio.sleep(GRACE + 0.5)

    assert "debian" == vmi.status["guestOSInfo"]["id"]


async def test_vmi_created_after_its_facts(writer: Writer, vmi: Vmi) -> None:
    """Facts that were published before there was a VMI are shown as soon as it is created."""
    plain = vmi.agent(uid="d1c1d1c1-0000-4000-8000-000000000000")
    vmi.uid = plain.uid
    await vmi.publish(Kind.AGENT, plain)
    await vmi.publish(Kind.INTERFACES, NETWORK)
    await eventually(lambda: settled(vmi, writer))
    vmi.create()

    await eventually(lambda: vmi.condition("AgentConnected") and vmi.status["interfaces"][0]["ipAddress"], within=5)


async def test_recreated_vmi_is_another_one(writer: Writer, vmi: Vmi) -> None:
    """A VMI that was re-created under its name shows nothing of its predecessor, and its own facts when they come."""
    await shown(vmi)
    vmi.delete()
    vmi.create()
    await asyncio.sleep(1)
    before = vmi.status
    await vmi.publish(Kind.AGENT, vmi.agent())
    await eventually(lambda: vmi.condition("AgentConnected"))

    assert {"phase": "Running"} == before
    assert {"phase", "conditions"} == vmi.status.keys()


async def test_facts_of_another_machine_are_not_shown(writer: Writer, vmi: Vmi) -> None:
    """A plain domain whose UUID is not the one that the VMI's spec names is another machine."""
    vmi.create(spec={"domain": {"firmware": {"uuid": "00000000-0000-4000-8000-000000000001"}}})
    version = vmi.version
    uuid = "d1c1d1c1-0000-4000-8000-000000000000"
    await vmi.publish(Kind.AGENT, vmi.agent(uid=uuid, domain_uuid=uuid))
    await eventually(lambda: settled(vmi, writer))

    assert version == vmi.version


async def test_stopped_vmi_is_left_alone(writer: Writer, vmi: Vmi) -> None:
    """A VMI that is not running is not written."""
    vmi.create(status={"phase": "Succeeded"})
    version = vmi.version
    await vmi.publish(Kind.AGENT, vmi.agent())
    await eventually(lambda: settled(vmi, writer))

    assert version == vmi.version


async def test_stripped_fields_come_back(writer: Writer, vmi: Vmi) -> None:
    """What somebody else removes from the status is written again, without any news from the guest."""
    await shown(vmi)
    vmi.merge_patch({"status": {"conditions": [], "guestOSInfo": None}})

    await eventually(lambda: vmi.condition("AgentConnected") and vmi.status.get("guestOSInfo"))


async def test_foreign_parts_stay(writer: Writer, vmi: Vmi) -> None:
    """Conditions and fields of other writers survive every write."""
    ready = {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": None}
    vmi.create(status={"phase": "Running", "nodeName": "node", "conditions": [ready]})
    await vmi.publish(Kind.AGENT, vmi.agent())
    await eventually(lambda: vmi.condition("AgentConnected"))
    await vmi.publish(Kind.AGENT, vmi.agent(connected=False))
    await eventually(lambda: vmi.condition("AgentConnected") is None)

    assert {"phase": "Running", "nodeName": "node", "conditions": [ready]} == vmi.status


async def test_another_writer_at_the_same_time(writer: Writer, vmi: Vmi) -> None:
    """While somebody else rewrites the conditions all the time, neither's word is lost."""
    vmi.create()

    def add(kind: str) -> bool:
        """Add a condition, as the virt-controller does: guarded, and again when somebody was faster."""
        present = vmi.status.get("conditions")
        kept = [each for each in present or [] if each["type"] == "AgentConnected"]
        patch = [
            {"op": "test", "path": "/status/conditions", "value": present},
            {"op": "add", "path": "/status/conditions", "value": [*kept, {"type": kind, "status": "True"}]},
        ]
        where = ("patch", "vmi", vmi.ref.name, "-n", vmi.ref.namespace, "--type=json")
        return "patched" in vmi.kube.kubectl(*where, "-p", json.dumps(patch), check=False)

    def rewrite() -> None:
        for number in range(8):
            while not add(f"Other{number}"):
                pass

    other = asyncio.create_task(asyncio.to_thread(rewrite))
    while not other.done():
        await vmi.publish(Kind.AGENT, vmi.agent(connected=True))
        await asyncio.sleep(0.1)
        await vmi.publish(Kind.AGENT, vmi.agent(connected=False))
        await asyncio.sleep(0.1)
    await other
    await vmi.publish(Kind.AGENT, vmi.agent())
    await eventually(lambda: vmi.condition("AgentConnected"))

    assert vmi.condition("Other7")


async def test_frozen_shows_and_thawed_does_not(writer: Writer, vmi: Vmi) -> None:
    """`fsFreezeStatus` follows the guest."""
    vmi.create()
    await vmi.publish(Kind.AGENT, vmi.agent(frozen=True))
    await eventually(lambda: vmi.status.get("fsFreezeStatus") == "frozen")
    await vmi.publish(Kind.AGENT, vmi.agent(frozen=False))

    await eventually(lambda: "fsFreezeStatus" not in vmi.status)


async def test_undecodable_messages_harm_nobody(writer: Writer, vmi: Vmi) -> None:
    """Nonsense on a subject is told and dropped; the guest's other facts are shown."""
    vmi.create()
    for headers in (
        None,
        {"ce-id": "1", "ce-source": "/guestwire/local/host", "ce-guestuid": vmi.uid, "ce-time": TIME},
    ):
        await vmi.bus.js.publish(subject(CLUSTER, vmi.ref, Kind.INTERFACES), b"{nonsense", headers=headers)
    await vmi.publish(Kind.AGENT, vmi.agent())
    await vmi.publish(Kind.GUESTOSINFO, FACTS)
    await eventually(lambda: vmi.status.get("guestOSInfo"))
    await eventually(lambda: settled(vmi, writer))

    assert 2 <= len(writer.records("message does not follow the contract"))


async def test_everything_is_acknowledged(writer: Writer, vmi: Vmi) -> None:
    """After all is written, no message waits for anything."""
    await shown(vmi)
    await eventually(lambda: writer.metric("guestwire_status_unacknowledged") == 0)
    info = await vmi.bus.js.consumer_info(vmi.bus.settings.stream, writer.durable)

    assert (0, 0) == (info.num_pending, info.num_ack_pending)


async def test_metrics(writer: Writer, vmi: Vmi) -> None:
    """What happens is counted."""
    patches = writer.metric("guestwire_status_patches_total")
    await shown(vmi)

    assert patches < writer.metric("guestwire_status_patches_total")
    assert 0 < writer.metric("guestwire_status_reconcile_seconds_count")
    assert 0 < writer.metric("guestwire_status_vmis")
    assert 0 == writer.metric("guestwire_status_consumer_lag")
    await eventually(lambda: writer.metric("guestwire_status_oldest_unapplied_seconds") == 0)
    text = writer.get("/metrics")[1]
    assert [] == [name for name in METRICS if f"\nguestwire_status_{name} " not in text]


def settled(vmi: Vmi, writer: Writer) -> bool:
    """Whether the writer has looked at a guest."""
    return any(record.get("vmi") == str(vmi.ref) for record in writer.records("reconciled"))
