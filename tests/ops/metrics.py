"""Holds the dashboard and the rules against each other, and against the metrics of a live replica.

    metrics.py                 their expressions can be parsed, panels are where they should be
    metrics.py URL|FILE …      and every metric they name is there: in /metrics of at least one

Some series appear with their first event only, so the replicas should have had some traffic.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ROOT / "helm/beseda/files"
NAME = re.compile(r"(?<![:\w])((?:beseda|process)_[a-z0-9_]+)")


def expressions():
    for path in sorted(FILES.glob("rules/*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]
    board = json.loads((FILES / "dashboards/beseda.json").read_text())
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]


def check_expressions():
    """Prometheus parses them itself, with Grafana's variables filled in."""
    filled = []
    for number, (_, expression) in enumerate(expressions()):
        if expression.startswith("label_values("):
            continue
        plain = expression.replace("$__rate_interval", "5m")
        filled.append({"record": f"check:{number}", "expr": plain})
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"groups": [{"name": "check", "rules": filled}]}, file)
        file.flush()
        subprocess.run(["promtool", "check", "rules", file.name], check=True, stdout=subprocess.DEVNULL)
    return len(filled)


def check_dashboard():
    panels = json.loads((FILES / "dashboards/beseda.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels), "two panels with one id"
    cells = set()
    for panel in panels:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells and at["x"] + at["w"] <= 24, f"{panel['title']} is on top of another"
        cells |= own
        assert panel["type"] == "row" or panel["description"], f"{panel['title']} says nothing of itself"


def check_live(sources):
    served = set()
    for source in sources:
        if source.startswith("http"):
            with urllib.request.urlopen(source, timeout=10) as answer:
                text = answer.read().decode()
        else:
            text = pathlib.Path(source).read_text()
        served |= set(re.findall(r"^([a-z_0-9]+)(?:\{| )", text, re.MULTILINE))
    named = {}
    for where, expression in expressions():
        for name in NAME.findall(re.sub(r'"[^"]*"', '""', expression)):
            named.setdefault(name, set()).add(where)
    missing = {name: places for name, places in named.items() if name not in served}
    for name, places in sorted(missing.items()):
        print(f"no replica has {name}, named by: {', '.join(sorted(places))}")
    assert not missing, f"{len(missing)} of {len(named)} metrics are missing"
    print(f"metrics: all {len(named)} that rules and dashboard name are there")


count = check_expressions()
check_dashboard()
print(f"metrics: {count} expressions parsed")
if sys.argv[1:]:
    check_live(sys.argv[1:])
