"""Every value of the chart is in its README, every name in there is a value, the schema knows both."""

import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parents[2] / "helm/beseda"

# Objects of Kubernetes' own, which its documents explain.
FREE = {"resources", "affinity"}


def leaves(value, schema, path=""):
    """Paths of the values; objects of free form are one."""
    for key, inner in value.items():
        known = schema["properties"][key]
        if isinstance(inner, dict) and "properties" in known and key not in FREE:
            yield from leaves(inner, known, f"{path}{key}.")
        else:
            yield path + key


values = yaml.safe_load((CHART / "values.yaml").read_text())
schema = json.loads((CHART / "values.schema.json").read_text())
wanted = set(leaves(values, schema))
rows = re.findall(r"^\| `([^|]*)` \|", (CHART / "README.md").read_text(), re.MULTILINE)
found = {name for row in rows for name in row.split("`, `")}
problems = [f"not in the README: {name}" for name in sorted(wanted - found)]
problems += [f"no such value: {name}" for name in sorted(found - wanted)]
print("\n".join(problems), end="\n" if problems else "")
sys.exit(1 if problems else 0)
