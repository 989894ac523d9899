"""Writes the shells' completion files, when a package is built.

They hold no options: at each press of the key they ask the program itself, which
answers by click's own protocol.
"""

from __future__ import annotations

import sys
from pathlib import Path

# What people type: sshd alone runs byteback-receive.
PROGRAMS = (
    "byteback-backup",
    "byteback-clients",
    "byteback-prune",
    "byteback-replicate",
    "byteback-restore",
    "byteback-setup-client",
    "byteback-setup-client-receive",
    "byteback-setup-server",
    "byteback-snapshot",
    "byteback-status",
)
# Below share/, where each shell looks for what packages bring.
PLACES = {
    "bash": "bash-completion/completions/{program}",
    "zsh": "zsh/vendor-completions/_{program}",
    "fish": "fish/vendor_completions.d/{program}.fish",
}

# readline breaks words at colons, which snapshots have in their names, and at some
# others. So the words are put together again, and of what is offered only that is given
# back which stands behind the last such break.
_BASH = """\
{function}() {{
    local words=() rest=$COMP_LINE index=0 i answer type value current stem breaks
    for ((i = 0; i < ${{#COMP_WORDS[@]}}; i++)); do
        if ((i == 0)) || [[ $rest == [[:space:]]* ]]; then
            words+=("")
        fi
        words[-1]+=${{COMP_WORDS[i]}}
        rest=${{rest#"${{rest%%[![:space:]]*}}"}}
        rest=${{rest#"${{COMP_WORDS[i]}}"}}
        ((i != COMP_CWORD)) || index=$((${{#words[@]}} - 1))
    done
    current=${{words[index]}}
    [[ $current != --*=* ]] || current=${{current#*=}}
    breaks=${{COMP_WORDBREAKS//[^:=@]/}}
    stem=
    [[ -z $breaks ]] || stem=${{current%"${{current##*[$breaks]}}"}}
    COMPREPLY=()
    answer=$(COMP_WORDS="${{words[*]}}" COMP_CWORD=$index \\
        {variable}=bash_complete "$1" 2>/dev/null)
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$(printf %q "${{value#"$stem"}}")") ;;
        esac
    done <<<"$answer"
}}

complete -o nosort -F {function} {program}
"""
# The file is run at the first press of the key, which must complete already, or is
# sourced by who has no fpath. What stands before a "=" is none of the values' business.
_ZSH = """\
#compdef {program}

{function}() {{
    local -a answer plain described
    local type value description
    answer=("${{(@f)$(COMP_WORDS="${{words[*]}}" COMP_CWORD=$((CURRENT - 1)) \\
        {variable}=zsh_complete {program} 2>/dev/null)}}")
    [[ $PREFIX != --*=* ]] || compset -P 1 '*='
    for type value description in $answer; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain)
                if [[ $description == _ ]]; then
                    plain+=("$value")
                else
                    described+=("$value:$description")
                fi ;;
        esac
    done
    (( ! $#described )) || _describe -V unsorted described
    (( ! $#plain )) || compadd -V unsorted -a plain
}}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    {function} "$@"
else
    compdef {function} {program}
fi
"""
# The description behind the tab may have commas.
_FISH = """\
function {function}
    set -l option (string match --regex -- '^--[^=]+=' (commandline -ct))
    for answer in (env {variable}=fish_complete COMP_WORDS=(commandline -cp) \\
            COMP_CWORD=(commandline -ct) {program} 2>/dev/null)
        set -l parts (string split --max 1 , -- $answer)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                printf '%s\\n' "$option$parts[2]"
        end
    end
end

complete --no-files --command {program} --arguments "({function})"
"""
_FILES = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def format_completion(program: str, shell: str) -> str:
    """The text of one completion file."""
    name = program.replace("-", "_")
    return _FILES[shell].format(
        program=program,
        function=f"_{name}_completion",
        variable=f"_{name.upper()}_COMPLETE",  # as click makes it of the program's name
    )


def write_all(share: Path) -> None:
    """Write the files of every program for every shell below ``share``."""
    for shell, place in PLACES.items():
        for program in PROGRAMS:
            path = share / place.format(program=program)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(format_completion(program, shell), encoding="utf-8")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
