"""Whether the chart fits into others' clusters: what its manifests have to say there.

Each check is a sentence about them. `chart.py` runs all of them, with Helm 3 and with Helm 4.
"""

import http.server
import json
import os
import pathlib
import subprocess
import tempfile
import threading

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/beseda"
MINIMAL = CHART / "ci/minimal-values.yaml"
# A name that nobody's selectors expect.
RENAMED = {"nameOverride": "talk", "tests": {"enabled": True}}
SECRETS = "/api/v1/namespaces/default/secrets"
# From which on the API server takes these fields without a feature gate.
SPREADS_BY_REVISION = "1.27"


class Helm:
    """One Helm, and this chart."""

    def __init__(self, program):
        self.program = program
        self.name = program.name

    def run(self, *words, values=(), more=None, environment=None):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(more or {}, file)
            file.flush()
            command = [self.program, *words]
            for path in [*values, file.name]:
                command += ["--values", path]
            return subprocess.run([str(word) for word in command], text=True, capture_output=True, env=environment)

    def render(self, more=None, values=MINIMAL, version="1.37", release="release", **options):
        words = ("template", release, CHART, "--kube-version", version, *options.pop("words", ()))
        done = self.run(*words, values=[values], more=more, **options)
        assert done.returncode == 0, done.stderr
        return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]

    def notes(self, more):
        with ApiServer() as api:
            words = ("install", "release", CHART, "--dry-run=client", *api.words)
            done = self.run(*words, values=[MINIMAL], more=more, environment=api.environment)
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.partition("\nNOTES:\n")[2].split())

    def refusal(self, more):
        done = self.run("template", "release", CHART, values=[MINIMAL], more=more)
        assert done.returncode, f"not refused: {more}"
        return done.stderr


def discovery():
    """What the API server says of the kinds that it knows: all that the chart makes."""
    kinds = {
        "v1": ["ConfigMap", "Pod", "Secret", "Service", "ServiceAccount"],
        "apps/v1": ["Deployment", "StatefulSet"],
        "batch/v1": ["Job"],
        "gateway.networking.k8s.io/v1": ["HTTPRoute"],
        "networking.k8s.io/v1": ["Ingress", "NetworkPolicy"],
        "policy/v1": ["PodDisruptionBudget"],
        "postgresql.cnpg.io/v1": ["Cluster"],
    }
    paths = {"/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}}
    groups = []
    for version, names in kinds.items():
        resources = [
            {"name": plural(kind), "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get"]}
            for kind in names
        ]
        path = f"/api/{version}" if version == "v1" else f"/apis/{version}"
        paths[path] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        if version != "v1":
            one = {"groupVersion": version, "version": "v1"}
            groups.append({"name": version.partition("/")[0], "versions": [one], "preferredVersion": one})
    paths["/api"] = {"kind": "APIVersions", "versions": ["v1"]}
    paths["/apis"] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    return paths


def plural(kind):
    word = kind.lower()
    return word[:-1] + "ies" if word.endswith("y") else word + ("es" if word.endswith("s") else "s")


DISCOVERY = discovery()


class ApiServer:
    """As much of Kubernetes' API as Helm asks before it installs anything: what there is, and secrets."""

    def __init__(self):
        self.secrets = {}
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                status, body = api.answer(self.path.partition("?")[0])
                body = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.home = tempfile.TemporaryDirectory()
        url = f"http://127.0.0.1:{self.server.server_address[1]}"
        # How Helm finds it, and nothing else that somebody has configured on this machine.
        self.words = ("--kube-apiserver", url, "--kube-token", "any", "--disable-openapi-validation")
        self.environment = {"HOME": self.home.name, "PATH": os.environ["PATH"]}

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.home.cleanup()

    def answer(self, path):
        if path in DISCOVERY:
            return 200, DISCOVERY[path]
        if path == SECRETS:
            # Where Helm keeps its releases: there are none.
            return 200, {"apiVersion": "v1", "kind": "SecretList", "metadata": {}, "items": []}
        secret = self.secrets.get(path.removeprefix(f"{SECRETS}/"))
        if secret is not None:
            return 200, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": path.rsplit("/")[-1]}, "data": secret}
        return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "none"}


def find(found, kind, name=None):
    matching = [m for m in found if m["kind"] == kind and name in (None, m["metadata"]["name"])]
    assert len(matching) == 1, f"{len(matching)} of {kind} {name or ''}"
    return matching[0]


def pods_of(found):
    """Pod templates: their labels and specs."""
    for manifest in found:
        if manifest["kind"] == "Pod":
            yield manifest["metadata"]["labels"], manifest["spec"]
        elif manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = manifest["spec"]["template"]
            yield template["metadata"]["labels"], template["spec"]


