"""Where unfinished trials are kept from epoch to epoch, so that they go on after a death instead of starting again."""

import io
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import torch
from pyarrow import ArrowInvalid, fs

from ablate.errors import BadInput


class Storage:
    """A folder that every node sees, or a URI that pyarrow's file systems understand (s3://, gs://, ...)."""

    def __init__(self, uri: str) -> None:
        self.files, self.path = fs.FileSystem.from_uri(uri if "://" in uri else str(Path(uri).absolute()))

    @classmethod
    def tried(cls, uri: str) -> Self:
        """The storage of --storage. Raises BadInput when nothing can be written there."""
        try:
            storage = cls(uri)
            storage.files.create_dir(storage.path, recursive=True)
            storage.save(probe := uuid4().hex, {})
            storage.drop(probe)
            return storage
        except (OSError, ArrowInvalid) as error:
            raise BadInput(
                f"--storage must be a folder or URI that can be written, but {uri!r}: {error}"
            ) from None

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Keep a trial's state in place of what was kept of it, in one step."""
        content = io.BytesIO()
        torch.save(state, content)
        fresh = f"{self._file(name)}.{uuid4().hex}.part"  # another study may have the same trial under way
        with self.files.open_output_stream(fresh) as file:
            file.write(content.getbuffer())
        self.files.move(fresh, self._file(name))

    def load(self, name: str) -> dict[str, Any] | None:
        """What was kept of a trial; None where there is nothing that can be read."""
        try:
            with self.files.open_input_stream(self._file(name)) as file:
                return torch.load(io.BytesIO(file.read()), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # unreachable, torn, or not ours: the trial starts again
            print(f"trial {name}: what was kept of it cannot be read: {error}")
            return None

    def drop(self, name: str) -> None:
        """Forget a trial."""
        for info in self.files.get_file_info(fs.FileSelector(self.path, allow_not_found=True)):
            if info.base_name.startswith(f"{name}.pt") and info.type == fs.FileType.File:  # and parts of it
                with suppress(FileNotFoundError):
                    self.files.delete_file(info.path)

    def _file(self, name: str) -> str:
        return f"{self.path}/{name}.pt"
