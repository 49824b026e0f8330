"""Files in a bucket of S3 or of a compatible server, over pyarrow's file systems."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from lth_core.errors import StoreError
from lth_core.redaction import without_login
from lth_core.store.files import StoredFile, inside

ATTEMPTS, TIMEOUT = 3, 3.0
"""Attempts at a request, and seconds that each may wait for a connection or an answer."""

GONE = ("AWS Error NO_SUCH_KEY", "AWS Error RESOURCE_NOT_FOUND")
"""Parts of the messages of errors that mean that an object does not exist."""

ENVIRONMENT = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
"""Environment variables that an error names, because they decide which server is reached."""


class ArrowFiles:
    """Files below a folder of one of pyarrow's file systems.

    Args:
        filesystem: a ``pyarrow.fs.FileSystem``.
        root: ``bucket/prefix``.
        name: the storage's name in errors.
    """

    exclusive = False  # S3 can refuse to overwrite, but pyarrow (25) has no way to ask for that

    def __init__(self, filesystem: Any, root: str, name: str) -> None:
        self._fs, self._root, self.name = filesystem, root, name

    def read(self, path: str) -> bytes | None:
        try:
            with self._fs.open_input_file(self._at(path)) as file:
                content: bytes = file.read_at(file.size(), 0)
                return content
        except FileNotFoundError:
            return None
        except OSError as error:
            if any(gone in str(error) for gone in GONE):  # deleted since it was opened
                return None
            raise self._store_error("read", path, error) from None

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
        try:
            # An object is created when the stream is closed: whole or not at all.
            with self._fs.open_output_stream(self._at(path)) as file:
                file.write(content)
        except OSError as error:
            raise self._store_error("write", path, error) from None

    def create(self, path: str, content: bytes) -> bool:
        if self.sizes([path]) != [None]:
            return False
        self.write(path, content)
        return True

    def delete(self, path: str, *others: str) -> None:
        folder, unwanted = inside(path).rpartition("/")[0], {path, *others}
        try:
            existing = {file.path for file in self.files(folder)}
            if existing and existing <= unwanted:
                self._fs.delete_dir(self._at(folder))  # else an empty object would be left
            else:
                for each in sorted(existing & unwanted):
                    self._fs.delete_file(self._at(each))
        except FileNotFoundError:  # another process has deleted it
            return
        except OSError as error:
            raise self._store_error("delete", path, error) from None

    def folders(self, path: str) -> Iterator[str]:
        for entry in self._listed(path, recursive=False):
            if not entry.is_file and not entry.base_name.startswith("."):
                yield entry.base_name

    def files(self, path: str) -> Iterator[StoredFile]:
        for entry in self._listed(path, recursive=True):
            if entry.is_file:
                below = entry.path[len(self._root) + 1 :]
                yield StoredFile(below, entry.size, entry.mtime_ns / 1e9)

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        try:
            return [info.size for info in self._fs.get_file_info([self._at(p) for p in paths])]
        except OSError as error:
            raise self._store_error("read", ", ".join(paths), error) from None

    def _listed(self, path: str, *, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        place = self._at(path) if path else self._root
        try:
            return list(
                self._fs.get_file_info(
                    FileSelector(place, recursive=recursive, allow_not_found=True)
                )
            )
        except OSError as error:
            raise self._store_error("list", path, error) from None

    def _at(self, path: str) -> str:
        return f"{self._root}/{inside(path)}"

    def _store_error(self, verb: str, path: str, error: OSError) -> StoreError:
        return StoreError(f"store {self.name}: cannot {verb} {path} ({_short(error)})")


def s3_files(bucket: str, prefix: str) -> ArrowFiles:
    """Files below a prefix of a bucket; the AWS_* variables give the server and the login.

    Raises:
        StoreError: the bucket cannot be reached within 30 seconds, or does not exist, or the
            endpoint holds a password.
    """
    from pyarrow.fs import AwsStandardS3RetryStrategy, FileSelector, FileType, S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    name = "/".join(part for part in (f"s3://{bucket}", prefix) if part)
    if endpoint and "@" in endpoint:
        raise StoreError(
            f"store {name}: the endpoint in the environment must hold no user and no password, but "
            f"got {without_login(endpoint)!r}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    name = f"{name} at {endpoint}" if endpoint else name
    try:
        filesystem = S3FileSystem(
            endpoint_override=endpoint,
            connect_timeout=TIMEOUT,
            request_timeout=TIMEOUT,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
            allow_delayed_open=True,  # one request for a small file, not three
            background_writes=False,
        )
        if filesystem.get_file_info(bucket).type != FileType.NotFound:
            return ArrowFiles(filesystem, f"{bucket}/{prefix}".rstrip("/"), name)
        buckets = [info.base_name for info in filesystem.get_file_info(FileSelector(""))]
    except (OSError, ValueError) as error:  # ValueError: pyarrow refuses the endpoint
        variables = [name for name in ENVIRONMENT if name in os.environ]
        raise StoreError(
            f"store {name}: cannot be reached ({_short(error)}; given by the environment: "
            f"{', '.join(variables) or 'nothing'})"
        ) from None
    raise StoreError(
        f"store {name}: there is no bucket {bucket}; there are: {', '.join(buckets) or 'none'}"
    )


def _short(error: Exception) -> str:
    """The message of a pyarrow error on one line, without the request's number."""
    return " ".join(str(error).split()).partition(" (Request ID")[0]
