"""A family: a baseline's scaled members, what they cost, and their files.

A family's folder holds a JSON file for each member, which anything that takes an
architecture accepts; family.json, which lists them; and family.html.
"""

import dataclasses
import json
import statistics
import types
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from nas.options.quantity import format_bytes, format_flops
from nas.options.scaling import (
    OPTIMIZER_SLOTS,
    FamilyDefinition,
    members_asked,
)
from nas.runs import provenance
from nas.runs.run_folder import RunFolder
from nas.scaling.network_list import spread
from search_space import codec, compound, cost, files, memory
from search_space.compound import Coefficients
from search_space.scaling import PRESETS, apply_preset
from search_space.spec import ArchSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """A network of a family.

    `label` names its file; `phi` is None for a preset's. `accuracies` are those of
    its children, where it was trained.
    """

    label: str
    spec: ArchSpec
    phi: float | None
    accuracies: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """Members in the order asked for; `coefficients` is None for a preset's.

    `found` is how the coefficients were found, for people.
    """

    definition: FamilyDefinition
    coefficients: Coefficients | None
    found: str
    members: tuple[Member, ...]


def from_preset(definition: FamilyDefinition, preset: str) -> Family:
    """Returns the baseline scaled by each row of a table of `scaling.PRESETS`.

    Raises:
      ValueError: if a row makes a network that cannot exist.
    """
    presets, base = PRESETS[preset], definition.base
    members = []
    for name in presets.rows:
        label = name.rpartition("-")[2]
        # The baseline of the table itself gets the published names.
        own = name if base.name in presets.rows else f"{base.name}-{label}"
        spec = apply_preset(presets, name, base)
        members.append(
            Member(label=label, spec=dataclasses.replace(spec, name=own), phi=None)
        )
    return Family(
        definition=definition,
        coefficients=None,
        found=f"the published rows of {preset}",
        members=tuple(members),
    )


def from_coefficients(
    definition: FamilyDefinition,
    coefficients: Coefficients,
    *,
    found: str,
    accuracies: Mapping[float, Sequence[float]] = types.MappingProxyType({}),
) -> Family:
    """Returns the members that the definition asks for.

    `accuracies` are those that children had, by phi.

    Raises:
      ValueError: if a member cannot exist, or the baseline is beyond a target.
    """
    base, options = definition.base, definition.family
    phis = members_asked(options)
    if phis is None:
        phis = (0.0, _within_targets(definition, coefficients))
    members = tuple(
        Member(
            label=f"phi-{phi:g}",
            spec=compound.member(base, coefficients, phi, options.rules),
            phi=phi,
            accuracies=tuple(accuracies.get(phi, ())),
        )
        for phi in dict.fromkeys(phis)
    )
    return Family(
        definition=definition, coefficients=coefficients, found=found, members=members
    )


def memory_of(definition: FamilyDefinition, spec: ArchSpec) -> memory.Memory:
    """Returns what `spec` takes, as the options count memory."""
    options = definition.family
    if options.memory_for == "inference":
        return memory.inference(spec, batch_size=options.memory_batch)
    return memory.training(
        spec,
        batch_size=options.memory_batch,
        optimizer_slots=OPTIMIZER_SLOTS[definition.child.optimizer],
    )


def _within_targets(definition: FamilyDefinition, coefficients: Coefficients) -> float:
    options, base = definition.family, definition.base
    macs, held = cost.num_macs(base), memory_of(definition, base).total
    if options.target_flops is not None and macs > options.target_flops:
        raise ValueError(
            f"--target-flops must be at least the baseline's {format_flops(macs)}, got "
            f"{format_flops(options.target_flops)}; raise it, or scale a "
            "smaller network"
        )
    if options.target_memory is not None and held > options.target_memory:
        raise ValueError(
            f"--target-memory must be at least what the baseline takes, "
            f"{format_bytes(held)} for {options.memory_for} at a batch of "
            f"{options.memory_batch}, got {format_bytes(options.target_memory)}; raise "
            "it, or lower --memory-batch"
        )

    def fits(spec: ArchSpec) -> bool:
        return (
            options.target_flops is None or cost.num_macs(spec) <= options.target_flops
        ) and (
            options.target_memory is None
            or memory_of(definition, spec).total <= options.target_memory
        )

    return compound.largest_phi(base, coefficients, fits, options.rules)


def write(folder: RunFolder, family: Family) -> None:
    """Writes every member's file and family.json.

    Raises:
      OSError: if a file cannot be written.
    """
    rows = [_row(family, member) for member in family.members]
    for member, row in zip(family.members, rows, strict=True):
        found: dict[str, JsonValue] = {
            "family": family.found,
            **row,
            "versions": {**provenance.versions()},
        }
        text = codec.dumps(member.spec, found=found)
        files.write_whole(folder.path / row["file"], text)
    options = family.definition.family
    document = {
        "version": 1,
        "baseline": family.definition.base.name,
        "coefficients": family.coefficients and dataclasses.asdict(family.coefficients),
        "found": family.found,
        "memory": {
            "for": options.memory_for,
            "batch_size": options.memory_batch,
            "optimizer": family.definition.child.optimizer,
        },
        "members": rows,
        "versions": {**provenance.versions()},
        "git_commit": provenance.git_commit(),
    }
    files.write_whole(folder.family, json.dumps(document, indent=2) + "\n")


def _row(family: Family, member: Member) -> dict[str, Any]:
    spec, base = member.spec, family.definition.base
    trained = None
    if member.accuracies:
        trained = {
            "mean": statistics.fmean(member.accuracies),
            "standard_deviation": spread(member.accuracies),
            "children": len(member.accuracies),
        }
    return {
        "file": f"{member.label}.json",
        "name": spec.name,
        "phi": member.phi,
        "resolution": spec.resolution,
        "num_layers": sum(stage.repeats for stage in spec.stages),
        "num_macs": cost.num_macs(spec),
        "times_macs": cost.num_macs(spec) / cost.num_macs(base),
        "num_params": cost.num_params(spec),
        "memory_bytes": memory_of(family.definition, spec).total,
        "validation_accuracy": trained,
    }
