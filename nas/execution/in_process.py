"""A session's children evaluated one after another, in the driver's own process.

For evaluators that take no time, such as predictions: no Ray, no workers.
"""

import os
import platform
from collections.abc import Callable

from nas.evaluation.evaluators import Evaluator
from nas.runs import journal
from nas.study.session import Session


def run(session: Session, evaluator: Evaluator, *, check: Callable[[], None]) -> None:
    """Evaluates the session's children until none is left.

    `check` is called after each; what it raises ends the search.

    Raises:
      OSError: if the journal cannot be written.
    """
    evaluate = evaluator.prepare()
    worker = journal.Worker(host=platform.node(), pid=os.getpid())
    while (job := session.next_job()) is not None:
        session.finish(job.index, evaluate(job.spec, job.seed), worker)
        check()
