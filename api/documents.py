"""The documents that describe the API: which there are, and which form of one a client likes best."""

from __future__ import annotations

from api import discovery, openapi
from api.answers import JSON, Answer, ranges

_DOCUMENTS = {**discovery.DOCUMENTS, **openapi.DOCUMENTS}

DOCUMENTS: dict[str, Answer] = {
    "/": discovery.of_document({"paths": sorted((*_DOCUMENTS, *discovery.PROBES))}),
    **_DOCUMENTS,
}
"""By path, ready to be sent."""


def find(path: str, accept: bytes) -> Answer | None:
    """The document at a path, in the form an Accept header prefers; None when it prefers others."""
    for media, parameters in ranges(accept):
        if media not in {JSON, "application/*", "*/*"}:
            continue
        if "as" not in parameters:
            return DOCUMENTS[path]
        wanted = (parameters.get("g"), parameters["as"])
        version = parameters.get("v", "")
        if (
            path == "/apis"
            and wanted == ("apidiscovery.k8s.io", "APIGroupDiscoveryList")
            and version in discovery.AGGREGATED
        ):
            return discovery.AGGREGATED[version]
    return None
