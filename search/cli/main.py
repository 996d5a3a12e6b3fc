"""Run the command `stepfront`: its verbs, its version, and its exit codes."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from stepfront.environment import disable_telemetry
from stepfront.errors import InputError
from stepfront.search.cli import cluster, folders, models, pages, points, runs, scores, upkeep
from stepfront.search.cli.terminal import print_warnings
from stepfront.search.execution.interrupt import InterruptedSearchError, handle_sigterm
from stepfront.version import __version__

# Heavy imports stand where they are used, so that `stepfront --help` answers at once.


class _InReadingOrder(TyperGroup):
    """Lists the verbs in the order in which a user needs them; typer would list nested verbs first."""

    def list_commands(self, ctx: object) -> list[str]:
        """Return the names of the verbs."""
        return sorted(self.commands, key=lambda name: name == "import")


app = typer.Typer(
    name="stepfront",
    cls=_InReadingOrder,
    help="Find which width of a slimmable diffusion network to run at which denoising step.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Start with: stepfront quickstart.  Each verb has --help with an example.  Exit codes: 0 done, 1 a check "
    "failed, 2 something given can't be used, 130 interrupted.",
)
for add_verbs in (
    runs.add_to,
    scores.add_to,
    points.add_to,
    pages.add_to,
    models.add_to,
    folders.add_to,
    upkeep.add_to,
    cluster.add_to,
):
    add_verbs(app)

INTERRUPTED = "interrupted; run the same command again to continue"


@app.callback(invoke_without_command=True)
def stepfront(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    """Print the version or, without a verb, the help."""
    if version:
        typer.echo(f"stepfront {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("controls", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def controls() -> None:
    """Report the new name of this verb."""
    raise InputError("`stepfront controls` is now called `stepfront baselines`; its arguments are the same")


def main() -> None:
    """Run the command.

    A user's error is one line on stderr and exit code 2; Ctrl-C and SIGTERM give exit code 130.  Without a verb the
    help is printed on stdout, with exit code 0.
    """
    disable_telemetry()
    print_warnings()
    handle_sigterm()
    try:
        code = app(standalone_mode=False) or 0  # typer returns the code of an Exit, and 130 for Ctrl-C
        if code == 130:
            _fail(INTERRUPTED, code)
        sys.exit(code)
    except InputError as error:
        _fail(_in_words_of_user(error))
    except KeyboardInterrupt:
        _fail(INTERRUPTED, code=130)
    except InterruptedSearchError as error:
        _fail(str(error), code=130)
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        _fail(f"cannot use {error.filename or 'the disk'}: {error.strerror or error}")
    except Exception as error:
        _fail_for(error)
        raise


def _in_words_of_user(error: InputError) -> str:
    """Return a user's error, in which a run at a URI is called by it and not by its local copy."""
    from stepfront.search.storage.mirror import NotUploadedError
    from stepfront.search.storage.run_location import named_by_uri

    return str(error) if isinstance(error, NotUploadedError) else named_by_uri(str(error))


def _fail_for(error: Exception) -> None:
    """Fail with one line for errors of libraries that have one; return for all others."""
    # typer raises click's errors, and may bring a click of its own: the attributes tell, not the class.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        _fail(error.format_message(), code=error.exit_code)
    if type(error).__name__ == "Abort":  # typer's name for Ctrl-C
        _fail(INTERRUPTED, code=130)
    if type(error).__name__ == "StorageInternalError":
        _fail(f"cannot read the search's storage: {error.__cause__ or error}")


def _fail(message: str, code: int = 2) -> None:
    sys.stdout.flush()
    print(f"stepfront: {' '.join(message.split())}", file=sys.stderr)
    sys.stderr.flush()
    sys.exit(code)
