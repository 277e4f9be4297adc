"""Trained networks of the Hugging Face Hub, by name: `hf:USER/REPOSITORY[@REVISION][/FILE]`.

`huggingface_hub` (extra `hub`) downloads them and keeps them in its cache; with `HF_HUB_OFFLINE=1`
only the cache is used. It also uploads.
"""

import functools
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from rmpe_jax.errors import UserError

_PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")
# What a network needs, of whole repositories; and its weights where there are no safetensors.
_PATTERNS = ["config.json", "preprocessor_config.json", "model*.safetensors*", "pose.safetensors"]
_OLD_WEIGHTS = "pytorch_model.bin"
POSE_FILE = "pose.safetensors"  # the name of a model file of this project in a repository


def is_hub_name(name: str) -> bool:
    """Whether `name` names something on the hub."""
    return name.startswith(_PREFIX)


def fetch_model(name: str) -> pathlib.Path:
    """The local path of a network of the hub, downloaded if it is not in the cache.

    Args:
      name: `hf:USER/REPOSITORY`; `@REVISION` pins a branch, tag or commit; `/FILE` names a file in
        the repository, by default `pose.safetensors` if there is one.

    Returns:
      A model file, or the folder of a network in the format of Hugging Face.

    Raises:
      UserError: the name is not of this form, huggingface_hub is not installed, there is no such
        repository or file, or it can neither be downloaded nor found in the cache.
    """
    match = _NAME.fullmatch(name)
    if match is None or re.search(r"\.\.|--", name):  # the hub has no such names
        raise UserError(f"{name}: names have the form hf:USER/REPOSITORY[@REVISION][/FILE]")
    huggingface_hub = _library(name)
    errors = huggingface_hub.errors
    repository, revision, file = match["repository"], match["revision"], match["file"]
    try:
        if file:
            return pathlib.Path(
                huggingface_hub.hf_hub_download(repository, file, revision=revision)
            )
        fetch = functools.partial(huggingface_hub.snapshot_download, repository, revision=revision)
        folder = pathlib.Path(fetch(allow_patterns=_PATTERNS))
        if not any(folder.glob("*.safetensors*")):
            fetch(allow_patterns=[_OLD_WEIGHTS])
    except errors.GatedRepoError:
        why = "it is gated: accept its terms on the hub, and log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        why = "there is no such repository, or it is private: check the name, or log in"
    except errors.RevisionNotFoundError:
        why = f"there is no revision {revision}: check the name"
    except errors.LocalEntryNotFoundError:
        why = "it is not in the cache and the hub cannot be reached: check the network"
    except errors.EntryNotFoundError:
        why = f"there is no file {file}: check the name"
    except (errors.HTTPError, OSError) as error:  # also a connection that breaks
        why = (
            f"the download failed ({type(error).__name__}): check network and space, and try again"
        )
    except ValueError as error:
        why = " ".join(str(error).split())
    else:
        return folder / POSE_FILE if (folder / POSE_FILE).exists() else folder
    raise UserError(f"{name}: {why}")


def push_files(
    name: str, files: Mapping[str, str | os.PathLike | bytes], *, private: bool = False
) -> str:
    """Uploads files, as one commit, to a repository of the hub, which is made if it is not there.

    Files of the repository with the same names are replaced; its history keeps them.

    Args:
      name: `hf:USER/REPOSITORY`.
      files: by their names in the repository: paths, or contents.
      private: others shall not see the repository.

    Returns:
      The address of the repository.

    Raises:
      UserError: the name is not of this form, huggingface_hub is not installed, nobody is logged
        in, the hub refuses or cannot be reached, or a private repository is wanted and there is a
        public one.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["revision"] or match["file"]:
        raise UserError(f"{name}: give the repository as hf:USER/REPOSITORY")
    huggingface_hub = _library(name)
    errors = huggingface_hub.errors
    if huggingface_hub.get_token() is None:
        raise UserError(f"{name}: you are not logged in: run `hf auth login`, or set HF_TOKEN")
    repository = match["repository"]
    api = huggingface_hub.HfApi()
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        # An existing repository stays as public as it is.
        if private and not api.repo_info(repository).private:
            raise UserError(f"{name} exists and is public: make it private, or leave out --private")
        added = [huggingface_hub.CommitOperationAdd(*item) for item in files.items()]
        api.create_commit(repository, added, commit_message=f"Upload {', '.join(files)}")
    except errors.HFValidationError as error:
        why = str(error)
    except errors.HfHubHTTPError as error:
        code = getattr(error.response, "status_code", "?")
        why = f"the hub refuses (status {code}): is it your repository, and may your token write?"
    except (errors.HTTPError, OSError) as error:
        why = f"the hub cannot be reached ({type(error).__name__}): check the network"
    else:
        return str(url)
    raise UserError(f"{name}: {why}")


def _library(name: str) -> Any:
    """The module `huggingface_hub`, with its `errors`."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        line = f"{name} needs huggingface_hub: pip install 'rmpe_jax[hub]'"
        raise UserError(line) from None
    return huggingface_hub
