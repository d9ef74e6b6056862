"""
The checks of a cluster: that VMIs are there, and that the status writer may do with them what it does.

Rights are asked for with SelfSubjectAccessReview, which everybody may create and which leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import msgspec

from guestwire.checks import Finding, Outcome
from guestwire.errors import ConfigError, GuestwireError, NotConnected
from guestwire.settings import Status
from status_writer.answers import Gone, NotServed
from status_writer.api_server import ApiServer, kubeconfig
from status_writer.vmis import GROUP_VERSION, PLURAL, REVIEWS

WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
KUBEVIRT_MUTATOR = "virtualmachineinstances-mutator.kubevirt.io"
SERVICE_ACCOUNT = "system:serviceaccount:"
KUBEVIRT_ACCOUNTS = ("kubevirt-apiserver", "kubevirt-controller", "kubevirt-handler")
"""Whose changes of status KubeVirt's webhook lets pass (serviceaccounts.go)."""
VERBS = ("get", "list", "watch", "patch")


async def check_cluster(settings: Status, environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Everything about the cluster, one after the other; what depends on a failed check is left out."""
    try:
        path = kubeconfig(settings, environ)
    except ConfigError as error:
        if settings.kubeconfig or environ.get("KUBECONFIG"):
            return [_problem("", str(error), "correct the path")]
        return [Finding("cluster", "", Outcome.SKIPPED, "no kubeconfig; set KUBECONFIG for VMI status")]
    about = path or "the cluster this runs in"
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(4 * settings.timeout):
            await _Cluster(settings, about, findings).check()
    except TimeoutError:
        findings.append(_problem(about, f"no answer within {4 * settings.timeout:g} s", "is the API server well?"))
    except ConfigError as error:
        findings.append(_problem(about, str(error), "try it with `kubectl version`"))
    except NotConnected as error:
        advice = "is the server of the kubeconfig reachable, and are its credentials valid? try `kubectl version`"
        findings.append(_problem(about, str(error), advice))
    except (GuestwireError, Gone) as error:
        findings.append(_problem(about, str(error), "try it with `kubectl`"))
    return findings


class _Cluster:
    def __init__(self, settings: Status, about: str, findings: list[Finding]) -> None:
        self._settings = settings
        self._about = about
        self._findings = findings

    async def check(self) -> None:
        """Raises what the first unexpected answer means."""
        plain = msgspec.structs.replace(self._settings, impersonate_user="")
        async with _Asked(plain) as asked:
            version = (await asked.get("/version", "read the version")).get("gitVersion", "")
            user = await _user(asked)
            self._ok(f"Kubernetes {version}" + (f", as {user}" if user else ""))
            if not await self._may_impersonate(asked, user):
                return
            await self._check_webhook(asked, user)
        async with _Asked(self._settings) as asked:
            await self._check_vmis(asked, self._settings.impersonate_user or user or "the user of the kubeconfig")

    async def _check_vmis(self, asked: _Asked, user: str) -> None:
        try:
            resources = (await asked.get(GROUP_VERSION, "discover VMIs"))["resources"]
        except NotServed:
            resources = []
        names = {each["name"] for each in resources}
        if PLURAL not in names:
            advice = "install KubeVirt, or its definition of virtualmachineinstances.kubevirt.io"
            self._findings.append(_problem(self._about, "does not know VMIs", advice))
            return
        subresource = "status" if f"{PLURAL}/status" in names else ""
        missing = []
        for verb in VERBS:
            right = {"verb": verb, "group": "kubevirt.io", "resource": PLURAL}
            if not await asked.may({**right, "subresource": subresource if verb == "patch" else ""}):
                missing.append(verb)
        if self._settings.events and not await asked.may({"verb": "create", "group": "", "resource": "events"}):
            text = f"{user} may not create events, which status.events asks for"
            self._findings.append(_problem(self._about, text, *_grant(user, "guestwire-events", "create", "events")))
        if not missing:
            self._ok(f"{user} may {', '.join(VERBS)} VMIs in every namespace")
            return
        text = f"{user} may not {', '.join(missing)} VMIs in every namespace"
        resources = f"{PLURAL}.kubevirt.io" + (f",{PLURAL}.kubevirt.io/{subresource}" if subresource else "")
        self._findings.append(_problem(self._about, text, *_grant(user, "guestwire", ",".join(VERBS), resources)))

    async def _may_impersonate(self, asked: _Asked, user: str) -> bool:
        wanted = self._settings.impersonate_user
        if not wanted:
            return True
        right = {"verb": "impersonate", "resource": "users", "name": wanted}
        if wanted.startswith(SERVICE_ACCOUNT):
            namespace, _, name = wanted.removeprefix(SERVICE_ACCOUNT).partition(":")
            right = {"verb": "impersonate", "resource": "serviceaccounts", "namespace": namespace, "name": name}
        # From Kubernetes 1.36 on there is a right to act as somebody in some requests only (constrained impersonation).
        verb = "impersonate:serviceaccount" if "namespace" in right else "impersonate:user-info"
        constrained = {**right, "verb": verb, "group": "authentication.k8s.io"}
        if await asked.may(right) or await asked.may(constrained):
            self._ok(f"may act as {wanted}")
            return True
        what = f"the verb impersonate on {right['resource']} {right['name']}"
        advice = f"grant {user or 'this user'} {what}, or clear GUESTWIRE_STATUS__IMPERSONATE_USER"
        self._findings.append(_problem(self._about, f"may not act as {wanted}", advice))
        return False

    async def _check_webhook(self, asked: _Asked, user: str) -> None:
        """Whether KubeVirt's webhook is there, and will undo what this user writes."""
        try:
            configurations = (await asked.get(WEBHOOKS, "list webhooks"))["items"]
        except (GuestwireError, Gone):  # few may list them, and the status writer need not
            return
        for webhook in (each for found in configurations for each in found.get("webhooks") or ()):
            if webhook["name"] == KUBEVIRT_MUTATOR:
                service = (webhook.get("clientConfig") or {}).get("service") or {}
                namespace = service.get("namespace") or "kubevirt"
                acting = self._settings.impersonate_user or user
                if acting not in {f"{SERVICE_ACCOUNT}{namespace}:{name}" for name in KUBEVIRT_ACCOUNTS}:
                    controller = f"{SERVICE_ACCOUNT}{namespace}:kubevirt-controller"
                    text = (
                        f"KubeVirt's webhook undoes every change of status by {acting or 'this user'}, without a word"
                    )
                    advice = (
                        f"set GUESTWIRE_STATUS__IMPERSONATE_USER={controller}, and grant the right to impersonate it"
                    )
                    self._findings.append(_problem(self._about, text, advice))

    def _ok(self, text: str) -> None:
        self._findings.append(Finding("cluster", self._about, Outcome.OK, text))


class _Asked(ApiServer):
    """The status writer's own way to the API server, for single questions."""

    async def review(self, path: str, kind: str, spec: Mapping[str, Any]) -> Any:
        """The status of a review, which the server answers and forgets."""
        version = path.removeprefix("/apis/").rpartition("/")[0]
        body = {"apiVersion": version, "kind": kind, "spec": spec}
        return (await self.post(path, f"create {kind}", body)).get("status") or {}

    async def may(self, right: Mapping[str, str]) -> bool:
        """Whether RBAC (or whatever decides) allows it."""
        answer = await self.review(REVIEWS, "SelfSubjectAccessReview", {"resourceAttributes": right})
        return bool(answer.get("allowed"))


async def _user(asked: _Asked) -> str:
    """The name by which the server knows us; empty where it is too old to tell (before 1.28)."""
    try:
        status = await asked.review(WHOAMI, "SelfSubjectReview", {})
    except NotServed:
        return ""
    return str((status.get("userInfo") or {}).get("username") or "")


def _grant(user: str, role: str, verbs: str, resources: str) -> tuple[str, ...]:
    """The commands that give a user these rights."""
    subject = f"--user={user}"
    if user.startswith(SERVICE_ACCOUNT):
        subject = f"--serviceaccount={user.removeprefix(SERVICE_ACCOUNT)}"
    return (
        f"kubectl create clusterrole {role} --verb={verbs} --resource={resources}",
        f"kubectl create clusterrolebinding {role} --clusterrole={role} {subject}",
    )


def _problem(about: str, text: str, *advice: str) -> Finding:
    return Finding("cluster", about, Outcome.PROBLEM, text, advice)
