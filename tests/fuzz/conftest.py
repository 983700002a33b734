"""The material that is damaged, made once."""

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from tests.fuzz import harness, material
from tests.fuzz.material import Bench


@pytest.fixture(scope="module")
def stubs() -> Iterator[harness.Stubs]:
    """Without training and Ray; JAX's settings are put back."""
    made = harness.Stubs()
    platforms, cache = jax.config.jax_platforms, jax.config.jax_compilation_cache_dir
    with pytest.MonkeyPatch.context() as patch:
        made.install(patch)
        yield made
    jax.config.update("jax_platforms", platforms)
    jax.config.update("jax_compilation_cache_dir", cache)


@pytest.fixture(scope="module")
def bench(stubs, tmp_path_factory) -> Iterator[tuple[Bench, Path]]:
    """Whole material, a place to try it in, and surroundings that must not change."""
    top = tmp_path_factory.mktemp("fuzz")
    surroundings = top / "surroundings"
    for folder in ("home", "secrets"):
        (surroundings / folder).mkdir(parents=True)
        (surroundings / folder / "mine").write_text("mine\n")
    whole, place = top / "whole", top / "in" / "here"
    whole.mkdir()
    place.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(surroundings / "home"))
        patch.setenv("MBCONV_NAS_CACHE", str(top / "cache"))
        patch.chdir(whole)
        material.make(whole, stubs)
        patch.chdir(place)
        yield Bench(whole=whole, place=place), surroundings