def replica(found):
    return find(found, "Deployment")["spec"]["template"]["spec"]


def selectors_of(found):
    """What the chart's own manifests select its own pods by."""
    for manifest in found:
        kind, spec = manifest["kind"], manifest.get("spec", {})
        if kind == "Service":
            yield kind, spec["selector"]
        elif kind in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            yield kind, spec["selector"]["matchLabels"]
        elif kind == "PodMonitor" and "cnpg.io/cluster" not in spec["selector"]["matchLabels"]:
            yield kind, spec["selector"]["matchLabels"]
        elif kind == "NetworkPolicy":
            yield kind, spec["podSelector"]["matchLabels"]
    for _, pod in pods_of(found):
        for constraint in pod.get("topologySpreadConstraints", ()):
            yield "topologySpreadConstraints", constraint["labelSelector"]["matchLabels"]


def selectors_follow_release_and_names(helm):
    for values in [*sorted((CHART / "ci").glob("*-values.yaml")), CHART / "values-ha.yaml"]:
        found = helm.render(RENAMED, values=values, release="production")
        pods = [labels for labels, _ in pods_of(found)]
        for kind, selector in selectors_of(found):
            assert any(selector.items() <= labels.items() for labels in pods), (
                f"{values.name}: {kind} selects no pod: {selector}"
            )


def replicas_spread_by_revision_where_kubernetes_can(helm):
    for values in (MINIMAL, CHART / "values-ha.yaml"):
        for version, keys in (("1.26", None), (SPREADS_BY_REVISION, ["pod-template-hash"])):
            constraints = replica(helm.render(values=values, version=version))["topologySpreadConstraints"]
            assert constraints and all(one.get("matchLabelKeys") == keys for one in constraints), constraints
    own = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"a": "b"}}}
    assert replica(helm.render({"topologySpread": {"constraints": [own]}}))["topologySpreadConstraints"] == [own]


def nodes_drain_though_no_replica_is_ready(helm):
    for version, policy in (("1.26", None), ("1.27", "AlwaysAllow")):
        budget = find(helm.render(version=version), "PodDisruptionBudget")["spec"]
        assert budget.get("unhealthyPodEvictionPolicy") == policy, budget


def openshift_gives_the_ids(helm):
    ids = ("runAsUser", "runAsGroup", "fsGroup")
    jobs = {"migrations": {"mode": "job"}, "config": {"rateLimits": {"enabled": False}}, "loadTest": {"enabled": True, "image": "i"}}
    pods = list(pods_of(helm.render(jobs, values=CHART / "ci/openshift-values.yaml")))
    # The replica, the migration, the load test and `helm test`.
    assert len(pods) == 4, len(pods)
    for _, pod in pods:
        for context in [pod["securityContext"], *(one["securityContext"] for one in pod["containers"])]:
            assert not [name for name in ids if name in context], context
        assert pod["securityContext"]["runAsNonRoot"] is True, pod
    dev = {"dev": {"enabled": True, "podSecurityContext": dict.fromkeys(ids)}}
    for _, pod in pods_of(helm.render(dev, values=CHART / "ci/dev-values.yaml")):
        if pod["containers"][0]["name"] in ("postgres", "redis"):
            assert not [name for name in ids if name in pod["securityContext"]], pod


def helm_test_has_something_to_run(helm):
    hooks = [m["kind"] for m in helm.render() if m["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]
    assert sorted(hooks) == ["ConfigMap", "Pod"], hooks


def security_contexts_are_everybodys_choice(helm):
    more = {"podSecurityContext": {"runAsUser": 1234, "supplementalGroups": [5]}, "containerSecurityContext": {"readOnlyRootFilesystem": False}}
    pod = replica(helm.render(more))
    context = pod["securityContext"]
    assert (context["runAsUser"], context["supplementalGroups"], context["runAsNonRoot"]) == (1234, [5], True), context
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is False, container
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, container


def pods_take_what_a_cluster_needs(helm):
    container = {"name": "more", "image": "registry.example.com/more:1"}
    more = {
        "extraContainers": [container],
        "extraInitContainers": [container],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["postgres"]}],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["10.0.0.2"]},
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "probes": {"startup": {"failureThreshold": 7}, "liveness": {"periodSeconds": 8}, "readiness": {"timeoutSeconds": 9}},
    }
    pod = replica(helm.render(more))
    beseda, beside = pod["containers"]
    assert [one["name"] for one in pod["initContainers"]] == ["migrate", "more"]
    assert beside == container and beseda["lifecycle"] == more["lifecycle"]
    assert beseda["envFrom"][1] == more["extraEnvFrom"][0]
    assert [pod[name] for name in ("hostAliases", "dnsPolicy", "dnsConfig")] == [more[name] for name in ("hostAliases", "dnsPolicy", "dnsConfig")]
    assert (beseda["startupProbe"]["failureThreshold"], beseda["startupProbe"]["periodSeconds"]) == (7, 2)
    assert beseda["livenessProbe"]["periodSeconds"] == 8
    assert beseda["readinessProbe"]["timeoutSeconds"] == 9
    alone = replica(helm.render({"migrations": {"mode": "none"}, "extraInitContainers": [container]}))
    assert alone["initContainers"] == [container]


