"""Hooks of mkdocs: the site has the pages of docs/, and what they link to elsewhere in the repository."""

import re
from pathlib import Path

from mkdocs.structure.files import File

import ablate

ROOT = Path(__file__).parent.parent
KEPT = "repository"  # the folder of the site with files from outside docs/
HOME = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)#:\s]+)(#[^)]*)?\)")


def on_files(files, config):
    """Add the home page, the reference of the Python names, and every file that a page links to."""
    for name, source in HOME.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "python.md", content=python_reference()))
    for page in list(files.documentation_pages()):
        for *_, target, _ in LINK.findall(page.content_string):
            path = outside(page.src_uri, target)
            if path and path.is_file() and str(path.relative_to(ROOT)) not in HOME.values():
                files.append(File.generated(config, kept(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Let links that lead out of docs/ lead to the copy on the site, or to a folder of the repository."""
    own = {source: name for name, source in HOME.items()}

    def redirected(found):
        image, text, target, anchor = found.groups(default="")
        path = outside(page.file.src_uri, target)
        text = LINK.sub(redirected, text)
        if path is None:
            inside = target.removeprefix("docs/") if page.file.src_uri in HOME else target
            return f"{image}[{text}]({inside}{anchor})"
        if name := own.get(str(path.relative_to(ROOT))):
            return f"{image}[{text}]({name}{anchor})"
        if path.is_file():
            return f"{image}[{text}]({kept(path)}{anchor})"
        url = config.repo_url
        return f"[{text}]({url.rstrip('/')}/tree/HEAD/{path.relative_to(ROOT)})" if url else text

    return LINK.sub(redirected, markdown)


def outside(page, target):
    """What a link of a page leads to, if that is in the repository and not in docs/; else None."""
    folder = ROOT if page in HOME else (ROOT / "docs" / page).parent
    path = (folder / target).resolve()
    return (
        path
        if path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "docs") and path.exists()
        else None
    )


def kept(path):
    """Where the site has a file of the repository. A page would be rendered, and its own links be lost."""
    name = f"{KEPT}/{path.relative_to(ROOT)}"
    return f"{name}.txt" if path.suffix in (".md", ".py") or not path.suffix else name


def python_reference():
    """The names that users import, with their docstrings."""
    names = sorted(ablate._MODULES, key=str.lower)
    parts = [f"::: ablate.{ablate._MODULES[name]}.{name}" for name in names]
    return "\n\n".join(
        ["# Python", "`from ablate import ...` loads each of these names when it is first used.", *parts]
    )
