"""Headers and trials as journals have them, made by hand."""

from nas.evaluation.evaluators import SPEED
from nas.options import definition
from nas.options.definition import Definition
from nas.runs import journal
from nas.study.metrics import ACCURACY, COUNTED, by_name
from nas.study.trial import CompletedTrial, InfeasibleTrial
from trainers.measurement import Seconds


def header(options=None, **changes):
    """Returns the header of a search with such options."""
    options = options or Definition()
    weighed = definition.objective(options)
    found = (ACCURACY, SPEED, *COUNTED)
    facts = {
        "kind": "search",
        "created": 1.7e9,
        "num_trials": 10,
        "definition": definition.to_json(options),
        "metrics": found if weighed.name in by_name(found) else (*found, weighed),
        "objectives": definition.objectives(options, (ACCURACY, SPEED)),
        "dataset": "digits",
        "versions": {},
    }
    return journal.Header(**facts | changes)


def completed(index, *, metrics=(), **changes):
    """Returns a measured trial; `metrics` besides or instead of the usual ones."""
    measured = {
        "accuracy": 0.5,
        "images_per_second": 100.0,
        "num_macs": 300_000_000,
        "num_params": 4_000_000,
    }
    facts = {
        "index": index,
        "asked": index + 1,
        "tokens": (0,),
        "metrics": measured | dict(metrics),
        "finished": 1.7e9 + index,
        "reward": 0.5,
        "losses": (2.0, 1.0),
        "num_steps": 2,
        "seconds": Seconds(compile=1.0, train=1.0, eval=1.0),
    }
    return CompletedTrial(**facts | changes)


def infeasible(index, reason, **changes):
    """Returns a trial that was not measured."""
    facts = {
        "index": index,
        "asked": index + 1,
        "tokens": (0,),
        "metrics": {"num_macs": 300_000_000, "num_params": 4_000_000},
        "finished": 1.7e9 + index,
    }
    return InfeasibleTrial(**facts | changes, infeasible=reason)


def write(folder, trials, **changes):
    """Writes a journal into a run's folder."""
    journal.create(folder.journal, header(**changes))
    add(folder, trials)


def add(folder, trials):
    """Adds trials to the journal in a run's folder."""
    contents = journal.read(folder.journal)
    with journal.Writer(folder.journal, contents) as writer:
        for trial in trials:
            writer.append(trial)
