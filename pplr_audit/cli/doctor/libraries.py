"""The package, what it needs, what it can use, and the plugins that are installed, as their metadata tell it."""

import re
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from pplr_audit import __version__
from pplr_audit.cli.doctor.check import Check, State, Trial
from pplr_audit.scenario import plugins as installed

if TYPE_CHECKING:
    from packaging.requirements import Requirement


NAME = "pplr-audit"
MAIN_JOB = "pplr_audit.pipeline"
NOT_SHOWN = ("all", "dev", "test")
"""Extras that are for developers, or only sum up others."""
_MODULES = {"scikit-learn": "sklearn", "pyyaml": "yaml"}
"""Modules that are not called as their package is, by package."""


def package() -> Check:
    """Ourselves. What runs from a source folder alone has no plugins, since these are found by what is installed."""
    try:
        installed = metadata.version(NAME)
    except metadata.PackageNotFoundError:
        return Check("versions", NAME, "failed", f"{__version__}, not installed", "pip install . in its source folder")
    if installed != __version__:
        found = f"{__version__} runs, {installed} is installed"
        return Check("versions", NAME, "warning", found, "install it again: pip install .")
    return Check("versions", NAME, "ok", installed)


def needed(trial: Trial) -> Iterator[Check]:
    """Each required library: its version, whether that is accepted and it imports; then the main job as a whole."""
    bad = _version("packaging") is None
    if bad:
        yield Check(
            "versions", "packaging", "failed", "not installed: no version can be checked", "pip install packaging"
        )
    for requirement in _requirements(""):
        check = _library("versions", requirement, "failed")
        error = trial.errors.get(_module(requirement.name), "")
        if check.state == "ok" and error:
            advice = f"pip install --force-reinstall {_quoted(requirement)}"
            check = Check("versions", requirement.name, "failed", f"{check.found} does not import: {error}", advice)
        bad = bad or check.state != "ok"
        yield check
    error = trial.errors.get(MAIN_JOB, "")
    if error and not bad:
        yield Check(
            "versions", "the main job", "failed", f"does not import: {error}", f"pip install --force-reinstall {NAME}"
        )


def plugins(trial: Trial) -> Iterator[Check]:
    """Each kind of plugin, each one that does not import, and each name that several packages have."""
    for kind in installed.KINDS:
        points = installed.points(kind)
        claims = Counter(point.name for point in points)
        working = [p.name for p in points if not trial.errors.get(p.value) and claims[p.name] == 1]
        none = not points and kind != "defenses"
        advice = f"install the package again: pip install {NAME}" if none else ""
        yield Check("plugins", kind, "failed" if none else "ok", ", ".join(working) or "none", advice)
        for point in points:
            error = trial.errors.get(point.value)
            if error:
                owner = point.dist.name if point.dist is not None else "unknown package"
                ours = owner == NAME
                found = f"{point.value} of {owner} does not import: {error}"
                advice = f"pip install --force-reinstall {owner}" + ("" if ours else f", or pip uninstall {owner}")
                yield Check("plugins", f"{kind}: {point.name}", "failed" if ours else "warning", found, advice)
        yield from (_claimed_twice(kind, name) for name, times in claims.items() if times > 1)
    for owner, wrong in installed.broken_packages().items():
        yield Check("plugins", owner, "warning", wrong, f"pip install --force-reinstall {owner}")


def _claimed_twice(kind: installed.Kind, name: str) -> Check:
    """Nobody's plugin of that name can be used; where one of them is ours, what ships needs it."""
    owners = [point.dist.name for point in installed.points(kind) if point.name == name and point.dist is not None]
    advice = " or ".join(f"pip uninstall {owner}" for owner in owners if owner != NAME)
    found = installed.refusal(kind, name, kind) or ""
    return Check("plugins", f"{kind}: {name}", "failed" if NAME in owners else "warning", found, advice)


def extras() -> Iterator[Check]:
    """Each optional extra: what of it is installed, and how to get the rest."""
    try:
        names = metadata.metadata(NAME).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return
    for extra in sorted(set(names) - set(NOT_SHOWN)):
        checks = [_library("extras", requirement, "optional") for requirement in _requirements(extra)]
        missing = [check for check in checks if check.state != "ok"]
        found = ", ".join(f"{check.name} {check.found}" for check in checks)
        advice = f"pip install '{NAME}[{extra}]'" if missing else ""
        yield Check("extras", extra, "optional" if missing else "ok", found, advice)


def modules_needed() -> list[str]:
    """The modules of the required libraries that are installed, torch first since others wait for it."""
    found = [r.name for r in _requirements("") if _version(r.name) is not None]
    return [_module(name) for name in sorted(found, key=lambda name: name != "torch")]


def _library(group: str, requirement: "Requirement", otherwise: State) -> Check:
    """A library by its metadata alone; ``otherwise`` is its state where it is not there or too old or new."""
    version = _version(requirement.name)
    advice = f"pip install {_quoted(requirement)}"
    if version is None:
        return Check(group, requirement.name, otherwise, "not installed", advice)
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(group, requirement.name, otherwise, f"{version}, but {requirement.specifier} is needed", advice)
    return Check(group, requirement.name, "ok", version)


def _version(name: str) -> str | None:
    try:
        # A folder that was left behind by a broken installation has a name and no version.
        return metadata.version(name) or None
    except (metadata.PackageNotFoundError, KeyError, TypeError):
        return None


def _requirements(extra: str) -> "list[Requirement]":
    """Return the package's requirements for ``extra`` (empty: for the main job) on this machine."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # `needed` says so
        return []
    try:
        told = [Requirement(text) for text in metadata.requires(NAME) or []]
    except metadata.PackageNotFoundError:
        return []
    always = [r for r in told if r.marker is None or r.marker.evaluate({"extra": ""})]
    if not extra:
        return always
    return [r for r in told if r not in always and r.marker is not None and r.marker.evaluate({"extra": extra})]


def _module(name: str) -> str:
    return _MODULES.get(name.lower(), re.sub(r"[-.]+", "_", name))


def _quoted(requirement: "Requirement") -> str:
    return f"'{requirement.name}{requirement.specifier}'"
