"""One file over http(s): resumed, checked against what the server says of it, explained.

No error quotes the library's own text, nor keeps it as its cause: it shows whole addresses, with
the signatures and tokens in them.
"""

import base64
import binascii
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from huggingface_hub import constants, get_token
from requests.exceptions import InvalidURL, ProxyError, SSLError, TooManyRedirects
from urllib3.exceptions import MaxRetryError

from sdxl.downloads.addresses import CIVITAI_HOSTS, shown
from sdxl.downloads.cache import as_size

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = (5, 30)  # to connect; between two pieces of the answer
_CHUNK_BYTES = 1 << 16
_MAX_ATTEMPTS = 5  # each of which must have brought something
_STATE = ".state.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GOOGLE_MD5 = re.compile(r"md5=([\w+/]{22}==)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Promise:
    """What a server says of a file: how to know it again, and how to know that it is whole.

    Attributes:
        etag: Its name for this state of the file, or None. A weak one (W/) promises too little.
        modified: When it was changed, in HTTP's words.
        size: In bytes.
        sha256: Hexadecimal; the hub has it.
        md5: Hexadecimal; Google's storage, and so Replicate's, has it.
    """

    etag: str | None = None
    modified: str | None = None
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None


class _Broken(Exception):  # noqa: N818 - it is no fault of anybody's, and another attempt follows
    """What came cannot be used, or not been gone on with; the text says why."""


def download(address: str, target: Path, make_room: Callable[[int], None]) -> str | None:
    """Download a file to `target`, going on where an earlier attempt stopped.

    Goes on only if the server says that the file is still the same; else begins anew.

    Args:
        address: http(s).
        target: In a folder of its own, where the state of a half download is noted too.
        make_room: Called with the bytes that are about to arrive, if they are known.

    Returns:
        The server's name for this state of the file (its ETag), or None.

    Raises:
        ValueError: It cannot be had; the text says why and what to do.
    """
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        before = _size(target)
        try:
            return _attempt(address, target, make_room)
        except (_Broken, requests.RequestException) as error:
            if attempt == _MAX_ATTEMPTS or not _is_worth_another(error, before, _size(target)):
                raise ValueError(
                    f"could not download {shown(address)}: {explain(error, address)}"
                ) from None
            logger.info("The download of %s broke off: trying again.", shown(address))
    raise AssertionError("the last attempt returns or raises")


def _is_worth_another(error: Exception, before: int, after: int) -> bool:
    """Whether an attempt brought something, or its failure made a fresh one possible."""
    if isinstance(error, _Broken):
        return before > 0
    return after > before and not isinstance(error, requests.HTTPError)


def _attempt(address: str, target: Path, make_room: Callable[[int], None]) -> str | None:
    before = _read_state(target)
    if before and before.size and _size(target) == before.size:
        _check(target, before)  # the process ended after the last byte
        return before.etag
    start = _size(target) if before and (before.etag or before.modified) else 0
    with _get(address, start, before) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable and start:
            target.unlink()
            raise _Broken("the file is shorter now than what was here of it")
        answer.raise_for_status()
        _refuse_page(answer)
        promise = _promise_of(answer)
        if answer.status_code == requests.codes.partial_content:
            if before is None or not _is_same_file(before, promise, answer, start):
                target.unlink(missing_ok=True)
                raise _Broken("the file was changed while it was being downloaded")
            promise = before
        else:
            start = 0
            _write_state(target, promise)
        size = f" ({as_size(promise.size)})" if promise.size else ""
        logger.info("Downloading %s%s.", shown(address), size)
        make_room((promise.size or 0) - start)
        with target.open("ab" if start else "wb") as file:
            for chunk in answer.iter_content(_CHUNK_BYTES):
                file.write(chunk)
    _check(target, promise)
    return promise.etag


def _get(address: str, start: int, before: _Promise | None) -> requests.Response:
    # no compression, which would hide the size
    headers = {"Accept-Encoding": "identity", **_authorization(address)}
    if start and before:
        validator = before.etag or before.modified or ""
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    return requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS)


