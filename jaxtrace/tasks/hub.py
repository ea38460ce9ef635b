"""Files of public data sets from the Hugging Face hub or its local cache."""

from pathlib import Path

from jaxtrace.errors import PromptError


def fetch(repo: str, filename: str, task: str) -> Path:
    """Return the local path of a data set's file; the first call downloads it.

    Args:
      repo: name of the data set on the hub.
      filename: path of the file in the data set.
      task: name of the task, for the message.

    Raises:
      PromptError: the hub cannot be reached and the file is not in the cache.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repo, filename, repo_type="dataset"))
    except Exception as error:  # the class depends on the HTTP library of huggingface_hub
        raise PromptError(
            f"{task}: cannot fetch {filename} of {repo} from the hub ({type(error).__name__}); "
            "name a local copy with --data FILE"
        ) from error