def a_replica_is_not_killed_while_it_waits_for_postgres(helm):
    rendered = helm.render()
    waits = [m["data"].get("BESEDA_DATABASE_WAIT") for m in rendered if m["kind"] == "ConfigMap"]
    assert "1m" in waits, waits
    probe = replica(rendered)["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > 60 + 15, probe


def metrics_are_open_to_what_scrapes_alone(helm):
    def rules(more):
        policy = find(helm.render(more), "NetworkPolicy")["spec"]
        return [rule for rule in policy["ingress"] if rule["ports"][0]["port"] == "internal"]

    (rule,) = rules({})
    assert rule["from"] and all(peer.get("podSelector") for peer in rule["from"]), rule
    assert rules({"networkPolicy": {"monitoring": []}}) == [], "no peer is everybody"
    closed = {"networkPolicy": {"monitoring": []}, "monitoring": {"podMonitor": {"enabled": True}}}
    assert "networkPolicy.monitoring is empty" in helm.refusal(closed)


def an_ingress_that_would_not_do_is_refused_or_warned_of(helm):
    ingress = {"ingress": {"enabled": True, "hosts": ["chat.example.com"]}}
    gateway = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}}
    for way in (ingress, gateway):
        assert "config.trustedProxies is missing" in helm.refusal(way)
        assert "trustedProxies" in helm.refusal(way | {"config": {"trustedProxies": ["0.0.0.0/0"]}})
        proxies = {"config": {"trustedProxies": ["10.0.0.0/8"]}}
        assert "WARNING: config.publicUrl is empty" in helm.notes(way | proxies)
    assert "WARNING: ingress.tls is empty" in helm.notes(ingress | proxies)
    tls = {"ingress": ingress["ingress"] | {"tls": [{"secretName": "tls"}]}}
    whole = tls | {"config": {"trustedProxies": ["10.0.0.0/8"], "publicUrl": "https://chat.example.com"}}
    assert "WARNING" not in helm.notes(whole)
    plain = tls | {"config": {"trustedProxies": ["10.0.0.0/8"], "publicUrl": "http://chat.example.com"}}
    assert "config.publicUrl begins with http://" in helm.refusal(plain)
    assert "WARNING: networkPolicy.enabled is false" in helm.notes({"networkPolicy": {"enabled": False}})


def clients_get_the_services_own_503_through_nginx(helm):
    more = {
        "config": {"trustedProxies": ["10.0.0.0/8"]},
        "ingress": {"enabled": True, "preset": "nginx", "hosts": ["chat.example.com"]},
    }
    found = helm.render(more)
    name = find(found, "Ingress")["metadata"]["annotations"]["nginx.ingress.kubernetes.io/default-backend"]
    last = find(found, "Service", name)["spec"]
    usual = find(found, "Service", "release-beseda")["spec"]
    assert last["publishNotReadyAddresses"] is True and "publishNotReadyAddresses" not in usual
    assert (last["selector"], last["ports"]) == (usual["selector"], usual["ports"])
    backends = [path["backend"]["service"]["name"] for rule in find(found, "Ingress")["spec"]["rules"] for path in rule["http"]["paths"]]
    assert backends == ["release-beseda"], backends


