"""A space of 4,096 networks that train on digits within a second."""

from functools import partial

from search_space.space import SearchSpace, StageChoices
from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem

SPACE = SearchSpace(
    name="tiny",
    base=ArchSpec(
        name="tiny",
        resolution=32,
        activation="relu",
        stem=Stem(channels=8),
        stages=(MBConvStage(channels=8, kernel=3, stride=2, expansion=1, repeats=1),),
        head=ClassifierHead(channels=None),
    ),
    stages=tuple(
        StageChoices(
            choices={"kernel": (3, 5), "expansion": (1, 2), "repeats": (1, 2)},
            build=partial(MBConvStage, channels=8, stride=stride),
        )
        for stride in (2, 1, 1, 1)
    ),
)
