"""What the stand-in remembers, and what the API shows of it.

The fields are those of Replicate's HTTP reference and of the answers that its Python client's own
tests have recorded.
"""

import base64
import hashlib
import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as package_version
from typing import Any, Literal

from script.local_cog.schema import Mode

Json = dict[str, Any]
Event = Literal["start", "output", "logs", "completed"]
Status = Literal["starting", "processing", "succeeded", "failed", "canceled"]

TERMINAL: tuple[Status, ...] = ("succeeded", "failed", "canceled")
DEFAULT_EVENTS: tuple[Event, ...] = ("output", "completed")
PATHS: dict[Mode, str] = {"train": "trainings", "predict": "predictions"}

_FILE_LIFE = timedelta(days=1)


def timestamp(after: timedelta = timedelta()) -> str:
    """Return the present time, or one after it, as the API writes it."""
    moment = datetime.now(UTC) + after
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_between(start: str, end: str) -> float:
    """Return the time between two timestamps of the API."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file that a client has uploaded."""

    file_id: str = field(
        default_factory=lambda: base64.b64encode(str(uuid.uuid4()).encode()).decode()
    )
    name: str
    content_type: str
    content: bytes
    metadata: Json
    created_at: str = field(default_factory=timestamp)
    expires_at: str = field(default_factory=lambda: timestamp(_FILE_LIFE))

    def to_json(self, base_url: str) -> Json:
        """Return the file object."""
        md5 = hashlib.md5(self.content, usedforsecurity=False).hexdigest()
        return {
            "id": self.file_id,
            "name": self.name,
            "content_type": self.content_type,
            "size": len(self.content),
            "etag": md5,
            "checksums": {"sha256": hashlib.sha256(self.content).hexdigest(), "md5": md5},
            "metadata": self.metadata,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "urls": {"get": f"{base_url}/v1/files/{self.file_id}"},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A version of a model.

    Attributes:
        version_id: 64 hexadecimal digits.
        weights: The address of trained weights; None is the package as it was pushed.
        openapi_schema: Of both doors, as `cog build` writes it.
    """

    version_id: str
    weights: str | None
    openapi_schema: Json
    created_at: str = field(default_factory=timestamp)

    def to_json(self) -> Json:
        """Return the version object."""
        return {
            "id": self.version_id,
            "created_at": self.created_at,
            "cog_version": package_version("cog"),
            "openapi_schema": self.openapi_schema,
        }


@dataclass(kw_only=True, slots=True)
class Model:
    """A model; its newest version comes last."""

    owner: str
    name: str
    visibility: Literal["public", "private"]
    description: str | None = None
    versions: list[Version] = field(default_factory=list)
    run_count: int = 0

    def to_json(self, base_url: str) -> Json:
        """Return the model object."""
        return {
            "url": f"{base_url}/{self.owner}/{self.name}",
            "owner": self.owner,
            "name": self.name,
            "description": self.description,
            "visibility": self.visibility,
            "is_official": False,
            "github_url": None,
            "paper_url": None,
            "license_url": None,
            "run_count": self.run_count,
            "cover_image_url": None,
            "default_example": None,
            "latest_version": self.versions[-1].to_json() if self.versions else None,
        }


@dataclass(kw_only=True, slots=True)
class Run:
    """A training or a prediction.

    Attributes:
        mode: Which of the two.
        model: `owner/name` of what runs.
        input: As the client sent it.
        destination: Of a training: the model that gets the new version.
        events: Which webhooks the client wants.
        is_over: Set when the status is terminal.
    """

    mode: Mode
    model: str
    version: Version
    input: Json
    destination: Model | None
    webhook: str | None
    events: tuple[Event, ...]
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:26])
    status: Status = "starting"
    output: Any = None
    logs: str = ""
    error: str | None = None
    predict_time: float | None = None
    created_at: str = field(default_factory=timestamp)
    started_at: str | None = None
    completed_at: str | None = None
    is_over: threading.Event = field(default_factory=threading.Event)

    def to_json(self, base_url: str) -> Json:
        """Return the training or prediction object, which is also the body of its webhooks."""
        address = f"{base_url}/v1/{PATHS[self.mode]}/{self.run_id}"
        answer: Json = {
            "id": self.run_id,
            "model": self.model,
            "version": self.version.version_id,
            "input": self.input,
            "logs": self.logs,
            "output": self.output,
            "data_removed": False,
            "error": self.error,
            "source": "api",
            "status": self.status,
            "created_at": self.created_at,
            "urls": {"get": address, "cancel": f"{address}/cancel"},
        }
        if self.started_at:
            answer["started_at"] = self.started_at
        if self.completed_at:
            answer["completed_at"] = self.completed_at
            total_time = seconds_between(self.created_at, self.completed_at)
            answer["metrics"] = {"predict_time": self.predict_time, "total_time": total_time}
        if self.webhook:
            answer["webhook"] = self.webhook
            answer["webhook_events_filter"] = list(self.events)
        return answer
