"""`python -m tests.replicate.stand_in`: the stand-in, to try a client against by hand."""

import argparse
import contextlib
import logging
import signal
from pathlib import Path

from tests.replicate.stand_in.server import OWNER, TRAINER, StandIn

ROOT = Path(__file__).parent.parent.parent.parent

logger = logging.getLogger(__name__)


def main() -> None:
    """Answer until Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="on 127.0.0.1 (default: 8765)")
    with StandIn(ROOT, port=parser.parse_args().port) as stand_in:
        logger.info("export REPLICATE_BASE_URL=%s", stand_in.base_url)
        logger.info("export REPLICATE_API_TOKEN=%s", stand_in.token)
        logger.info("# the trainer: %s/%s:%s", OWNER, TRAINER, stand_in.trainer.version_id)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
