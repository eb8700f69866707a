"""Files on their way in, `/v1/files`, and out, `/delivery`."""

import base64
import hmac
import mimetypes
import secrets
from hashlib import sha256
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from tests.replicate.stand_in.errors import NOT_FOUND, ApiError
from tests.replicate.stand_in.records import Json, StoredFile


class FileStore:
    """Holds uploaded files and the files that runs have made."""

    def __init__(self, base_url: str) -> None:
        """Begin empty; `base_url` is the address of the API, without `/v1`."""
        self._base_url = base_url
        self._key = secrets.token_bytes(16)  # so that nobody guesses an address
        self._uploaded: dict[str, StoredFile] = {}
        self._delivered: dict[str, bytes] = {}

    def upload(self, file: StoredFile) -> Json:
        """Keep a file of a client and show it."""
        self._uploaded[file.file_id] = file
        return file.to_json(self._base_url)

    def show(self, file_id: str) -> Json:
        """Show an uploaded file.

        Raises:
            ApiError: There is none.
        """
        return self._file(file_id).to_json(self._base_url)

    def download(self, file_id: str, signature: str) -> bytes:
        """Return an uploaded file to whoever has its signed address.

        Raises:
            ApiError: There is no such file, or the signature is another file's.
        """
        if not hmac.compare_digest(signature, self._signature(file_id.encode())):
            raise ApiError(HTTPStatus.FORBIDDEN, "The signature does not match")
        return self._file(file_id).content

    def signed(self, value: Any) -> Any:
        """Return an input as the model gets it: our files under addresses that need no token.

        Raises:
            ApiError: It names a file of ours that there is not.
        """
        prefix = f"{self._base_url}/v1/files/"
        if not isinstance(value, str) or not value.startswith(prefix):
            return value
        file = self._file(value.removeprefix(prefix))
        query = {"expiry": file.expires_at, "signature": self._signature(file.file_id.encode())}
        return f"{value}/download?{urlencode(query)}"

    def deliver(self, name: str, uri: str) -> str:
        """Return an address that serves what a data URI of Cog's holds; it is its content's own."""
        head, _, data = uri.partition(",")
        mime_type = head.removeprefix("data:").removesuffix(";base64")
        suffix = mimetypes.guess_extension(mime_type) or ""
        content = base64.b64decode(data)
        path = f"/delivery/{self._signature(content)}/{name}{suffix}"
        self._delivered[path] = content
        return self._base_url + path

    def delivered(self, path: str) -> bytes:
        """Return what `deliver` made an address for.

        Raises:
            ApiError: There is no such address.
        """
        if path not in self._delivered:
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
        return self._delivered[path]

    def _file(self, file_id: str) -> StoredFile:
        if file_id not in self._uploaded:
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
        return self._uploaded[file_id]

    def _signature(self, content: bytes) -> str:
        return hmac.new(self._key, content, sha256).hexdigest()
