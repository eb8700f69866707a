"""One training or prediction: the request, its result, its cancellation."""

import contextlib
import re
import time
import uuid
from http import HTTPStatus
from typing import Any

import requests

from script.local_cog.console import Console
from script.local_cog.errors import RunError
from script.local_cog.schema import COMPONENTS
from script.local_cog.server import CogServer

_CANCEL_SECONDS = 30.0
_FREE_SECONDS = 10.0
_REQUEST_SECONDS = 10.0
_ERROR_PREFIX = re.compile(r"^(?:(?:Prediction|Training) failed: )*(?:ValueError: )?")


def run(server: CogServer, request: dict[str, Any], console: Console) -> Any:
    """Return the output of the door for an input, its files as data URIs.

    Ctrl-C cancels the run, so that the door can clean up, before it goes on as KeyboardInterrupt.

    Raises:
        RunError: The server refuses the input, or the door has failed.
    """
    path = f"{COMPONENTS[server.mode][2]}/{uuid.uuid4().hex}"
    try:
        response = _send(server, path, request)
    except KeyboardInterrupt:
        _cancel(server, path, console)
        raise
    if response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        raise RunError(_refusal(response))
    if response.status_code != HTTPStatus.OK:
        raise RunError(f"the server answers {response.status_code}: {response.text[:500]}")
    result = response.json()
    if result["status"] != "succeeded":
        reason = result.get("error") or f"the run is {result['status']}"
        if reason == "Worker crashed":
            reason = "the process of the model has died, perhaps for lack of memory"
        raise RunError(_ERROR_PREFIX.sub("", reason))
    return result["output"]


def _send(server: CogServer, path: str, request: dict[str, Any]) -> requests.Response:
    # the server answers before its worker is free again: the next request may come too early
    deadline = time.monotonic() + _FREE_SECONDS
    while True:
        response = server.request("PUT", path, json={"input": request})
        if response.status_code != HTTPStatus.CONFLICT or time.monotonic() > deadline:
            return response
        time.sleep(0.1)


def _refusal(response: requests.Response) -> str:
    details = response.json()["detail"]
    return "\n".join(f"input {detail['loc'][-1]}: {detail['msg']}" for detail in details)


def _cancel(server: CogServer, path: str, console: Console) -> None:
    console.say("canceling; Ctrl-C again stops at once")
    deadline = time.monotonic() + _CANCEL_SECONDS
    with contextlib.suppress(RunError, requests.Timeout):
        server.request("POST", f"{path}/cancel", timeout=_REQUEST_SECONDS)
        while server.health()["status"] == "BUSY" and time.monotonic() < deadline:
            time.sleep(0.1)
