"""A study's trials evaluated one after another, in the driver's own process.

For evaluators that take no time, such as predictions: no Ray, no workers.
"""

import os
import platform
import traceback
from collections.abc import Callable

from nas.evaluation.evaluators import EvaluationError, Evaluator
from nas.evaluation.fidelity import prepare_from
from nas.study.study import Study
from nas.study.trial import Trial, Worker


def run(study: Study, evaluator: Evaluator, *, check: Callable[[], None]) -> None:
    """Evaluates the study's trials until none is left.

    `check` is called after each; what it raises ends the search.

    Raises:
      EvaluationError: if a trial ends in an exception. One line.
      OSError: if the journal cannot be written.
    """
    evaluate = prepare_from(evaluator)
    worker = Worker(host=platform.node(), pid=os.getpid())
    while (trial := study.next_trial()) is not None:
        try:
            outcome, weights = evaluate(
                trial.spec, trial.seed, trial.fidelity, trial.weights
            )
        except Exception as error:  # an evaluator may be anybody's, and raise anything
            raise EvaluationError(_explain(error, trial)) from error
        study.finish(trial, outcome, worker, weights)
        check()


def _explain(error: Exception, trial: Trial) -> str:
    """Returns the exception and where it came up, in one line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {' '.join(str(error).split())}".strip(" :")
    place = f"{os.path.basename(frame.filename)}, line {frame.lineno}, in {frame.name}"
    return (
        f"child {trial.index} ended in an exception, which is not the architecture's "
        f"fault: {what} ({place}); mend that, then go on"
    )
