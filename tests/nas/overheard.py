"""A controller that writes down what it is told, as evidence for tests."""

import json
import os
from pathlib import Path

from nas import builder

VARIABLE = "OVERHEARD"  # names the file


class Overheard:
    """Passes everything on; each line of the file is a child: tokens and reward."""

    def __init__(self, controller, path):
        self._controller = controller
        self._file = path.open("w")
        self.num_choices = controller.num_choices

    def init(self, seed):
        return self._controller.init(seed)

    def ask(self, state, num):
        return self._controller.ask(state, num)

    def tell(self, state, tokens, rewards):
        for child in zip(tokens.tolist(), rewards.tolist(), strict=True):
            self._file.write(json.dumps(child) + "\n")
        self._file.flush()
        return self._controller.tell(state, tokens, rewards)


def listen():
    """Overhears the controllers of this process, if the variable is set."""
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    build = builder.controller.build
    builder.controller.build = lambda *names, **options: Overheard(
        build(*names, **options), Path(path)
    )
