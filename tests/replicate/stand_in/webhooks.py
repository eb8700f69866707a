"""Webhooks to the clients, signed as Replicate signs them."""

import base64
import hashlib
import hmac
import json
import logging
import queue
import secrets
import threading
import time
import uuid

import requests

from tests.replicate.stand_in.records import Json

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_TIMEOUT_SECONDS = 5.0


class WebhookSender:
    """Sends one webhook after the other, in a thread of its own.

    Attributes:
        key: The signing secret, as `GET /v1/webhooks/default/secret` shows it.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(24)
        self.key = f"whsec_{base64.b64encode(self._secret).decode()}"
        self._queue: queue.Queue[tuple[str, Json] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def send(self, address: str, body: Json) -> None:
        """Send `body` to `address` when those before it have been sent."""
        self._queue.put((address, body))

    def close(self) -> None:
        """Send what waits, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            address, body = item
            content = json.dumps(body).encode()
            headers = self._signature(content) | {"Content-Type": "application/json"}
            if not any(_is_taken(address, content, headers) for _ in range(_ATTEMPTS)):
                logger.warning("The webhook %s was not taken %d times.", address, _ATTEMPTS)

    def _signature(self, content: bytes) -> dict[str, str]:
        message_id, moment = f"msg_{uuid.uuid4().hex}", str(int(time.time()))
        signed = f"{message_id}.{moment}.".encode() + content
        digest = hmac.new(self._secret, signed, hashlib.sha256).digest()
        return {
            "Webhook-Id": message_id,
            "Webhook-Timestamp": moment,
            "Webhook-Signature": f"v1,{base64.b64encode(digest).decode()}",
        }


def _is_taken(address: str, content: bytes, headers: dict[str, str]) -> bool:
    with requests.Session() as session:
        session.trust_env = False  # past any proxy
        try:
            response = session.post(
                address, data=content, headers=headers, timeout=_TIMEOUT_SECONDS
            )
        except requests.RequestException:
            return False
        return response.ok
