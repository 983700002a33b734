"""Writes the cluster files from settings.toml: `python -m experiments.cluster.render`.

The files go to cluster/ (or --output DIR): `gpu.yaml` and `tpu.yaml` for `ray up`,
`gpu-rayjob.yaml` and `tpu-rayjob.yaml` for KubeRay, and the Containerfile of the image
that all of them run. docs/cluster.md goes through them.
"""

import dataclasses
import string
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import tyro

from nas.options import command_line

_HERE = Path(__file__).parent
SETTINGS = _HERE / "settings.toml"
_PROGRAM = "experiments.cluster.render"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write the cluster files from the settings."""

    settings: Path = SETTINGS
    """TOML file with a value for every placeholder."""
    output: Path = Path("cluster")
    """Folder for the files."""


def render(settings: Path) -> dict[str, str]:
    """Returns the text of each file by its name.

    Raises:
      ValueError: if the settings are no TOML, lack a value or have one too many.
      OSError: if they cannot be read.
    """
    values = tomllib.loads(settings.read_text(encoding="utf-8"))
    templates = {
        path.name: string.Template(path.read_text(encoding="utf-8"))
        for path in sorted((_HERE / "templates").iterdir())
    }
    wanted = {n for t in templates.values() for n in t.get_identifiers()}
    if wanted != set(values):
        raise ValueError(
            f"the settings must be those of {SETTINGS}; {settings} lacks "
            f"{', '.join(sorted(wanted - set(values))) or 'nothing'}, and has besides "
            f"{', '.join(sorted(set(values) - wanted)) or 'nothing'}"
        )
    return {name: t.substitute(values) for name, t in templates.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, or 2 if it cannot be done."""
    parsed = tyro.cli(Arguments, args=arguments, prog=f"python -m {_PROGRAM}")
    try:
        files = render(parsed.settings)
        parsed.output.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (parsed.output / name).write_text(text, encoding="utf-8")
    except (ValueError, OSError) as error:
        return command_line.print_error(_PROGRAM, error, 2)
    print(f"Written to {parsed.output}: {', '.join(files)}")
    if "PROJECT" in files["gpu.yaml"]:
        print(f"They name no project of yours yet: edit {parsed.settings}, run again")
    print("Next        docs/cluster.md: the image, a token, then one of")
    print(f"            ray up {parsed.output / 'gpu.yaml'}")
    print(f"            kubectl apply -f {parsed.output / 'gpu-rayjob.yaml'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