def a_rollback_runs_no_migration_before_it(helm):
    """The older release's own container is content with a newer schema that it can use."""
    job = find(helm.render({"migrations": {"mode": "job"}}), "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (container,) = replica(helm.render())["initContainers"]
    assert container["args"] == ["migrate"]


def postgres_of_the_operator_is_backed_up_and_watched(helm):
    def cluster(**more):
        values = {"cloudnativepg": {"enabled": True} | more, "postgres": {"existingSecret": ""}}
        return helm.render(values)

    plain = find(cluster(), "Cluster")["spec"]
    assert plain["postgresql"]["synchronous"] == {"method": "any", "number": 1, "dataDurability": "required"}
    assert "plugins" not in plain and "walStorage" not in plain
    assert "synchronous" not in find(cluster(instances=2), "Cluster")["spec"]["postgresql"]
    assert "synchronous" not in find(cluster(synchronousStandbys=0), "Cluster")["spec"]["postgresql"]
    two = find(cluster(synchronousStandbys=2, dataDurability="preferred"), "Cluster")["spec"]
    assert two["postgresql"]["synchronous"] == {"method": "any", "number": 2, "dataDurability": "preferred"}

    found = cluster(backup={"objectStore": "s3", "schedule": "0 30 1 * * *"}, walStorage="5Gi", storageClass="fast", podMonitor=True)
    whole = find(found, "Cluster")["spec"]
    (plugin,) = whole["plugins"]
    assert plugin["isWALArchiver"] and plugin["parameters"] == {"barmanObjectName": "s3"}
    assert whole["walStorage"] == {"size": "5Gi", "storageClass": "fast"}
    backup = find(found, "ScheduledBackup")["spec"]
    name = find(found, "Cluster")["metadata"]["name"]
    assert (backup["cluster"]["name"], backup["schedule"], backup["method"]) == (name, "0 30 1 * * *", "plugin")
    assert find(found, "PodMonitor")["spec"]["selector"]["matchLabels"]["cnpg.io/cluster"] == name
    own = find(cluster(spec={"bootstrap": {"recovery": {"source": "old"}}}), "Cluster")["spec"]
    assert own["bootstrap"] == {"recovery": {"source": "old"}} and own["instances"] == 3
    enabled = {"cloudnativepg": {"enabled": True, "synchronousStandbys": 3}, "postgres": {"existingSecret": ""}}
    assert "synchronousStandbys must be less" in helm.refusal(enabled)
    enabled["cloudnativepg"].pop("synchronousStandbys")
    assert "nothing is backed up" in helm.notes(enabled)


def changed_secrets_are_new_pods(helm):
    def rolled_by(found):
        template = find(found, "Deployment")["spec"]["template"]
        return template["metadata"].get("annotations", {}).get("checksum/secrets")

    webhooks = {"webhooks": {"url": "https://app.example.com/", "existingSecret": "beseda-webhook"}}
    with ApiServer() as api:
        api.secrets = {f"beseda-{of}": {"url": "b2xk"} for of in ("postgres", "redis", "jwt", "webhook")}
        api.secrets["somebody-elses"] = {"url": "b2xk"}

        def now():
            words = ("--dry-run=server", *api.words)
            return rolled_by(helm.render(webhooks, words=words, environment=api.environment))

        first = now()
        assert first and first == now(), "the same secrets are the same pods"
        seen = {first}
        for name in api.secrets:
            api.secrets[name] = {"url": "bmV3"}
            seen.add(now())
        assert len(seen) == 5, f"{len(seen) - 1} changes of four secrets were seen; somebody else's must not be"

    by_reloader = find(helm.render(webhooks | {"rollOnSecretChange": "reloader"}), "Deployment")
    named = by_reloader["metadata"]["annotations"]["secret.reloader.stakater.com/reload"]
    assert named == "beseda-jwt,beseda-postgres,beseda-redis,beseda-webhook", named
    assert rolled_by([by_reloader]) is None
    left = find(helm.render({"rollOnSecretChange": "none"}), "Deployment")
    assert "annotations" not in left["metadata"] and rolled_by([left]) is None
    # Its own secret: no cluster is needed to see it change, here with the name of its database.
    dev = CHART / "ci/dev-values.yaml"
    first, again, other = (rolled_by(helm.render(values=dev, release=name)) for name in ("a", "a", "b"))
    assert first == again != other


def rules_for_what_is_beneath_can_be_read(_):
    block = (CHART / "README.md").read_text().partition("```yaml\ngroups:")[2].partition("```")[0]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(f"groups:{block}")
        file.flush()
        checked = subprocess.run(["promtool", "check", "rules", file.name], text=True, capture_output=True)
    assert checked.returncode == 0 and "6 rules found" in checked.stdout, checked.stdout + checked.stderr


CHECKS = [
    selectors_follow_release_and_names,
    replicas_spread_by_revision_where_kubernetes_can,
    nodes_drain_though_no_replica_is_ready,
    openshift_gives_the_ids,
    helm_test_has_something_to_run,
    security_contexts_are_everybodys_choice,
    pods_take_what_a_cluster_needs,
    a_replica_is_not_killed_while_it_waits_for_postgres,
    metrics_are_open_to_what_scrapes_alone,
    an_ingress_that_would_not_do_is_refused_or_warned_of,
    clients_get_the_services_own_503_through_nginx,
    a_rollback_runs_no_migration_before_it,
    postgres_of_the_operator_is_backed_up_and_watched,
    changed_secrets_are_new_pods,
    rules_for_what_is_beneath_can_be_read,
]


def check(program):
    """Runs all of them; says which failed, and why."""
    failed = []
    for one in CHECKS:
        try:
            one(Helm(program))
        except AssertionError as error:
            failed.append(f"{one.__name__}: {error}")
    assert not failed, f"{program.name}:\n" + "\n".join(failed)
    return len(CHECKS)
