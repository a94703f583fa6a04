"""The page: hand-written text with blocks between marks, which are replaced.

    <!-- begin NAME -->
    anything, replaced by the block of that name
    <!-- end NAME -->
"""
import re

MARK = re.compile(r"<!-- (begin|end) ([a-z-]+) -->\n?")


def fill(path, blocks):
    """The page with its blocks as they are now. A block without a place, or a place without a block, is an error."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    out, at, inside, used = [], 0, None, set()
    for mark in MARK.finditer(text):
        kind, name = mark.groups()
        if inside is None and kind == "begin":
            if name not in blocks:
                raise SystemExit(f"study: {path}: nothing is called {name}")
            out += [text[at : mark.end()].rstrip("\n"), "\n\n", blocks[name].rstrip("\n"), "\n\n"]
            inside = name
            used.add(name)
        elif inside == name and kind == "end":
            out.append(f"<!-- end {name} -->\n")
            inside, at = None, mark.end()
        else:
            raise SystemExit(f"study: {path}: begin and end of {name} do not match")
    if inside:
        raise SystemExit(f"study: {path}: {inside} does not end")
    missing = sorted(set(blocks) - used)
    if missing:
        raise SystemExit(f"study: {path} has no place for {', '.join(missing)}")
    return "".join(out) + text[at:]
