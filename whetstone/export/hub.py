"""Publish an exported folder on the Hugging Face Hub. The token is that of `hf auth login` or `HF_TOKEN`."""

from pathlib import Path


def push(folder: Path, repository: str, private: bool = True) -> str:
    """Upload the folder as a new commit of the model repository, which is made if it does not exist. Returns its address.

    Raises ValueError or OSError if the Hub cannot be asked or refuses; the folder stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Exported by Whetstone")
    except OfflineModeIsEnabled as error:
        raise OSError(f"--push {repository}: HF_HUB_OFFLINE is set. Unset it; {folder} is complete.") from error
    except (HfHubHTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OSError(
            f"--push {repository}: the Hub did not take it: {first}. Log in with `hf auth login` or set HF_TOKEN, with the "
            f"right to write there. {folder} is complete: push it again with hf upload {repository} {folder}."
        ) from error
    return str(made)
