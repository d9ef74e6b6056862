"""Informers of stock libraries on guests: client-go's, with which controllers are made, and the Python client's."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import parse_qs

from kubernetes.client import ApiClient, Configuration, CustomObjectsApi
from kubernetes.informer import SharedInformer

from tests.integration.api.churn import PATIENCE, Store


class GoInformer:
    """client-go's, in its process, with arguments on how to reach the API; `features` are its feature gates."""

    def __init__(self, program: Path, log: Path, *args: str, **features: bool) -> None:
        gates = {f"KUBE_FEATURE_{name}": str(value).lower() for name, value in features.items()}
        self._command = [str(program), *args]
        self._env = os.environ | gates
        self._log = log
        self._answers: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            self._reading.join()
            assert self._process.stdout
            self._process.stdout.close()

    def told(self) -> dict[str, Any]:
        """What it says of itself."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._answers.get(timeout=PATIENCE))
        return said

    def store(self) -> Store:
        """What it holds."""
        return dict(self.told()["store"])

    def queries(self) -> list[dict[str, str]]:
        """What it has asked for and was answered 200, oldest first."""
        answered = [each["query"] for each in self.told()["requests"] if each["status"] == 200]
        return [{name: values[0] for name, values in parse_qs(each).items()} for each in answered]

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._answers.put(line)


class PythonInformer:
    """The Python client's. It takes lists as models, which there are none of here: a list is made to look like one."""

    def __init__(self, url: str) -> None:
        self._api: Any = CustomObjectsApi(ApiClient(Configuration(host=url)))
        informer: Any = SharedInformer
        self._informer = informer(self._list)
        self.events: list[str] = []
        for event in ("ADDED", "MODIFIED", "DELETED", "ERROR"):
            self._informer.add_event_handler(event, partial(self._note, event))

    def __enter__(self) -> Self:
        self._informer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._informer.stop()
        self._api.api_client.close()

    def store(self) -> Store:
        """What it holds."""
        return {key: self._informer.cache.get_by_key(key) for key in self._informer.cache.list_keys()}

    def _note(self, event: str, _told: Any) -> None:
        self.events.append(event)

    def _list(self, **options: Any) -> Any:
        """
        Guests.

        :return: object
        """
        answer: Any = self._api.list_cluster_custom_object("guestwire.io", "v1", "guests", **options)
        if options.get("watch"):
            return answer
        meta = SimpleNamespace(resource_version=answer["metadata"]["resourceVersion"])
        return SimpleNamespace(items=answer["items"], metadata=meta)
