"""
The key-value view: the last message of each subject as a bucket, for `nats kv` and every client's key-value store.

A stream that the server fills from ours, with subjects turned into keys. Nothing is published twice, and nobody can put
anything into it. A guest's key is `<cluster>.<namespace>.<name>.<kind>`, tokens encoded as in the subject.

NB: it has our stream as a source, not as what it mirrors. A mirror would keep the revisions, but it also answers direct
gets in the name of its origin, where it knows none of the subjects: half of them would find nothing.
"""

from __future__ import annotations

import nats.errors
import nats.js.errors
from nats.js.api import RetentionPolicy, StorageType, StreamConfig, StreamInfo, StreamSource, SubjectTransform
from nats.js.client import JetStreamContext

from guestwire import subjects
from guestwire.logs import logger
from guestwire.settings import Nats
from guestwire.snapshot import GuestRef

log = logger("bus")


def stream(bucket: str) -> str:
    """The name of the stream behind a bucket, as every client's key-value store expects it."""
    return f"KV_{bucket}"


def subject_of_guest(bucket: str, cluster: str, ref: GuestRef) -> str:
    """Wildcard for every key of a guest, as a subject of that stream."""
    return f"$KV.{bucket}.{subjects.of_guest(cluster, ref).removeprefix(f'{subjects.PREFIX}.')}"


def config(settings: Nats) -> StreamConfig:
    """The stream behind the bucket: one value per key, history is the other stream's."""
    keys = ".".join(f"{{{{wildcard({position})}}}}" for position in range(1, 5))
    transform = SubjectTransform(src=subjects.STREAM_SUBJECT, dest=f"$KV.{settings.bucket}.{keys}")
    return StreamConfig(
        name=stream(settings.bucket),
        description="Present values of what QEMU guest agents know; read only",
        sources=[StreamSource(name=settings.stream, subject_transforms=[transform])],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=settings.replicas,
        max_msgs_per_subject=1,
        allow_direct=True,
        allow_msg_ttl=True,
    )


async def ensure(js: JetStreamContext, settings: Nats, origin: StreamInfo) -> None:
    """
    Make the view unless it is there. One that is older than its stream was filled from another of that name, and waits
    for its next revision in vain: it is made anew. Without the view everything else works, so what goes wrong is told
    in the log.
    """
    name = stream(settings.bucket)
    try:
        view = await _info(js, name)
        if view and [settings.stream] != [source.name for source in view.config.sources or ()]:
            log.warning("the bucket is not ours, leaving it alone", bucket=settings.bucket)
            return
        if view and view.created and origin.created and view.created < origin.created:
            await js.delete_stream(name)
            view = None
        if view is None:
            await js.add_stream(config(settings))
            log.info("bucket created", bucket=settings.bucket)
    except (nats.errors.Error, TimeoutError, OSError) as error:
        reason = str(error) or type(error).__name__
        log.warning("there is no key-value view", bucket=settings.bucket, error=reason)


async def last_revision(js: JetStreamContext, bucket: str) -> int:
    """The bucket's own, of its newest value; 0 where there is no such bucket."""
    view = await _info(js, stream(bucket))
    return view.state.last_seq if view else 0


async def delete(js: JetStreamContext, bucket: str, cluster: str, ref: GuestRef, last: int, kind: str = "*") -> None:
    """Delete the keys of a guest, or the one of a kind, up to a revision of the bucket's."""
    if last:
        keys = subject_of_guest(bucket, cluster, ref).removesuffix("*") + (
            kind if kind == "*" else subjects.encode_token(kind)
        )
        await js.purge_stream(stream(bucket), subject=keys, seq=last + 1)


async def _info(js: JetStreamContext, name: str) -> StreamInfo | None:
    try:
        return await js.stream_info(name)
    except nats.js.errors.NotFoundError:
        return None
