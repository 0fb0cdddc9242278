"""Objects in an S3 bucket. Agents put and read them directly, by presigned URLs; the keys to the bucket stay here.

What a PUT is bound to is part of the signature: `Content-Length`, `x-amz-checksum-crc32c` and `If-None-Match: *`. S3
checks each: a wrong length breaks the signature, wrong content the checksum, and an object that is there is 412.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.exceptions import ConnectionError as NoConnection
from botocore.exceptions import HTTPClientError as Broken

from portico_gateway.errors import BadRequest, Unavailable
from portico_gateway.objects.object_store import GRANT_SECONDS, Presigned, StoredObject, checked_key, checked_put
from portico_gateway.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CONNECTIONS = 32


class _Target(TypedDict):
    Bucket: str
    Key: str


_ABSENT = {"404", "NoSuchKey", "NotFound"}


@dataclass(frozen=True, slots=True)
class Bucket:
    """From 's3://bucket/some/prefix'."""

    name: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> "Bucket":
        name, _, prefix = text.removeprefix("s3://").partition("/")
        if not text.startswith("s3://") or not name:
            raise BadRequest(f"store '{text}': give 's3://bucket' or 's3://bucket/prefix'")
        prefix = prefix.strip("/")
        return cls(name, prefix + "/" if prefix else "")


class S3Objects:
    """An ObjectStore in one bucket. boto3 blocks, so every call of it runs in a thread."""

    def __init__(self, client: "S3Client", bucket: Bucket) -> None:
        self._client = client
        self._bucket = bucket

    @classmethod
    def from_settings(cls, settings: Settings) -> "S3Objects":
        """Keys from the settings; without them boto3 looks where it always does (environment, instance role)."""
        return cls(make_client(settings), Bucket.parse(settings.store))

    async def presign_put(self, key: str, *, size: int, crc32c: str) -> Presigned:
        checked_put(key, size, crc32c)
        params = {"ContentLength": size, "ChecksumCRC32C": crc32c, "IfNoneMatch": "*"}
        url = await self._presign("put_object", key, params)
        headers = {"Content-Length": str(size), "x-amz-checksum-crc32c": crc32c, "If-None-Match": "*"}
        return Presigned("PUT", url, headers)

    async def presign_get(self, key: str) -> Presigned:
        return Presigned("GET", await self._presign("get_object", checked_key(key), {}))

    async def size(self, key: str) -> int | None:
        target = self._target(key)
        with _faults():
            try:
                found = await asyncio.to_thread(lambda: self._client.head_object(**target))
            except ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
        return found["ContentLength"]

    async def delete(self, key: str) -> None:
        target = self._target(key)
        with _faults():
            await asyncio.to_thread(lambda: self._client.delete_object(**target))

    async def list_objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        token: dict[str, Any] = {}
        start = len(self._bucket.prefix)
        while True:
            with _faults():
                page = await asyncio.to_thread(
                    self._client.list_objects_v2,
                    Bucket=self._bucket.name,
                    Prefix=self._bucket.prefix + prefix,
                    **token,
                )
            for found in page.get("Contents", ()):
                yield StoredObject(found["Key"][start:], found["Size"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    async def check(self) -> None:
        with _faults():
            await asyncio.to_thread(self._client.head_bucket, Bucket=self._bucket.name)

    def _target(self, key: str) -> "_Target":
        return {"Bucket": self._bucket.name, "Key": self._bucket.prefix + checked_key(key)}

    async def _presign(self, operation: str, key: str, params: dict[str, Any]) -> str:
        with _faults():
            return await asyncio.to_thread(
                self._client.generate_presigned_url,
                operation,
                Params={**self._target(key), **params},
                ExpiresIn=GRANT_SECONDS,
            )


def make_client(settings: Settings) -> "S3Client":
    config = Config(
        signature_version="s3v4",
        max_pool_connections=CONNECTIONS,
        connect_timeout=10,
        read_timeout=30,
        retries={"max_attempts": 3, "mode": "standard"},
        # the checksum of a PUT is ours, bound by the grant: boto must not add one of its own to what is signed
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if settings.s3_endpoint else None,
    )
    client: S3Client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint or None,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key.reveal() or None,
        aws_secret_access_key=settings.s3_secret_key.reveal() or None,
        config=config,
    )
    return client


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """The one door for boto's exceptions."""
    try:
        yield
    except ClientError as error:
        code = _code(error)
        hint = ": check the key, the bucket's policy and its region" if code in ("403", "AccessDenied") else ""
        raise Unavailable(f"the checkpoint store (S3) answered {code}{hint}") from error
    except (NoConnection, Broken) as error:
        where = urlsplit(str(error.kwargs.get("endpoint_url", ""))).netloc  # the rest of the URL is for machines
        words = f"{where or 'it'} does not answer"
        raise Unavailable(f"the checkpoint store (S3) cannot be used: {words}") from error
    except BotoCoreError as error:
        raise Unavailable(f"the checkpoint store (S3) cannot be used: {error}") from error
