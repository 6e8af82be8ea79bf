"""Reading a configuration as YAML, with one line for each thing in it that would be misread in silence.

Numbers are those of YAML 1.2 (`1e-3` is one, `1:30` and `010` are texts) and dates are texts; the rest is as PyYAML
reads it. Keys that stand twice, documents behind the first and anchors that contain themselves are refused.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_LARGEST = 50_000
"""Values of a document, each counted as often as an anchor repeats it."""
_DEPTH = 50


_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+)$")
_FLOAT = re.compile(
    r"^[-+]?(?:(?:0|[1-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)


def plain_loader(base: Any) -> Any:
    """A loader like `base` (yaml.SafeLoader or CSafeLoader) that takes numbers and dates as this module says."""

    class Loader(base):  # type: ignore[misc]
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [pair for pair in pairs if pair[0].rpartition(":")[2] not in ("int", "float", "timestamp")]
            for first, pairs in base.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
    return Loader


def _construct_int(loader: Any, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)).replace("_", ""), 0)


_Loader = plain_loader(yaml.SafeLoader)


def read(text: str) -> tuple[Any, list[str]]:
    """The document in `text` as plain data (None: it is empty), and what is wrong with it, one line each.

    If anything is, the data is None.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        problems = [] if node is None else _Walk().problems(node)
        return (None, problems) if problems or node is None else (loader.construct_document(node), [])
    except yaml.MarkedYAMLError as error:
        return None, [_in_one_line(error)]
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        return None, [f"cannot be read: {' '.join(str(error).split())}"]
    except RecursionError:
        return None, ["cannot be read: it is nested too deeply"]


def _in_one_line(error: yaml.MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem or error.context).split())
    mark = error.problem_mark or error.context_mark
    if "another document" in problem:
        problem = "another document begins here; a configuration is one document"
    elif r"'\t'" in problem:
        problem += "; indent with spaces"
    return f"cannot be read: line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


class _Walk:
    """Goes through the nodes of a document, repeated ones as often as they stand there."""

    def __init__(self) -> None:
        self._seen = 0
        self._found: list[str] = []

    def problems(self, node: yaml.Node) -> list[str]:
        """What is wrong below `node`, one line each."""
        self._visit(node, "", ())
        return self._found

    def _visit(self, node: yaml.Node, path: str, above: tuple[int, ...]) -> None:
        self._seen += 1
        if self._found and self._found[-1].startswith("the document"):
            return
        if self._seen > _LARGEST or len(above) > _DEPTH:
            self._found.append(f"the document holds more than {_LARGEST} values, or {_DEPTH} levels of them")
        elif id(node) in above:
            self._found.append(f"{path}: is an anchor that contains itself (line {node.start_mark.line + 1})")
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._visit(item, f"{path}[{index}]", (*above, id(node)))
        elif isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, path, (*above, id(node)))

    def _visit_mapping(self, node: yaml.MappingNode, path: str, above: tuple[int, ...]) -> None:
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._found.append(f"{path or 'the document'}: a key (line {line}) is not a text")
                continue
            here = f"{path}.{key.value}" if path else str(key.value)
            if (key.tag, key.value) in lines:
                first = lines[key.tag, key.value]
                self._found.append(f"{here}: stands twice (lines {first} and {line}); keep one")
            lines.setdefault((key.tag, key.value), line)
            self._visit(value, path if key.tag.endswith(":merge") else here, above)
