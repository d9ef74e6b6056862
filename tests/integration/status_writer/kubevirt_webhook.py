"""
KubeVirt's mutating admission webhook for VMIs, as far as status goes, behind a real API server.

On UPDATE it puts the old status back, unless the user is one of KubeVirt's service accounts
(pkg/virt-api/webhooks/mutating-webhook/mutators/vmi-mutator.go, pkg/virt-api/webhooks/serviceaccounts.go).
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lab.certificates import Authority
from lab.kube_apiserver import KubeApiserver

NAME = "virtualmachineinstances-mutator.kubevirt.io"
PATH = "/virtualmachineinstances-mutate"
CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
ACCOUNTS = frozenset(
    f"system:serviceaccount:kubevirt:kubevirt-{name}"
    for name in ("apiserver", "controller", "handler", "synchronization-controller")
)


def review(request: dict[str, Any]) -> dict[str, Any]:
    """The response to an AdmissionReview's request."""
    response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
    old = request["oldObject"].get("status")
    if request["userInfo"]["username"] not in ACCOUNTS and request["object"].get("status") != old:
        patch = [{"op": "replace" if "status" in request["object"] else "add", "path": "/status", "value": old}]
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
    return response


class Handler(BaseHTTPRequestHandler):
    """Answers AdmissionReviews."""

    def do_POST(self) -> None:
        """One review."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({**asked, "request": None, "response": review(asked["request"])}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Reviews are no news."""


@contextmanager
def installed(kube: KubeApiserver, directory: Path) -> Iterator[None]:
    """The webhook, served and registered; it takes effect a moment later."""
    authority = Authority(directory / "webhook-ca", "webhook-ca")
    keys = authority.issue(directory / "webhook", "webhook", hosts=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.certificate, keys.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        webhook = {
            "name": NAME,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "clientConfig": {
                "url": f"https://127.0.0.1:{server.server_address[1]}{PATH}",
                "caBundle": base64.b64encode(authority.certificate.read_bytes()).decode(),
            },
            "rules": [
                {
                    "apiGroups": ["kubevirt.io"],
                    "apiVersions": ["v1", "v1alpha3"],
                    "operations": ["UPDATE"],
                    "resources": ["virtualmachineinstances"],
                }
            ],
        }
        manifest = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "virt-api-mutator"},
            "webhooks": [webhook],
        }
        kube.apply(json.dumps(manifest))
        try:
            yield
        finally:
            kube.kubectl("delete", "mutatingwebhookconfiguration", "virt-api-mutator", "--ignore-not-found")
            server.shutdown()
