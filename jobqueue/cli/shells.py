"""What a shell's TAB is answered with: click's scripts and words, but for what bash takes apart.

In bash `app:jobs`, `sqlite:///file.db` and `--queue=mail` are several words each, so its script
hands over the line up to the cursor instead. The scripts of zsh and fish are click's.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from jobqueue.cli.streams import echo

VARIABLE = "_JOBQUEUE_COMPLETE"
"""Where the shell that asks for what completes a line says its name."""

LINE, BREAKS = "_JOBQUEUE_LINE", "_JOBQUEUE_BREAKS"

BASH = """\
_jobqueue_completion() {
    local kind value
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            file) compopt -o default 2>/dev/null ||
                while IFS= read -r value; do COMPREPLY+=("$value"); done < <(compgen -f -- "$2") ;;
            dir) compopt -o dirnames 2>/dev/null ||
                while IFS= read -r value; do COMPREPLY+=("$value"); done < <(compgen -d -- "$2") ;;
        esac
    done < <(_JOBQUEUE_LINE="${COMP_LINE:0:COMP_POINT}" _JOBQUEUE_BREAKS="$COMP_WORDBREAKS" \\
        _JOBQUEUE_COMPLETE=bash_complete "${1/#\\~/$HOME}" 2>/dev/null </dev/null)
}
complete -o nosort -F _jobqueue_completion jobqueue 2>/dev/null ||
    complete -F _jobqueue_completion jobqueue
"""


class _WholeWords(ShellComplete):
    """Keeps `--option=` before a value, for shells where both are one word."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        items = super().get_completions(args, incomplete)
        option, equals, _ = incomplete.partition("=")
        if equals and option.startswith("--") and "--" not in args:
            for item in items:
                item.value = f"{option}={item.value}"
        return items


class _Bash(_WholeWords):
    name = "bash"

    def source(self) -> str:
        return BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        # With a letter more, the last word is there also where it is empty, or in open quotes.
        *words, last = split_arg_string(os.environ.get(LINE, "") + "x")
        return words[1:], last[:-1]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        # bash completes what stands behind the last of its breaks.
        word = self.get_completion_args()[1]
        breaks = [word.rfind(character) for character in os.environ.get(BREAKS, "\"'=:")]
        return f"{item.type},{item.value[max(breaks) + 1 :]}"


class _Zsh(_WholeWords, ZshComplete): ...


class _Fish(_WholeWords, FishComplete): ...


SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def script(root: click.Command, shell: str) -> str:
    """Return the script that sets a shell up."""
    return SHELLS[shell](root, {}, "jobqueue", VARIABLE).source().strip() + "\n"


def answer(root: click.Command, program: str) -> int | None:
    """Print the words that fit where the cursor is; return the exit code, None without a TAB."""
    shell, _, request = os.environ.get(VARIABLE, "").partition("_")
    if shell not in SHELLS or request != "complete":
        return None
    # What the app prints while it is imported would stand in the line that somebody types.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        words = SHELLS[shell](root, {}, program, VARIABLE).complete()
    if words:
        echo(words)
    return 0
