"""Finds the tables of a dataset through the package `datasets`: on the Hugging Face hub, or in local files.

A local dataset is a folder that `save_to_disk` wrote, a folder of files that `load_dataset` reads, such as
Parquet, or one Parquet file. What the hub has is downloaded once, and read from the cache of `datasets` where
the hub does not answer. Code that comes with a dataset is never run.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablate.errors import BadInput, short_repr

log = logging.getLogger(__name__)
CONNECT_S, ANSWER_S = 5, 8  # how long the hub may take: to be connected, and to answer in all
SAVED = ("dataset_dict.json", "state.json")  # by which `datasets` knows what save_to_disk wrote
Tables = dict[str, Any]  # by split, as the dataset calls it: datasets.Dataset


def tables(where: str, config: str | None) -> Tables:
    """Load the tables of a dataset.

    Args:
        where: An absolute path, or a name on the hub.
        config: Of a dataset on the hub that has several.

    Returns:
        By split, its table, whose columns are read from files as they are needed.

    Raises:
        BadInput: There is no such dataset, the hub does not answer, or `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError:
        advice = "pip install datasets"
        raise BadInput(f"hf:NAME and hf:PATH need the extra ablate-vit[hub]; {advice}") from None
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs, it raises as well
    try:
        found = _local(Path(where)) if where.startswith("/") else _of_hub(where, config)
    except BadInput:
        raise
    except Exception as error:  # of the network, the hub, the disk and the files
        rule = f"hf:{where} must be a dataset that the package datasets loads"
        raise BadInput(f"{rule}, but: {_reason(error)}; see 'Your images' in docs/guide.md") from None
    return dict(found) if isinstance(found, dict) else {"train": found}


def _local(path: Path) -> Any:
    import datasets

    if path.suffix.lower() == ".parquet" and path.is_file():
        return datasets.load_dataset("parquet", data_files=str(path))
    if not path.is_dir():
        fault = "is neither" if path.exists() else "does not exist"
        rule = f"hf:PATH must be a folder or a .parquet file, but {str(path)!r} {fault}"
        raise BadInput(f"{rule}; give one, or hf:NAME for a dataset of the Hugging Face hub")
    if any((path / name).exists() for name in SAVED):
        try:
            return datasets.load_from_disk(str(path))
        except IndexError:  # all that `datasets` says
            rule = f"every split must have images, but one in {str(path)!r} has none"
            raise BadInput(f"{rule}; save the dataset without it") from None
    return datasets.load_dataset(str(path))


def _of_hub(name: str, config: str | None) -> Any:
    import datasets

    if not (fault := _silence(name)):
        return datasets.load_dataset(name, config)
    with _offline():
        try:
            found = datasets.load_dataset(name, config)
        except (ConnectionError, FileNotFoundError):
            rule = f"hf:{name} must be on the Hugging Face hub or in the cache of datasets"
            advice = "try again with a network, or give hf:PATH for a local copy"
            raise BadInput(f"{rule}, but it is not in the cache, and {fault}; {advice}") from None
    log.warning("hf:%s: from the cache of datasets, as %s", name, fault)
    return found


def _silence(name: str) -> str:
    """Why the hub says nothing about a dataset; "" where it answers, were it that there is none."""
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if datasets.config.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    faults: list[str] = []

    def ask() -> None:
        try:
            HfApi(endpoint=datasets.config.HF_ENDPOINT).dataset_info(name, timeout=CONNECT_S)
        except HFValidationError:
            faults.append("a name on the hub is NAME or USER/NAME")
        except RepositoryNotFoundError:  # or not for this user: load_dataset says which
            faults.append("")
        except Exception as error:  # of the network
            faults.append(f"the hub does not answer: {_reason(error)}")
        else:
            faults.append("")

    # No timeout covers the search for the host's address, so a thread asks, and is left alone if it hangs.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    return faults[0] if faults else f"the hub does not answer within {ANSWER_S} seconds"


@contextmanager
def _offline() -> Iterator[None]:
    """Within the context `datasets` reads its cache alone: it would try a silent hub for half a minute."""
    import datasets

    before, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _reason(error: BaseException) -> str:
    """What went wrong, in a line: `datasets` often names the true reason as the cause alone."""
    while type(error).__name__ == "DatasetGenerationError" and error.__cause__ is not None:
        error = error.__cause__
    return short_repr(" ".join(str(error).split()) or type(error).__name__)[1:-1]
