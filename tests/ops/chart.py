"""Holds the chart against the real Helm 3 and 4, Kubernetes' schemas, a policy scanner, and chance.

    chart.py TOOLS [quick]    the folder that tests/ops/tools made

`quick` leaves out the Kubernetes versions between the oldest and the newest.
"""

import copy
import json
import pathlib
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml
from helm_python import Chart
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import sampled_from
from hypothesis_jsonschema import from_schema

import chart_fits

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/beseda"
TOOLS = pathlib.Path(sys.argv[1]).resolve()
HELMS = [TOOLS / "bin/helm3", TOOLS / "bin/helm4"]
VALUES = [*sorted((CHART / "ci").glob("*-values.yaml")), CHART / "values-ha.yaml"]
VERSIONS = [f"1.{minor}" for minor in range(25, 38)][:: 12 if "quick" in sys.argv else 1]
# How many random values are rendered; one takes some 50 ms.
EXAMPLES = 100 if "quick" in sys.argv else 300

# What the scanner finds and we mean as it is; of all resources, or of one kind.
ACCEPTED = {
    "CKV_K8S_8 Pod": "the test ends by itself",
    "CKV_K8S_9 Pod": "nobody asks the test for anything",
    "CKV_K8S_11": "no CPU limit: throttling would delay everybody's messages; the request guarantees a share",
    "CKV_K8S_15": "a fixed version needs no Always",
    "CKV_K8S_21": "the namespace is the release's; the scanner sees the default one",
    "CKV_K8S_35": "the load test has no way to take its secret from a file",
    "CKV_K8S_40": "999 is the user of the upstream images of `dev`",
    "CKV_K8S_43": "images by digest are the user's choice: image.digest",
    "CKV2_K8S_6": "tests and jobs are not held by the policy of replicas",
}

