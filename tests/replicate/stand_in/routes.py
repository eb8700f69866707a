"""The requests that the stand-in answers."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from script.local_cog.schema import Mode
from tests.replicate.stand_in.errors import NOT_FOUND, ApiError
from tests.replicate.stand_in.multipart import parse_multipart
from tests.replicate.stand_in.platform import Platform
from tests.replicate.stand_in.records import DEFAULT_EVENTS, Json, Model, Run, StoredFile, Version
from tests.replicate.stand_in.workers import Worker

MODES: dict[str, Mode] = {"trainings": "train", "predictions": "predict"}
LONGEST_WAIT_SECONDS = 60

_PREFER = re.compile(r"wait(?:=(\d+))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request."""

    method: str
    target: str
    headers: Message
    body: bytes

    def json(self) -> Json:
        """Return the body.

        Raises:
            ApiError: It is no JSON object.
        """
        try:
            content = json.loads(self.body)
        except ValueError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"The body is no JSON: {error}") from error
        if not isinstance(content, dict):
            raise ApiError(HTTPStatus.BAD_REQUEST, "The body is no JSON object")
        return content


Answer = tuple[HTTPStatus, Json | bytes]


class Routes:
    """Answers requests out of the platform's memory, and hands runs to the workers."""

    def __init__(self, platform: Platform, workers: Mapping[Mode, Worker], token: str) -> None:
        """Answer whoever has `token`."""
        self._platform = platform
        self._workers = workers
        self._token = token

    def answer(self, request: Request) -> Answer:
        """Return the status and body of the answer.

        Raises:
            ApiError: The token is wrong, or there is nothing at this address, or what the route
                itself raises.
        """
        path = urlsplit(request.target).path
        for method, pattern, needs_token, handler in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == request.method:
                if needs_token and request.headers.get("Authorization") != f"Bearer {self._token}":
                    raise ApiError(
                        HTTPStatus.UNAUTHORIZED, "You did not pass a valid authentication token"
                    )
                return handler(self, request, **match.groupdict())
        raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)

    def create_file(self, request: Request) -> Answer:
        """`POST /v1/files`."""
        try:
            form = parse_multipart(request.headers.get("Content-Type", ""), request.body)
        except ValueError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, str(error)) from error
        if "content" not in form:
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Missing content")
        part = form["content"]
        file = StoredFile(
            name=part.filename or "content",
            content_type=part.content_type,
            content=part.content,
            metadata=json.loads(form["metadata"].content) if "metadata" in form else {},
        )
        return HTTPStatus.CREATED, self._platform.files.upload(file)

    def get_file(self, request: Request, file_id: str) -> Answer:  # noqa: ARG002
        """`GET /v1/files/{id}`."""
        return HTTPStatus.OK, self._platform.files.show(file_id)

    def download_file(self, request: Request, file_id: str) -> Answer:
        """`GET /v1/files/{id}/download`, signed."""
        query = parse_qs(urlsplit(request.target).query)
        signature = query.get("signature", [""])[0]
        return HTTPStatus.OK, self._platform.files.download(file_id, signature)

    def download_result(self, request: Request) -> Answer:
        """`GET /delivery/...`, where a training's files are."""
        return HTTPStatus.OK, self._platform.files.delivered(request.target)

    def take_report(self, request: Request, secret: str, run_id: str) -> Answer:
        """`POST /cog/...`, a webhook of Cog's server."""
        self._platform.take_report(secret, run_id, request.json())
        return HTTPStatus.OK, {}

    def webhook_secret(self, request: Request) -> Answer:  # noqa: ARG002
        """`GET /v1/webhooks/default/secret`."""
        return HTTPStatus.OK, {"key": self._platform.webhooks.key}

    def create_model(self, request: Request) -> Answer:
        """`POST /v1/models`."""
        body = request.json()
        missing = [name for name in ("owner", "name", "visibility", "hardware") if name not in body]
        if missing:
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{', '.join(missing)} is required")
        model = Model(
            owner=body["owner"],
            name=body["name"],
            visibility=body["visibility"],
            description=body.get("description"),
        )
        return HTTPStatus.CREATED, self._platform.create_model(model)

    def get_model(self, request: Request, model: str) -> Answer:  # noqa: ARG002
        """`GET /v1/models/{owner}/{name}`."""
        return HTTPStatus.OK, self._platform.show_model(self._platform.model(model))

    def list_versions(self, request: Request, model: str) -> Answer:  # noqa: ARG002
        """`GET /v1/models/{owner}/{name}/versions`, the newest first."""
        versions = reversed(self._platform.model(model).versions)
        return HTTPStatus.OK, _page([version.to_json() for version in versions])

    def get_version(self, request: Request, model: str, version_id: str) -> Answer:  # noqa: ARG002
        """`GET /v1/models/{owner}/{name}/versions/{id}`."""
        return HTTPStatus.OK, self._version(model, version_id).to_json()

    def create_training(self, request: Request, model: str, version_id: str) -> Answer:
        """`POST /v1/models/{owner}/{name}/versions/{id}/trainings`."""
        body = request.json()
        version = self._version(model, version_id)
        try:
            destination = self._platform.model(str(body.get("destination")))
        except ApiError as error:
            raise ApiError(
                HTTPStatus.NOT_FOUND, "The specified training destination does not exist"
            ) from error
        return HTTPStatus.CREATED, self._start("train", model, version, destination, body)[1]

    def create_prediction(self, request: Request) -> Answer:
        """`POST /v1/predictions`; `Prefer: wait` holds the answer back until the run is over."""
        body = request.json()
        version_id = str(body.get("version")).rpartition(":")[2]
        model, version = self._platform.find_version(version_id)
        name = f"{model.owner}/{model.name}"
        run, answer = self._start("predict", name, version, None, body)
        prefer = _PREFER.fullmatch(request.headers.get("Prefer", ""))
        if prefer is None:
            return HTTPStatus.CREATED, answer
        if run.is_over.wait(float(prefer[1] or LONGEST_WAIT_SECONDS)):
            return HTTPStatus.CREATED, self._platform.show_run(run)
        # what the clients expect of a wait that was too short, whatever the run has come to
        return HTTPStatus.ACCEPTED, answer

    def list_runs(self, request: Request, kind: str) -> Answer:  # noqa: ARG002
        """`GET /v1/trainings` and `GET /v1/predictions`."""
        runs = self._platform.runs(MODES[kind])
        return HTTPStatus.OK, _page([self._platform.show_run(run) for run in runs])

    def get_run(self, request: Request, kind: str, run_id: str) -> Answer:  # noqa: ARG002
        """`GET /v1/trainings/{id}` and `GET /v1/predictions/{id}`."""
        return HTTPStatus.OK, self._platform.show_run(self._run(kind, run_id))

    def cancel_run(self, request: Request, kind: str, run_id: str) -> Answer:  # noqa: ARG002
        """`POST /v1/trainings/{id}/cancel` and `POST /v1/predictions/{id}/cancel`."""
        run = self._run(kind, run_id)
        self._workers[run.mode].cancel(run)
        return HTTPStatus.OK, self._platform.show_run(run)

    def _version(self, model: str, version_id: str) -> Version:
        for version in self._platform.model(model).versions:
            if version.version_id == version_id:
                return version
        raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)

    def _run(self, kind: str, run_id: str) -> Run:
        run = self._platform.run(run_id)
        if run.mode != MODES[kind]:
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
        return run

    def _start(
        self, mode: Mode, model: str, version: Version, destination: Model | None, body: Json
    ) -> tuple[Run, Json]:
        run = Run(
            mode=mode,
            model=model,
            version=version,
            input=body.get("input", {}),
            destination=destination,
            webhook=body.get("webhook"),
            events=tuple(body.get("webhook_events_filter", DEFAULT_EVENTS)),
        )
        answer = self._platform.add_run(run)
        self._workers[mode].put(run)
        return run, answer


