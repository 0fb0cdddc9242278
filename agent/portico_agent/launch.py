"""Starts one of the agent's programs inside a studio: `python3 -I launch.py <module> [argument …]`.

Isolated mode (-I) keeps the studio's environment and site packages out of our interpreter, so the import path is made
here: `src/` beside this file (our packages), folders in it that are no packages, then `site/` (what they depend on).
From a checkout the folders above this file serve instead.
"""

import runpy
import sys
from pathlib import Path


def import_path(here: Path) -> list[str]:
    """Folders to import from, for a launcher that lies in `here`: beside `src/`, or in the package itself."""
    for base in (here, here.parent.parent):
        source = base / "src"
        if (source / "portico_agent").is_dir():
            inside = sorted(str(f) for f in source.iterdir() if f.is_dir() and not (f / "__init__.py").exists())
            return [str(source), *inside, str(base / "site")]
    return [str(here.parent), str(here.parent.parent / "shared")]


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit("launch.py: name the module to run, portico_agent.init for one")
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if entry != str(here)]
    sys.path[:0] = import_path(here)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