# Values that must be refused, and a word that the message must have.
REFUSED = [
    ({"replicas": 0}, "replicas"),
    ({"replica": 2}, "replica"),
    ({"config": {"deleteChat": "anybody"}}, "deleteChat"),
    ({"config": {"requestTimeout": "15"}}, "requestTimeout"),
    ({"config": {"databaseConnections": 3}}, "databaseConnections"),
    ({"config": {"allowedOrigins": ["https://app.example.com/path"]}}, "allowedOrigins"),
    ({"config": {"trustedProxies": ["proxy.example.com"]}}, "trustedProxies"),
    ({"jwt": {"existingSecret": "s", "leeway": "60s"}}, "leeway"),
    ({"image": {"digest": "latest"}}, "digest"),
    ({"podLabels": {"app.kubernetes.io/name": "other"}}, "app.kubernetes.io/name"),
    ({"postgres": {"existingSecret": ""}}, "postgres.existingSecret is missing"),
    ({"redis": {"existingSecret": ""}}, "redis.existingSecret is missing"),
    ({"jwt": {"existingSecret": ""}}, "jwt.existingSecret is missing"),
    ({"jwt": {"existingSecret": "", "kind": "jwks"}}, "jwt.jwksUrl is missing"),
    ({"jwt": {"kind": "jwks", "jwksUrl": "https://login.example.com/keys"}}, "no jwt.existingSecret"),
    ({"jwt": {"existingSecret": "", "kind": "jwks", "jwksUrl": "http://login.example.com"}}, "jwksUrl"),
    ({"jwt": {"jwksUrl": "https://login.example.com/keys"}}, "needs jwt.kind jwks"),
    ({"jwt": {"issuers": ["https://b.example=https://b.example/keys"]}}, "jwt.issuer is missing"),
    ({"jwt": {"issuers": ["https://b.example"]}}, "issuers"),
    ({"redis": {"ports": []}}, "ports"),
    (
        {"cloudnativepg": {"enabled": True}, "postgres": {"existingSecret": ""}, "migrations": {"existingSecret": "s"}},
        "migrations.existingSecret",
    ),
    (
        {"cloudnativepg": {"enabled": True}, "postgres": {"existingSecret": "", "caKey": "ca"}},
        "postgres.caKey",
    ),
    ({"redis": {"existingSecret": "", "caKey": "ca.crt"}}, "redis.caKey"),
    ({"shutdown": {"graceSeconds": 5, "drainDelaySeconds": 5}}, "drainDelaySeconds must be less"),
    ({"shutdown": {"terminationGracePeriodSeconds": 25}}, "at least 5 more"),
    ({"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}, "minReplicas"),
    ({"autoscaling": {"enabled": True, "engine": "keda"}}, "prometheusUrl"),
    ({"cloudnativepg": {"enabled": True}, "postgres": {"existingSecret": "s"}}, "not both"),
    ({"ingress": {"enabled": True}}, "ingress.hosts"),
    ({"probes": {"liveness": {"httpGet": {}}}}, "liveness"),
    ({"rollOnSecretChange": "sometimes"}, "rollOnSecretChange"),
    ({"loadTest": {"enabled": True, "image": "i"}}, "rateLimits"),
]


def say(text):
    print(f"chart: {text}", flush=True)


def run(*command, **options):
    return subprocess.run([str(word) for word in command], text=True, capture_output=True, **options)


def manifests(text):
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def is_custom(manifest):
    group = manifest["apiVersion"].split("/")[0]
    return "." in group and not group.endswith(".k8s.io") or group == "gateway.networking.k8s.io"


def check_custom(found):
    node = run("node", ROOT / "tests/ops/custom.mjs", TOOLS / "node", input=json.dumps(found))
    assert node.returncode == 0, node.stderr


def check_drain(manifest):
    """A pod's own grace is above the drain's."""
    if manifest["kind"] == "Deployment":
        assert manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 7


def check_names(found):
    names = [(m["kind"], m["metadata"]["name"]) for m in found]
    assert len(names) == len(set(names)), f"twice the same name: {names}"
    assert all(len(name) <= 63 for _, name in names), names


def check_files():
    for helm in HELMS:
        linted = run(helm, "lint", "--strict", CHART, "--values", CHART / "ci/minimal-values.yaml")
        assert linted.returncode == 0, linted.stdout + linted.stderr
        custom = []
        for values in VALUES:
            for version in VERSIONS:
                command = [helm, "template", "release", CHART, "--values", values]
                rendered = run(*command, "--kube-version", version)
                assert rendered.returncode == 0, f"{values.name}, {version}: {rendered.stderr}"
                found = manifests(rendered.stdout)
                check_names(found)
                for manifest in found:
                    check_drain(manifest)
                    if not is_custom(manifest):
                        kubernetes_validate.validate(manifest, version, strict=True)
            custom += [manifest for manifest in found if is_custom(manifest)]
        check_custom(custom)
        say(
            f"{helm.name}: lint, {len(VALUES)} files of values on Kubernetes {VERSIONS[0]} to "
            f"{VERSIONS[-1]}, {len(custom)} custom resources"
        )
    old = run(HELMS[0], "template", "r", CHART, "--values", VALUES[0], "--kube-version", "1.24")
    assert old.returncode and "1.24" in old.stderr, "Kubernetes 1.24 was not refused"


def merged(base, more):
    result = copy.deepcopy(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


MINIMAL = yaml.safe_load((CHART / "ci/minimal-values.yaml").read_text())


def check_refused(chart):
    for values, word in REFUSED:
        try:
            chart.render(values=merged(MINIMAL, values), name="release")
        except Exception as error:
            assert word in str(error), f"{values}: the message lacks {word!r}: {error}"
        else:
            raise AssertionError(f"not refused: {values}")
    say(f"{len(REFUSED)} nonsensical values refused, each by name")


def random_values():
    """The schema, without what Kubernetes has a say in: free-form objects."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    free = (
        "affinity", "containerSecurityContext", "dnsConfig", "dnsPolicy", "extraContainers", "extraEnv", "extraEnvFrom",
        "extraInitContainers", "extraObjects", "extraVolumeMounts", "extraVolumes", "global", "httpRoute",
        "lifecycle", "networkPolicy", "podSecurityContext", "resources", "tolerations", "topologySpread",
    )
    for name in free:
        del schema["properties"][name]
    for name in ("resources", "spec"):
        del schema["properties"]["cloudnativepg"]["properties"][name]
    del schema["properties"]["dev"]["properties"]["podSecurityContext"]
    return from_schema(schema)


def check_property(chart):
    outcomes = {"rendered": 0, "refused": 0}
    custom = []

    # Without shrinking: it takes minutes for values as large as these.
    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(sampled_from(VALUES), random_values())
    def no_valid_values_render_broken_manifests(base, values):
        # Over what is known to render: by chance alone hardly anything is ever enabled.
        values = merged(yaml.safe_load(base.read_text()), values)
        try:
            rendered = chart.render(values=values, name="release")
        except Exception as error:
            # So Helm begins what a chart says by `fail`, of values that don't fit together; all else is
            # a bug of the chart.
            assert str(error).startswith("execution error at"), f"{error}\n{values}"
            outcomes["refused"] += 1
            return
        outcomes["rendered"] += 1
        text = "\n---\n".join(text for path, text in rendered.items() if path.endswith(".yaml"))
        for manifest in manifests(text):
            if is_custom(manifest):
                custom.append(manifest)
            else:
                kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)

    no_valid_values_render_broken_manifests()
    check_custom(custom)
    assert outcomes["rendered"] > 10 and custom, f"hardly anything was rendered: {outcomes}"
    say(f"random values: {outcomes}, {len(custom)} custom resources; none broken")


def check_policy():
    with tempfile.TemporaryDirectory() as folder:
        for values in VALUES:
            rendered = run(HELMS[1], "template", "release", CHART, "--values", values)
            (pathlib.Path(folder) / f"{values.stem}.yaml").write_text(rendered.stdout)
        scan = run(
            sys.executable, "-m", "checkov.main", "--framework", "kubernetes", "--directory", folder,
            "--skip-download", "--quiet", "--compact", "--output", "json",
        )
        report = json.loads(scan.stdout)
    failed = report["results"]["failed_checks"]
    passed = report["summary"]["passed"]
    assert passed > 100, f"the scanner looked at next to nothing: {passed}"
    used, unexplained = set(), []
    for finding in failed:
        check, resource = finding["check_id"], finding["resource"]
        reasons = ACCEPTED.keys() & {check, f"{check} {resource.partition('.')[0]}"}
        used |= reasons
        if not reasons:
            unexplained.append(f"{check} {resource}: {finding['check_name']}")
    assert not unexplained, "\n".join(sorted(unexplained))
    unused = set(ACCEPTED) - used
    assert not unused, f"accepted for nothing: {unused}"
    say(f"policy: {passed} checks passed, {len(failed)} findings of {len(ACCEPTED)} kinds accepted, each kind for a reason")


def main():
    check_files()
    for helm in HELMS:
        say(f"{helm.name}: {chart_fits.check(helm)} things that other clusters need")
    with Chart.load(CHART) as chart:
        check_refused(chart)
        check_property(chart)
    check_policy()


main()
