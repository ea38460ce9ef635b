"""Files of public data sets, from the Hugging Face hub or its local cache."""

from pathlib import Path

from jaxtrace.errors import PromptError


def fetch(repo: str, filename: str, task: str) -> Path:
    """Returns the local path of one file of a data set, downloaded the first time it is asked for.

    Args:
      repo: the data set on the hub.
      filename: the file's path in it.
      task: the task that needs it, for the message.

    Raises:
      PromptError: the hub cannot be reached and the file is not in the cache.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repo, filename, repo_type="dataset"))
    except Exception as error:  # which HTTP library raises depends on the version of huggingface_hub
        raise PromptError(
            f"{task}: cannot fetch {filename} of {repo} from the hub ({type(error).__name__}); "
            "name a local copy with --data FILE"
        ) from error
