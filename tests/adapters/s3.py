"""A server of object storage that is not ours, moto's, which runs beside the tests."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import boto3
from botocore.config import Config

from ..programs import Program, running

__all__ = ["REGION", "S3", "s3_server"]

REGION: Final = "eu-central-1"

_START_TIMEOUT: Final = 90.0
_KEYS: Final = {"aws_access_key_id": "somebody", "aws_secret_access_key": "something"}


@attrs.frozen
class S3:
    """A running server. It takes any credentials.

    Attributes:
        endpoint: Its URL.
        client: Amazon's own client.
    """

    endpoint: str
    client: Any
    _program: Program

    def url(self, bucket: str, prefix: str = "") -> str:
        """Return what a store is opened by."""
        return f"s3://{bucket}/{prefix}?endpoint={self.endpoint}&region={REGION}"

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        self.client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})

    def names(self, bucket: str) -> list[str]:
        """Return the names of all objects in a bucket."""
        return [found["Key"] for found in self.client.list_objects_v2(Bucket=bucket).get("Contents", [])]

    def incomplete(self, bucket: str) -> list[str]:
        """Return the names of those of which only parts have been sent."""
        return [found["Key"] for found in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]

    def stop(self) -> None:
        """End the server."""
        self._program.stop()


@contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """Run a server, on a free port of loopback.

    Args:
        folder: Where it may write what it has to say.
    """
    errors = folder / "moto.txt"
    with running(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0", errors=errors) as program:
        endpoint = _wait_for(program)
        config = Config(retries={"total_max_attempts": 1})
        client = boto3.client("s3", endpoint_url=endpoint, region_name=REGION, config=config, **_KEYS)
        try:
            yield S3(endpoint, client, program)
        finally:
            client.close()


def _wait_for(program: Program) -> str:
    give_up_at = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < give_up_at and program.process.poll() is None:
        if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", program.complaints):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"moto does not start: {program.complaints}")
