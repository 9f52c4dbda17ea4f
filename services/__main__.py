"""`python -m services`: see the package."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import services
from services.artifacts import fetch_archive, fetch_jars, write_lock
from services.catalogue import CATALOGUE, LOCKED
from services.runner import LOG, Services
from services.spec import NotInstallable

FOLDER = Path(__file__).resolve().parent.parent / ".services"


def main() -> int:
    """Run a verb; returns the exit code."""
    options = _options()
    here = Services(options.folder, CATALOGUE, options.artifacts)
    verbs = {"up": _up, "down": _down, "status": _status, "install": _install, "lock": _lock}
    return verbs[options.verb](here, options.names or list(CATALOGUE if options.verb != "lock" else LOCKED), options)


def _options() -> argparse.Namespace:
    listed = "\n".join(f"  {name:10} {service.what}" for name, service in CATALOGUE.items())
    parser = argparse.ArgumentParser(
        "services", description=services.__doc__, epilog=f"services:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("verb", choices=("up", "down", "status", "install", "lock"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of them without one")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they live; .services by default")
    parser.add_argument("--artifacts", type=Path, help="where fetched files lie; FOLDER/artifacts by default")
    parser.add_argument("--remove", action="store_true", help="down: remove their data too")
    options = parser.parse_args()
    known = LOCKED if options.verb == "lock" else CATALOGUE
    for name in options.names:
        if name not in known:
            parser.error(f"there is no {name!r}; choose from {', '.join(known)}")
    return options


def _up(here: Services, names: list[str], _: argparse.Namespace) -> int:
    failed = 0
    for name in names:
        began = time.monotonic()
        try:
            running = here.start(name)
        except (NotInstallable, RuntimeError) as error:
            failed = 1
            print(f"{name:10} left out: {error}", file=sys.stderr)
        else:
            print(f"{name:10} {running.address}   ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"addresses, users and passwords: {here.folder}/NAME/service.json")
    return failed


def _down(here: Services, names: list[str], options: argparse.Namespace) -> int:
    if options.names:
        for name in names:
            here.stop(name, keep_data=not options.remove)
    else:
        print("stopped:", ", ".join(here.stop_all(keep_data=not options.remove)) or "nothing ran")
    return 0


def _status(here: Services, names: list[str], _: argparse.Namespace) -> int:
    for name in names:
        running = here.find(name)
        print(
            f"{name:10} {running.address if running else 'stopped'}"
            + (f"   {here.folder / name / LOG}" * bool(running))
        )
    return 0


def _install(here: Services, names: list[str], _: argparse.Namespace) -> int:
    failed = 0
    for name in names:
        try:
            CATALOGUE[name].install(here.artifacts)
            print(f"{name:10} installed", flush=True)
        except NotInstallable as error:
            failed = 1
            print(f"{name:10} left out: {error}", file=sys.stderr)
    return failed


def _lock(_: Services, names: list[str], __: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            folder = Path(scratch) / name
            if LOCKED[name][0].count(":") > 2:
                fetch_archive(name, LOCKED[name][0], folder, locked=False)
                folder /= "archive"
            else:
                fetch_jars(name, LOCKED[name], folder, locked=False)
            print(write_lock(name, folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