def _authorization(address: str) -> dict[str, str]:
    """Return the header with the user's token, for the hub's or Civitai's own host alone.

    `requests` takes it away again on a redirect to another host.
    """
    url, hub = urlsplit(address), urlsplit(constants.ENDPOINT)
    token = None
    if (url.scheme, url.netloc) == (hub.scheme, hub.netloc):
        token = get_token()
    elif url.scheme == "https" and url.hostname in CIVITAI_HOSTS:
        token = os.environ.get("CIVITAI_API_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _refuse_page(answer: requests.Response) -> None:
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise _Broken(
            "it is a web page, not a file. Give the address of the file itself"
            + _token_hint(answer.url)
        )


def _promise_of(answer: requests.Response) -> _Promise:
    """Read the headers; the hub's checksum comes with its redirect to where the file lies."""
    headers = answer.headers
    linked = [_linked_etag(step) for step in (*answer.history, answer)]
    etag = headers.get("ETag")
    md5 = _GOOGLE_MD5.search(headers.get("x-goog-hash", ""))
    encoded = md5[1] if md5 else None
    size = headers.get("Content-Length")
    if answer.status_code == requests.codes.partial_content:
        size = headers.get("Content-Range", "").rpartition("/")[2]
    elif "Content-Encoding" not in headers:
        encoded = encoded or headers.get("Content-MD5")
    return _Promise(
        etag=etag if etag and not etag.startswith("W/") else None,
        modified=headers.get("Last-Modified"),
        size=int(size) if size and size.isdecimal() and "Content-Encoding" not in headers else None,
        sha256=next((etag for etag in linked if _SHA256.fullmatch(etag)), None),
        md5=_from_base64(encoded) if encoded else None,
    )


def _linked_etag(answer: requests.Response) -> str:
    return answer.headers.get("X-Linked-Etag", "").strip('"')


def _from_base64(text: str) -> str | None:
    with suppress(binascii.Error):
        return base64.b64decode(text, validate=True).hex()
    return None


def _is_same_file(before: _Promise, now: _Promise, answer: requests.Response, start: int) -> bool:
    """Whether a partial answer goes on with what is here; a careless server ignores If-Range."""
    goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    pairs = [(before.etag, now.etag), (before.size, now.size), (before.sha256, now.sha256)]
    return goes_on and all(old == new for old, new in pairs if old and new)


def _check(target: Path, promise: _Promise) -> None:
    """Compare what arrived with what was promised; a download that is damaged is dropped."""
    size = _size(target)
    if promise.size is not None and size < promise.size:
        raise requests.ConnectionError  # the half is kept
    for name, expected in (("sha256", promise.sha256), ("md5", promise.md5)):
        if expected:
            with target.open("rb") as file:
                got = hashlib.file_digest(
                    file, lambda name=name: hashlib.new(name, usedforsecurity=False)
                ).hexdigest()
            if got != expected:
                target.unlink()
                raise _Broken(
                    f"what arrived is damaged ({name} {got}, by the server's word {expected}). "
                    "Try again, or tell who runs the server"
                )
    if promise.size is not None and size > promise.size:
        target.unlink()
        raise _Broken(f"{size} bytes arrived where {promise.size} were promised. Try again")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_state(target: Path) -> _Promise | None:
    """Return what the server said when the half that is here was begun."""
    try:
        return _Promise(**json.loads(target.with_name(_STATE).read_text("utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _write_state(target: Path, promise: _Promise) -> None:
    target.unlink(missing_ok=True)  # first: an old half must never meet a new promise
    target.with_name(_STATE).write_text(json.dumps(asdict(promise)), "utf-8")


def etag_now(address: str) -> str | None:
    """Return the ETag that a file has now.

    Raises:
        requests.RequestException: The server cannot be asked.
    """
    headers = {"Accept-Encoding": "identity", **_authorization(address)}
    with requests.head(
        address, headers=headers, allow_redirects=True, timeout=_TIMEOUT_SECONDS
    ) as answer:
        answer.raise_for_status()
        return _promise_of(answer).etag


def explain(error: Exception, address: str) -> str:
    """Return why a download failed and what to do, without the address's secrets."""
    host = urlsplit(address).hostname
    if isinstance(error, _Broken):
        return str(error)
    if isinstance(error, requests.HTTPError):
        return _explain_status(error.response)
    reasons = {
        SSLError: f"{host} has no valid certificate",
        ProxyError: "the proxy cannot be reached (HTTPS_PROXY)",
        InvalidURL: "it is no valid address",
        TooManyRedirects: "it leads in circles",
        requests.Timeout: f"{host} does not answer. Check the address and the network, or try "
        "again later",
    }
    reason = next((text for kind, text in reasons.items() if isinstance(error, kind)), None)
    if reason:
        return reason
    if error.args and isinstance(error.args[0], MaxRetryError):
        return f"{host} cannot be reached. Check the address and the connection to the internet"
    return "the connection broke off. Try again: the download goes on where it stopped"


def _explain_status(answer: requests.Response) -> str:
    status, hint = answer.status_code, _token_hint(answer.url)
    meanings = {
        401: "it is private or needs a login, or the token has expired",
        403: "access is refused: it is private, its license is not accepted yet, or a signed "
        "address has expired",
        404: "there is no such file (or it is private): check the address",
        410: "the file was removed",
        429: "too many requests: try again later",
    }
    meaning = meanings.get(status)
    if meaning is None:
        meaning = "its server has a fault: try again later" if status >= 500 else answer.reason
    return f"{meaning} (HTTP {status})" + (hint if status in (401, 403, 404) else "")


def _token_hint(address: str) -> str:
    """Say which token the host of an address takes, if it is one that is known."""
    host = urlsplit(address).hostname
    if host == urlsplit(constants.ENDPOINT).hostname:
        return ". For what is private, set HF_TOKEN"
    if host in CIVITAI_HOSTS:
        return ". Most files of Civitai need a login: set CIVITAI_API_TOKEN"
    return ""
