"""What a shell's TAB is answered with: the script for each shell, and the words that fit.

click finds what may stand at the cursor. Ours are the scripts, because those of click take apart
what bash does: `app:jobs`, `sqlite:///file.db` and `--queue=mail` are one word each here. All three
hand over the line up to the cursor.
"""

import os
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete, split_arg_string

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
        _JOBQUEUE_COMPLETE=bash "${1/#\\~/$HOME}" 2>/dev/null </dev/null)
}
complete -o nosort -F _jobqueue_completion jobqueue 2>/dev/null ||
    complete -F _jobqueue_completion jobqueue
"""

ZSH = """\
#compdef jobqueue
_jobqueue() {
    local kind value help
    local -a bare described
    while IFS= read -r kind && IFS= read -r value && IFS= read -r help; do
        case $kind in
            plain) if [[ -n $help ]]; then
                    described+=("${value//:/\\\\:}:$help")
                else
                    bare+=("$value")
                fi ;;
            file) compset -P '--*='; _files; return ;;
            dir) compset -P '--*='; _files -/; return ;;
        esac
    done < <(_JOBQUEUE_LINE="${(j: :)words[1,CURRENT]}" _JOBQUEUE_COMPLETE=zsh \\
        ${(Q)${~words[1]}} 2>/dev/null </dev/null)
    (( $#described )) && _describe -V jobqueue described
    (( $#bare )) && compadd -V jobqueue -a bare
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _jobqueue "$@"
else
    compdef _jobqueue jobqueue
fi
"""

FISH = """\
function __jobqueue_complete
    set -l line (commandline -cp | string collect)
    env _JOBQUEUE_LINE=$line _JOBQUEUE_COMPLETE=fish jobqueue 2>/dev/null </dev/null |
    while read -l -d , kind value
        switch $kind
            case plain
                echo $value
            case file
                set -l option (string match -r -- '^--[^=]*=' (commandline -ct))
                __fish_complete_path (string replace -- "$option" '' (commandline -ct)) |
                    string replace -r -- '^' "$option"
            case dir
                set -l option (string match -r -- '^--[^=]*=' (commandline -ct))
                __fish_complete_directories (string replace -- "$option" '' (commandline -ct)) |
                    string replace -r -- '^' "$option"
        end
    end
end
complete --command jobqueue --no-files --arguments '(__jobqueue_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


class _Line(ShellComplete):
    """Completes the last word of a line, whatever shell it is in."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one to complete, and that one."""
        # With a letter more, the last word is there also where it is empty, or in open quotes.
        *words, last = split_arg_string(os.environ.get(LINE, "") + "x")
        return words[1:], last[:-1]

    def complete(self) -> str:
        """The words that fit, one in each line or three."""
        args, word = self.get_completion_args()
        option, equals, _ = word.partition("=")
        before = option + equals if equals and option.startswith("--") and "--" not in args else ""
        items = self.get_completions(args, word)
        return "".join(self._shown(item, before, word) + "\n" for item in items)

    def _shown(self, item: CompletionItem[Any], before: str, word: str) -> str:
        raise NotImplementedError


class _Bash(_Line):
    name = "bash"

    def _shown(self, item: CompletionItem[Any], before: str, word: str) -> str:
        # bash completes what stands behind the last of its breaks.
        breaks = [word.rfind(character) for character in os.environ.get(BREAKS, "\"'=:")]
        return f"{item.type},{(before + str(item.value))[max(breaks) + 1 :]}"


class _Zsh(_Line):
    name = "zsh"

    def _shown(self, item: CompletionItem[Any], before: str, _word: str) -> str:
        return f"{item.type}\n{before}{item.value}\n{_one_line(item.help)}"


class _Fish(_Line):
    name = "fish"

    def _shown(self, item: CompletionItem[Any], before: str, _word: str) -> str:
        help_ = _one_line(item.help)
        return f"{item.type},{before}{item.value}" + (f"\t{help_}" if help_ else "")


_SHELLS: dict[str, type[_Line]] = {shell.name: shell for shell in (_Bash, _Zsh, _Fish)}


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def answer(root: click.Command, program: str, shell: str) -> int:
    """Print the words that fit where the cursor is; returns the exit code."""
    stdout = sys.stdout  # While the app is imported, what it prints goes elsewhere.
    stdout.write(_SHELLS[shell](root, {}, program, VARIABLE).complete())
    stdout.flush()
    return 0
