"""Modules that have moved: their old names go on working for one release, with a DeprecationWarning.

Standard library only, and nothing is imported before an old name is asked for. Names are those below the package.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

MOVED = {
    "inference_proc.handler": "inference_proc.web.generic_protocol",
    "inference_proc.json_response": "inference_proc.web.json_response",
    "inference_proc.limits": "inference_proc.web.limits",
    "inference_proc.metric_families": "shared.telemetry.metric_families",
    "inference_proc.metrics_page": "reference.metrics",
    "inference_proc.prometheus": "inference_proc.web.endpoints.prometheus",
    "inference_proc.server": "inference_proc.web.service",
    "inference_proc.subscriber": "inference_proc.live_model",
    "shared.arrays": "shared.memory.arrays",
    "shared.batcher": "shared.messages.batcher",
    "shared.checkpoints": "shared.weights.checkpoints",
    "shared.config": "shared.configuration.config",
    "shared.config_page": "reference.settings",
    "shared.control": "shared.memory.control",
    "shared.envelope": "shared.messages.envelope",
    "shared.experience": "shared.experiences.experience",
    "shared.lane": "shared.experiences.lane",
    "shared.layout": "shared.memory.layout",
    "shared.layout_page": "reference.shared_memory",
    "shared.metrics": "shared.telemetry.training_metrics",
    "shared.model_check": "shared.model_checks.check",
    "shared.parameter_arrays": "shared.weights.parameter_arrays",
    "shared.pending": "shared.experiences.pending",
    "shared.processes": "shared.memory.processes",
    "shared.records": "shared.experiences.records",
    "shared.sampler": "shared.experiences.sampler",
    "shared.segments": "shared.memory.segments",
    "shared.settings": "shared.configuration.settings",
    "shared.stats": "shared.telemetry.stats",
    "shared.strategies": "shared.experiences.strategies",
    "supervisor.examine": "supervisor.setup.doctor",
    "supervisor.needs": "supervisor.setup.memory_budget",
    "supervisor.view": "supervisor.display.status",
    "trainer_proc.guard": "trainer_proc.guards.publish_guard",
}


class Finder:
    """Finds the old names, after everybody else has looked."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The specification of a module that has moved, or None."""
        package, _, inner = name.partition(".")
        if package != __package__ or inner not in MOVED:
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, _Alias(f"{package}.{MOVED[inner]}"))  # type: ignore[arg-type]


class _Alias:
    """Loads a module that holds the names of another: the same objects, under the old name too."""

    def __init__(self, place: str) -> None:
        self._place = place

    def create_module(self, spec: ModuleSpec) -> None:
        """As usual: an empty one."""

    def exec_module(self, module: ModuleType) -> None:
        """Take over the names, and say where they are now."""
        from importlib import import_module

        self._warn(module.__name__)
        found = import_module(self._place)
        module.__doc__ = found.__doc__
        vars(module).update({name: value for name, value in vars(found).items() if not name.startswith("__")})

    def get_code(self, name: str) -> CodeType:
        """For `python -m` with the old name: run the module where it is now."""
        self._warn(name)
        run = f"runpy.run_module({self._place!r}, run_name='__main__', alter_sys=True)"
        return compile(f"import runpy\n{run}\n", name, "exec")

    def _warn(self, name: str) -> None:
        import warnings

        text = f"{name} is {self._place} now; the old name goes with the next release"
        # Frames of the import machinery are not counted: it is the importer's line that is shown.
        warnings.warn(text, DeprecationWarning, stacklevel=3)
