"""The command `ore`: gathers the commands, and turns a `StartupError` into one sentence and exit status 2.

It knows nothing about what the commands do, and importing it loads nothing heavy, so that `ore --help` is quick.
"""

from typing import Any

import click

from ore import __version__
from ore.commands.bench import bench
from ore.commands.chat import chat
from ore.commands.config import config
from ore.commands.doctor import doctor
from ore.commands.models import models
from ore.commands.ps import ps
from ore.commands.responses import responses
from ore.commands.serve import serve
from ore.errors import StartupError


class _Refused(click.ClickException):
    exit_code = 2


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StartupError as error:
            raise _Refused(error.message) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="ore", message="%(prog)s %(version)s")
def cli() -> None:
    """ORE, the Open Responses Engine: the Open Responses API in front of every model you use.

    `ore serve` answers on http://127.0.0.1:8000 with the bundled model; no account, no key, no download.
    """


for command in (serve, chat, responses, models, ps, config, doctor, bench):
    cli.add_command(command)


def main() -> None:
    """The entry point. Leaves by `SystemExit`: 0 done, 1 failed, 2 wrong usage or settings."""
    cli(prog_name="ore")
