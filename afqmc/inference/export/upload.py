"""Upload an export to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils._validators import validate_repo_id

from afqmc.utils.errors import InputError, first_line
from afqmc.utils.redaction import redacted


def check_repository(repository: str) -> None:
    """Check the name of a repository.

    Raises:
        InputError: if it is invalid.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"--push {repository}: must be NAME or OWNER/NAME ({first_line(error)})") from error


def upload_export(directory: Path, repository: str, public: bool) -> str:
    """Upload a directory into a repository, which is created if it does not exist, and return its address.

    Args:
        directory: The export.
        repository: ``OWNER/NAME``.
        public: Whether everybody may read it. A public repository is refused unless this is set.

    Raises:
        InputError: if the hub refuses it.
    """
    api = HfApi()
    try:
        try:
            is_private = api.repo_info(repository).private
        except RepositoryNotFoundError:
            repository, is_private = api.create_repo(repository, private=not public).repo_id, not public
        if not is_private and not public:
            raise InputError(f"--push {repository}: exists and is public; --public uploads to it")
        api.upload_folder(repo_id=repository, folder_path=directory, commit_message="Upload an export of afqmc")
    except InputError:
        raise
    except Exception as error:  # the HTTP library may raise anything
        reason = redacted(f"{type(error).__name__}: {first_line(error)}")
        raise InputError(f"--push {repository}: {reason} (HF_TOKEN=..., or hf auth login)") from error
    return f"{api.endpoint}/{repository}"
