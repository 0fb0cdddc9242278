"""Which store the settings name."""

from portico_gateway.errors import BadRequest
from portico_gateway.objects.local_folder import LocalFolder
from portico_gateway.objects.object_store import ObjectStore
from portico_gateway.objects.s3 import S3Objects
from portico_gateway.settings import Settings
from portico_shared.clock import Clock


def open_store(settings: Settings, key: bytes, clock: Clock) -> ObjectStore:
    """A folder in the data folder, or 's3://bucket/prefix'. `key` signs the folder's grants: 32 secret bytes or more.

    A LocalFolder has `routes()` that must be served by the gateway. Raises BadRequest for any other name.
    """
    if not settings.store:
        return LocalFolder(settings.data / "objects", key, clock)
    if settings.store.startswith("s3://"):
        return S3Objects.from_settings(settings)
    raise BadRequest(f"store '{settings.store}': leave it empty for a folder, or give 's3://bucket/prefix'")
