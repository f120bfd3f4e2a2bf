"""Where a run is tracked: mlflow[:URI], tensorboard[:DIR] or wandb[:[ENTITY/]PROJECT]."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

from ablate.errors import BadInput, unknown
from ablate.labels import without_secrets
from ablate.paths import local_path

PACKAGES = {"mlflow": "mlflow-skinny", "tensorboard": "tensorboard", "wandb": "wandb"}  # by module
PROJECT = re.compile(r"([\w.-]+/)?[\w.-]+")
SERVERS = ("http", "https", "file", "sqlite", "mysql", "postgresql", "mssql", "databricks")  # of MLflow


@dataclass(frozen=True)
class Destination:
    """A tracker and where it is.

    Attributes:
        kind: "mlflow", "tensorboard" or "wandb".
        where: A URI, a folder or a project; "" leaves the choice to the tracker's own settings. It may hold a
            password: `str` and `redacted` give texts without it.
    """

    kind: str
    where: str

    def __str__(self) -> str:
        return without_secrets(f"{self.kind}:{self.where}" if self.where else self.kind)

    def __repr__(self) -> str:
        return f"Destination({str(self)!r})"

    def redacted(self, text: str) -> str:
        """A text, such as the message of a tracker's exception, without what is secret in the URI."""
        user, at, _ = self.where.partition("://")[2].rpartition("@")
        query = self.where.partition("?")[2] if "://" in self.where else ""
        parts = [user, user.partition(":")[2], query, *(pair.partition("=")[2] for pair in query.split("&"))]
        secrets = {each for part in parts if at or query for each in (part, unquote(part)) if each}
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return without_secrets(text)


def destination(text: str) -> Destination:
    """Read what `--track` and `--to` say.

    Args:
        text: A tracker, and after a colon where it is.

    Raises:
        BadInput: The tracker is unknown, or the place is none of its kind.
    """
    kind, colon, where = text.partition(":")
    if kind not in PACKAGES:
        raise unknown("tracker", kind, PACKAGES)
    if colon and not where:
        raise BadInput(f"a tracker's place must follow its colon, but got {text!r}; leave the colon out")
    if where:
        where = {"mlflow": _uri, "tensorboard": _folder, "wandb": _project}[kind](where)
    return Destination(kind, where)


def installed(text: str) -> Destination:
    """The same, where the tracker's package is installed. Raises BadInput also where it is not."""
    where = destination(text)
    found = find_spec(where.kind)
    if found is None or found.origin is None:  # a folder of that name is no package
        advice = f"pip install {PACKAGES[where.kind]}"
        raise BadInput(f"tracking to {where.kind} needs the extra ablate-vit[track]; {advice}")
    return where


def _uri(where: str) -> str:
    shown = without_secrets(where)
    scheme, colon, _ = where.partition("://")
    if not colon:
        if where == "databricks":
            return where
        rule = "mlflow:URI must be that of a server or of a database"
        raise BadInput(f"{rule}, but got {shown!r}; write mlflow:http://HOST:PORT or mlflow:sqlite:///FILE")
    if (known := scheme.partition("+")[0]) not in SERVERS:
        raise unknown("kind of MLflow server", known, SERVERS)
    try:
        parts = urlsplit(where)
        bad = scheme.startswith("http") and (not parts.hostname or "@" in parts.path or parts.port == 0)
    except ValueError:
        bad = True
    if bad:
        rule = "mlflow:URI must have a host, and a port from 1 to 65535 where it has one"
        advice = "in a password, / is %2F and @ is %40"
        raise BadInput(f"{rule}, but got {shown!r}; {advice}")
    database, slashes, path = where.partition(":///")
    return f"{database}{slashes}{local_path(path)}" if path.startswith("~") else where


def _folder(where: str) -> str:
    if "://" in where:
        got = without_secrets(where)
        raise BadInput(
            f"tensorboard:DIR must be a folder, but got {got!r}; leave it out for one in the run's"
        )
    return str(local_path(where).absolute())


def _project(where: str) -> str:
    if not PROJECT.fullmatch(where):
        rule = "wandb:PROJECT must be a project, or ENTITY/PROJECT"
        got = without_secrets(where)
        raise BadInput(f"{rule}, but got {got!r}; a server of your own is what WANDB_BASE_URL says")
    return where
