"""The tree that README.md draws of this repository, as paths."""

import re

# A branch is drawn four characters wide; names end where two spaces begin the description.
_ENTRY = re.compile(r"^((?:[│ ] {3}|[├└]── )+)(\S+(?: \S+)*)")


def listed_paths(readme: str) -> list[str]:
    """Paths in the code block that opens with `crossgrain/`; a line may name several (`LICENSE Makefile`)."""
    block = re.search(r"^```\w*\ncrossgrain/.*?\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    if block is None:
        raise ValueError("README.md has no code block that opens with crossgrain/")
    paths, folders = [], []
    for line in block[1].splitlines():
        entry = _ENTRY.match(line)
        if entry is None:
            raise ValueError(f"this line of README.md's tree is not a branch: {line!r}")
        depth = len(entry[1]) // 4
        names = entry[2].split(" ")
        folders[depth - 1 :] = [names[0]]
        paths.extend("".join(folders[: depth - 1]) + name for name in names)
    return paths
