"""Stores the state of unfinished trials, so that they continue after a worker died."""

import io
import logging
from contextlib import suppress
from typing import Any, Self
from uuid import uuid4

import torch
from pyarrow import ArrowInvalid, fs

from ablate.errors import BadInput
from ablate.paths import local_path

log = logging.getLogger(__name__)


class Storage:
    """A folder that every node can reach, or a URI of a pyarrow file system (s3://, gs://, ...)."""

    def __init__(self, uri: str) -> None:
        self.files, self.path = fs.FileSystem.from_uri(
            uri if "://" in uri else str(local_path(uri).absolute())
        )

    @classmethod
    def tried(cls, uri: str) -> Self:
        """Open the storage of --storage, and write to it once.

        Raises:
            BadInput: It cannot be written.
        """
        try:
            storage = cls(uri)
            storage.files.create_dir(storage.path, recursive=True)
            storage.save(probe := uuid4().hex, {})
            storage.drop(probe)
            return storage
        except (OSError, ArrowInvalid) as error:
            rule = "--storage must be a folder or URI that can be written"
            raise BadInput(f"{rule}, but {uri!r}: {error}") from None

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Replace the stored state of a trial, atomically."""
        content = io.BytesIO()
        torch.save(state, content)
        part = f"{self._file(name)}.{uuid4().hex}.part"  # unique: another study may run the same trial
        with self.files.open_output_stream(part) as file:
            file.write(content.getbuffer())
        self.files.move(part, self._file(name))

    def load(self, name: str) -> dict[str, Any] | None:
        """The stored state of a trial; None where there is none, or none that can be read."""
        try:
            with self.files.open_input_stream(self._file(name)) as file:
                return torch.load(io.BytesIO(file.read()), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # unreachable, truncated, or not a state: the trial starts again
            log.warning("trial %s: its stored state cannot be read: %s", name, error)
            return None

    def drop(self, name: str) -> None:
        """Delete the stored state of a trial, and incomplete files of it."""
        for info in self.files.get_file_info(fs.FileSelector(self.path, allow_not_found=True)):
            if info.base_name.startswith(f"{name}.pt") and info.type == fs.FileType.File:
                with suppress(FileNotFoundError):
                    self.files.delete_file(info.path)

    def _file(self, name: str) -> str:
        return f"{self.path}/{name}.pt"
