"""Files of the Hugging Face hub, by USER/NAME or USER/NAME@REVISION."""

import re
from collections.abc import Sequence
from pathlib import Path

from ablate.errors import BadInput, short_repr
from ablate.models.locating import first_line

NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")


def is_hub_name(name: str | Path) -> bool:
    """Return whether a text has the form of a name on the hub; a Path has not."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def download(name: str, files: Sequence[str]) -> Path:
    """Download files of a repository into the hub's cache, all of one commit.

    Where the hub does not answer, files that are in the cache already are taken.

    Args:
        name: USER/NAME, or USER/NAME@REVISION with a branch, a tag or a commit.
        files: Their names. The repository must have each.

    Returns:
        The folder in the cache that holds them.

    Raises:
        BadInput: The hub does not answer, or has no such repository, revision or file.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, given = name.partition("@")
    revision = given or None
    where = f"the hub ({constants.ENDPOINT})"
    try:
        # hf_hub_download would ask six times before it says that the hub does not answer.
        get_hf_file_metadata(hf_hub_url(repository, files[0], revision=revision))
        silent = None
    except RevisionNotFoundError:
        raise BadInput(f"{repository!r} on {where} has no revision {given!r}; give another") from None
    except RepositoryNotFoundError:
        mend = "give another, or log in with `hf auth login` if it is private"
        raise BadInput(f"neither a folder nor a model on {where} is called {repository!r}; {mend}") from None
    except EntryNotFoundError:
        raise BadInput(f"{repository!r} on {where} has no {files[0]}; give another") from None
    except HFValidationError as error:
        raise BadInput(
            f"{short_repr(name)} is neither a folder nor a name on {where}: {first_line(error)}"
        ) from None
    except Exception as error:  # of the network
        silent = f"there is no folder {name!r}, and {where} does not answer: {first_line(error)}"
    try:
        for file in files:
            path = Path(hf_hub_download(repository, file, revision=revision, local_files_only=bool(silent)))
            revision = path.parent.name  # the commit
    except Exception as error:
        fault = silent or f"{name!r} cannot be downloaded from {where}: {first_line(error)}"
        raise BadInput(f"{fault}; give a folder, or try again") from None
    return path.parent
