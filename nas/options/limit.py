"""The target of a search, taken as a limit."""

from nas.options import definition
from nas.options.definition import Definition
from nas.study.confirmation import Limit
from search_space import references


def limit_of(run: Definition) -> Limit | None:
    """Returns the target as a limit; None where the reward is the user's own."""
    if references.is_reference(run.reward.reward):
        return None
    return Limit(metric=definition.objective(run), value=definition.target(run))
