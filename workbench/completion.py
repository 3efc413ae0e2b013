"""Shell completion: scripts for bash, zsh and fish, made from the options themselves."""

import argparse

BASH = """_compute_alike() {
  local word=${COMP_WORDS[COMP_CWORD]} words
  case ${COMP_WORDS[1]} in
%s
    *) words="%s" ;;
  esac
  COMPREPLY=()
  if [[ $word == -* || $COMP_CWORD == 1 ]]; then COMPREPLY=($(compgen -W "$words" -- "$word")); fi
}
complete -o default -F _compute_alike compute-alike
"""
SHELLS = ("bash", "zsh", "fish")


def script(root: argparse.ArgumentParser, shell: str) -> str:
    """The completion script of a shell, a name of SHELLS; files complete where no option is begun."""
    commands = options_of(root)
    if shell == "fish":
        lines = [f"complete -c compute-alike -n __fish_use_subcommand -a '{' '.join(commands)}'"]
        for command, options in commands.items():
            seen = f"-n '__fish_seen_subcommand_from {command}'"
            lines += [f"complete -c compute-alike {seen} -l {one[2:]}" for one in options if one.startswith("--")]
        return "\n".join(lines) + "\n"
    cases = "\n".join(f'    {command}) words="{" ".join(options)}" ;;' for command, options in commands.items())
    before = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return before + BASH % (cases, " ".join([*commands, "--version", "--help"]))


def options_of(root: argparse.ArgumentParser) -> dict[str, list[str]]:
    """The options of each command."""
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {
                name: sorted({option for one in command._actions for option in one.option_strings})
                for name, command in action.choices.items()
            }
    return {}
