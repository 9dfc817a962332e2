"""`dhyan serve`: from the options to a server that listens."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dhyan.cli.inputs import note, speed_of
from dhyan.errors import DataError
from dhyan.translator import load

if TYPE_CHECKING:
    from dhyan.serve.work import Served


def serve(options: argparse.Namespace) -> None:
    """Run the command: it ends by a signal."""
    from dhyan.serve import server

    server.check_installed()
    from dhyan.serve.app import make_app
    from dhyan.serve.guard import machine_names
    from dhyan.serve.work import Served, Worker, names_of, read_examples

    speed = speed_of(options)
    with server.listen(options.host, options.port) as made:
        folders = [options.model, *([options.against] if options.against else [])]
        served = [Served(name, load(folder, **speed)) for name, folder in zip(names_of(folders), folders, strict=True)]
        _check(served, folders)
        examples = read_examples(options.examples, served[0].translator) if options.examples else []
        anywhere = not server.is_loopback(made)
        names = machine_names(options.host) if anywhere else ()
        if anywhere:
            note(f"warning: --host {options.host} lets other machines use this page, without password or encryption")
        worker = Worker(served)
        app = make_app(worker, examples=examples, anywhere=anywhere, names=names)
        print(f"{', '.join(folders)}: {server.address(made, options.host)}", flush=True)
        server.run(app, worker, made)


def _check(served: Sequence[Served], folders: Sequence[str]) -> None:
    for folder, one in zip(folders, served, strict=True):
        if one.translator.needs_links:
            raise DataError(f"serve: {folder} is a model with attention 'oracle', which reads by gold links")
    if len({one.translator.two_columns for one in served}) > 1:
        raise DataError("serve: one model reads two columns and the other one, expected two models of the same data")
