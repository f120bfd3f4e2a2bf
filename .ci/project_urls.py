"""Writes the URLs of the publishing repository to pyproject.toml: .ci/project_urls.py REPOSITORY_URL"""

import sys
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def with_urls(pyproject: str, repository: str) -> str:
    """pyproject.toml with a table of URLs."""
    urls = {
        "Homepage": repository,
        "Documentation": f"{repository}/tree/HEAD/docs",
        "Issues": f"{repository}/issues",
        "Changelog": f"{repository}/blob/HEAD/CHANGELOG.md",
    }
    lines = [f'{name} = "{url}"' for name, url in urls.items()]
    return pyproject.rstrip() + "\n\n[project.urls]\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PYPROJECT.write_text(
        with_urls(PYPROJECT.read_text(encoding="utf-8"), sys.argv[1].rstrip("/")), encoding="utf-8"
    )
