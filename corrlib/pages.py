"""Pages for a browser that need no other file and no network: films and pictures, and executed notebooks as a site.

Knows nothing of vision. Everything shown is inside the page, so that it can be sent or published as it is.
"""

import base64
import html
import os
import re
from collections.abc import Mapping
from pathlib import Path

from .whole import whole

MEDIA = {".webm": "video/webm", ".png": "image/png", ".jpg": "image/jpeg"}
WIDGET = "application/vnd.jupyter.widget-view+json"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2 { font-weight: 500; line-height: 1.2; } a { color: #0072b2; } figure { margin: 1.5rem 0; }
img, video { max-width: 100%; max-height: 80vh; display: block; } figure video { width: 100%; }
figcaption, small { color: #555; }
ol { padding: 0; list-style: none; } li { display: flex; gap: 1.5rem; align-items: center; margin: 1.5rem 0; }
li a.picture { flex: 0 0 18rem; } li img { max-height: 11rem; margin: auto; }
"""


def write_page(path: str | os.PathLike, title: str, files: Mapping[str | os.PathLike, str]) -> Path:
    """Films and pictures, each with a caption, in one .html file that holds them all.

    Args:
        path: where to, ending in .html; its folder is made if it is missing.
        title: of the page.
        files: paths of .webm, .png or .jpg files, each with its caption.

    Raises:
        ValueError: another suffix.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if path.suffix != ".html":
        raise ValueError(f"write_page: path should end in .html, got {path}.")
    shown = [f"<figure>{_media(Path(file))}<figcaption>{html.escape(said)}</figcaption></figure>"
             for file, said in files.items()]  # fmt: skip
    return _write(path, title, f"<h1>{html.escape(title)}</h1>\n" + "\n".join(shown))


def write_site(folder: str | os.PathLike, notebooks: list[Path]) -> Path:
    """Executed notebooks as pages that link to one another, and a first page with the picture and question of each.

    A link from one notebook to another leads to its page where the site has it; so do their names
    in code style. Links to other files, which a site does not have, are left as plain text. What
    a running kernel would be needed for is replaced by a line that says so.

    Args:
        folder: where to; pages of an earlier call are replaced.
        notebooks: executed copies in the order of the first page; of several of one notebook, the last
            counts for links.

    Returns:
        the first page, index.html.

    Raises:
        FileNotFoundError: there are no notebooks, or one of them is missing.
    """
    if not notebooks:
        raise FileNotFoundError("write_site: expected at least one executed notebook, got none: run some first.")
    import nbformat  # these two are slow to import, and needed by a site only
    from nbconvert import HTMLExporter

    folder = Path(folder)
    exporter = HTMLExporter(exclude_anchor_links=True)
    opened = {path: nbformat.read(path, 4) for path in notebooks}
    pages = {_stage(path, notebook): f"{path.stem}.html" for path, notebook in opened.items()}
    entries = []
    for path, notebook in opened.items():
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = _linked(cell.source, pages)
            for output in cell.get("outputs", []):
                if WIDGET in output.get("data", {}):
                    output["data"] = {
                        "text/plain": "This part needs a running kernel: open the notebook in JupyterLab."
                    }
        notebook.metadata.pop("widgets", None)
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        body, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
        body = re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)  # would load formulas and diagrams from afar
        style = "margin: 1rem 5rem; font: 14px system-ui, sans-serif"
        back = f'<p style="{style}"><a href="index.html">all notebooks</a></p>'
        body = re.sub(r"(<body[^>]*>)", rf"\1{back}", body, count=1)
        name = f"{path.stem}.html"
        _replace(folder / name, body)
        entries.append(_entry(name, path.stem, title, notebook))
    content = f"<h1>The notebooks, executed</h1>\n<ol>{''.join(entries)}</ol>"
    return _write(folder / "index.html", "The notebooks, executed", content)


def newest(folder: Path) -> list[Path]:
    """The newest executed copy of each notebook in a folder, in the order in which they are read."""
    import nbformat

    found = {}
    for path in sorted(folder.glob("*.ipynb"), key=os.path.getmtime):
        if not path.stem.endswith(".failed"):
            found[_stage(path, nbformat.read(path, 4))] = path
    return [found[name] for name in sorted(found, key=lambda name: name.replace("_", "~"))]  # 01a before 01_


def _stage(path: Path, notebook) -> str:
    """The name of the notebook that a file is a copy of: what its run was started as, else the file's."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    named = re.search(r'start_run\("(\w+)"', code)
    return named[1] if named else path.stem.partition(".")[0]


def _linked(text: str, pages: dict[str, str]) -> str:
    """Markdown whose links to notebooks lead to pages, and whose other links to files are plain text."""

    def target(match: re.Match) -> str:
        shown, link = match.groups()
        page = pages.get(Path(link).stem) if link.endswith(".ipynb") else None
        if page:
            return f"[{shown}]({page})"
        return match.group() if re.match(r"[a-z]+:|#", link) else shown

    text = re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", target, text)
    return re.sub(r"(?<!\[)`(\w+)`", lambda m: f"[{m.group()}]({pages[m[1]]})" if m[1] in pages else m.group(), text)


def _entry(page: str, stem: str, title: str, notebook) -> str:
    """A line of the first page: the first picture of a notebook, its question, and its first paragraph."""
    first = notebook.cells[0]
    shown = list(first.get("attachments", {}).values())
    shown += [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    found = [(kind, data[kind]) for data in shown for kind in ("image/png", "image/jpeg") if kind in data]
    picture = f'<img alt="" src="data:{found[0][0]};base64,{found[0][1]}">' if found else ""
    lines = [line for line in first.source.splitlines()[1:] if re.match(r"\w", line)]  # neither picture nor caption
    said = re.sub("[*`]", "", re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", lines[0])) if lines else ""
    head, said, name = html.escape(title), html.escape(said), html.escape(stem)
    words = f'<h2><a href="{page}">{head}</a></h2><p>{said}</p><small>{name}</small>'
    return f'<li><a class="picture" href="{page}">{picture}</a><div>{words}</div></li>'


def _media(path: Path) -> str:
    """A film or a picture as an element that holds its data."""
    if path.suffix not in MEDIA:
        raise ValueError(f"write_page: files should end in {', '.join(MEDIA)}, got {path}.")
    data = f"data:{MEDIA[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
    if path.suffix == ".webm":
        return f'<video src="{data}" controls loop autoplay muted playsinline></video>'
    return f'<img src="{data}" alt="">'


def _write(path: Path, title: str, content: str) -> Path:
    """A page of our own."""
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    return _replace(
        path,
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>{content}</body></html>\n',
    )


def _replace(path: Path, text: str) -> Path:
    """A text file, whole or not at all."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path
