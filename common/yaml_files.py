"""Reading YAML from untrusted sources: limits on nesting and repetition, no duplicate keys, every error a ValueError."""

from typing import Any

import yaml

MAX_VALUES = 10_000  # with every alias expanded
MAX_DEPTH = 30
STARTS = (
    *(yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken),
    *(yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken),
)
ENDS = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def parse_yaml(text: str) -> Any:
    """Plain values of a YAML document. Raises ValueError, saying what is wrong and where."""
    loader = None
    try:
        _check_depth(text)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, {})
        return loader.construct_document(node)
    except Exception as error:  # invalid dates and numbers, and whatever else a document can hold
        raise ValueError(" ".join(str(error).split())) from None
    finally:
        if loader:
            loader.dispose()


def _check_depth(text: str) -> None:
    """Limit the depth before parsing, since PyYAML's time grows with its square."""
    depth = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        depth += isinstance(token, STARTS) - isinstance(token, ENDS)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep{_line(token)}")


def _check(node: yaml.Node, sizes: dict[yaml.Node, int | None]) -> int:
    """Number of values below ``node``, each alias counted every time it is used.

    Raises ValueError for a value that contains itself, a key that is no text or is repeated, and too many values.
    """
    if node in sizes:
        if sizes[node] is None:
            raise ValueError(f"a value contains itself{_line(node)}")
        return sizes[node]
    sizes[node], size = None, 1
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for i, (key, _) in enumerate(node.value):
            if key.tag not in (TEXT, MERGE):
                raise ValueError(f"the key {key.value} is not text{_line(key)}")
            if key.value in keys[:i]:
                raise ValueError(f"the key {key.value} appears twice in one section; keep one of them{_line(key)}")
        size += sum(_check(value, sizes) for _, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check(value, sizes) for value in node.value)
    if size > MAX_VALUES:
        raise ValueError(f"it expands to more than {MAX_VALUES:,} values{_line(node)}")
    sizes[node] = size
    return size


def _line(node: yaml.Node | yaml.Token) -> str:
    return f" (line {node.start_mark.line + 1})"
