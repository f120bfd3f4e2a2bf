"""Uploads to the Hugging Face hub."""

from pathlib import Path

from ablate.errors import AblateError, BadInput
from ablate.models.locating import first_line


def check_login(name: str) -> None:
    """Raises BadInput where there is no token to upload with."""
    from huggingface_hub import get_token

    if get_token() is None:
        rule = f"an upload to {name} needs a token, and there is none"
        raise BadInput(f"{rule}; run `hf auth login`, set HF_TOKEN, or write the folder alone with --dry-run")


def upload(folder: Path, name: str, private: bool = False) -> str:
    """Upload a folder as one commit to a repository, which is created where it is missing.

    Args:
        folder: Of `write_repository`. Files of the repository that have other names stay.
        name: USER/NAME.
        private: Whether a repository that is created is private.

    Returns:
        The address of the commit.

    Raises:
        BadInput: The hub refuses the token, or it may not write there.
        AblateError: The hub does not answer, or the upload failed.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    hub, api = f"the hub ({constants.ENDPOINT})", HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Packed by ablate")
    except HFValidationError as error:
        raise BadInput(f"--to must be a name on {hub}: {first_line(error)}") from None
    except HfHubHTTPError as error:
        if getattr(error.response, "status_code", None) in (401, 403):
            said = " ".join((error.server_message or str(error)).split())[:200]
            raise BadInput(f"{hub} does not let this token write to {name}: {said}; give another") from None
        raise AblateError(f"the upload to {name} failed: {first_line(error)}; try again") from None
    except Exception as error:  # of the network
        raise AblateError(
            f"{hub} does not answer: {first_line(error)}; nothing of {name} was changed"
        ) from None
    return str(done.commit_url)
