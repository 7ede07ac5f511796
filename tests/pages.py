"""The documents as tests read them: their pages, prose and command lines."""

import re

from benchmarks import tables

ROOT = tables.ROOT
PAGES = [str(path.relative_to(ROOT)) for path in tables.documents()]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(page):
    """A page without its blocks of code."""
    return BLOCK.sub("", read(page))


def prose(page):
    """A page without blocks of code, tables and comments."""
    text = re.sub(r"<!--.*?-->", "", without_code(page), flags=re.DOTALL)
    return re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)


def commands(page):
    """The command lines of a page: those of its blocks of code, and those in backticks; not those with placeholders in
    brackets or with dots. What the prose only names, without arguments, comes with --help."""
    blocks = [body for language, body in BLOCK.findall(read(page)) if language in ("", "bash")]
    lines = [line for block in blocks for line in re.sub(r"\\\n", " ", block).splitlines()]
    for code in re.findall(r"`([^`]+)`", without_code(page)):
        line = " ".join(code.split())
        named = re.match(r"python -m [\w.]+", line)
        lines.append(f"{named[0]} --help" if named and "--" not in line else line)
    for line in lines:
        line = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line.strip())
        is_whole = "..." not in line and "[--" not in line
        if is_whole and re.match(r"(python -m |python benchmarks/|bash |pip install )", line):
            yield line