def _page(results: list[Any]) -> Json:
    return {"previous": None, "next": None, "results": results}


_ID = r"[^/]+"
_MODEL = rf"/v1/models/(?P<model>{_ID}/{_ID})"
_VERSION = rf"{_MODEL}/versions/(?P<version_id>{_ID})"
_KIND = r"/v1/(?P<kind>trainings|predictions)"
_ROUTES: list[tuple[str, str, bool, Callable[..., Answer]]] = [
    ("POST", r"/v1/files", True, Routes.create_file),
    ("GET", rf"/v1/files/(?P<file_id>{_ID})", True, Routes.get_file),
    ("GET", rf"/v1/files/(?P<file_id>{_ID})/download", False, Routes.download_file),
    ("GET", r"/delivery/.+", False, Routes.download_result),
    ("POST", rf"/cog/(?P<secret>{_ID})/(?P<run_id>{_ID})", False, Routes.take_report),
    ("GET", r"/v1/webhooks/default/secret", True, Routes.webhook_secret),
    ("POST", r"/v1/models", True, Routes.create_model),
    ("GET", _MODEL, True, Routes.get_model),
    ("GET", rf"{_MODEL}/versions", True, Routes.list_versions),
    ("GET", _VERSION, True, Routes.get_version),
    ("POST", rf"{_VERSION}/trainings", True, Routes.create_training),
    ("POST", r"/v1/predictions", True, Routes.create_prediction),
    ("GET", _KIND, True, Routes.list_runs),
    ("GET", rf"{_KIND}/(?P<run_id>{_ID})", True, Routes.get_run),
    ("POST", rf"{_KIND}/(?P<run_id>{_ID})/cancel", True, Routes.cancel_run),
]
