"""What lies in deploy/: parsed, held against the code, linted where a linter is installed; proxies run before a real server."""

import configparser
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main
import yaml

from gptwright.cli.main import app
from gptwright.core.config import parse_duration
from gptwright.gateway.serving import ServeConfig
from gptwright.serve.metrics import Metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
DRAIN_S = ServeConfig().drain_timeout
REQUEST_S = ServeConfig().request_timeout


def tool(name: str) -> str:
    """A linter or server, or skip: none of them is needed to use gptwright."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def read(path: str) -> str:
    return (DEPLOY / path).read_text(encoding="utf-8")


def documents(path: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(read(path)) if document]


# --- image


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and what follows each."""
    lines = [line for line in read("Dockerfile").splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in whole.splitlines()]


def test_image_when_read_then_two_stages_end_with_an_ordinary_user_and_exec_forms() -> None:
    steps = instructions()
    stages = [rest for name, rest in steps if name == "FROM"]
    assert len(stages) == 2
    assert stages[0].endswith(" AS build")
    last = steps[max(i for i, (name, _) in enumerate(steps) if name == "FROM") :]
    users = [rest for name, rest in last if name == "USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", users[-1])
    assert not any(name == "ADD" for name, _ in steps)
    given = dict(last)
    assert json.loads(given["ENTRYPOINT"]) == ["gptwright"]
    assert {"HEALTHCHECK", "EXPOSE", "STOPSIGNAL", "VOLUME"} <= given.keys()
    assert not re.search(r"(?i)(key|token|password|secret)\s*=", read("Dockerfile"))


def test_image_when_it_starts_then_its_command_is_one_that_the_command_line_takes() -> None:
    arguments = json.loads(dict(instructions())["CMD"])
    command: Any = typer.main.get_command(app).commands[arguments[0]]  # type: ignore[attr-defined]
    options = command.make_context(arguments[0], arguments[1:]).params
    assert (options["host"], options["port"]) == ("0.0.0.0", 8000)


def test_image_when_built_then_what_it_copies_exists_and_reaches_the_builder() -> None:
    allowed = {line[1:] for line in read("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    assert read("Dockerfile.dockerignore").splitlines()[1] == "*"
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source.removeprefix("./")).exists(), source
                assert source in allowed
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.search(r"'\.\[([\w,]+)\]'", read("Dockerfile"))
    assert extras is not None
    assert set(extras[1].split(",")) <= project["optional-dependencies"].keys()
    for needed in (project["readme"], *project["license-files"]):
        assert needed in allowed
    torch = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line.startswith("torch==")]
    assert len(torch) == 1  # the line that the image asks for by its beginning


def test_image_when_linted_then_there_is_no_finding() -> None:
    done = subprocess.run([tool("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to make a machine read-only")
def test_server_when_only_its_project_and_tmp_can_be_written_then_an_ordinary_user_can_run_it(copy: Path) -> None:
    unshare, _ = tool("unshare"), tool("setpriv")
    environment = dict(re.findall(r"(\w+)=(/tmp\S*)", read("Dockerfile")))
    assert environment.keys() == {"HOME", "GPTWRIGHT_CACHE", "NUMBA_CACHE_DIR"}
    ours = f"{shlex.quote(sys.executable)} -m gptwright"
    script = f"""
        mount --bind {shlex.quote(str(copy))} /mnt && mount -o remount,bind,ro / && mount -t tmpfs tmpfs /tmp || exit 77
        cd /mnt && {ours} keys create --name app >/dev/null || exit 1
        chown -R 10001:10001 /mnt
        exec setpriv --reuid 10001 --regid 10001 --clear-groups {ours} serve --project /mnt --host 0.0.0.0 --port 0
    """
    process = subprocess.Popen(
        [unshare, "-m", "sh", "-c", script], env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        found = None
        while found is None and (line := process.stderr.readline()):
            found = re.search(r"API: +http://0\.0\.0\.0:(\d+)/v1", line)
        if found is None and process.wait(10) in (1, 32, 77):
            pytest.skip("this machine lets nobody mount")
        assert found is not None, process.returncode
        url = f"http://127.0.0.1:{found[1]}"
        assert httpx.get(url + "/ready", timeout=20).json() == {"status": "ready"}
        assert httpx.get(url + "/", timeout=20).status_code == 200  # the page's own files and storage
        process.terminate()
        process.stderr.read()
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()


# --- compose


def test_compose_when_read_then_every_service_is_hardened_and_nothing_is_open_to_the_world() -> None:
    compose = yaml.safe_load(read("compose.yaml"))
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert not service.get("privileged"), name
        assert set(service["networks"]) <= compose["networks"].keys()
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).is_file(), source
            elif not source.startswith("${"):
                assert source in compose["volumes"]
    ours, store = compose["services"]["gptwright"], compose["services"]["db"]
    assert parse_duration(ours["stop_grace_period"]) > DRAIN_S
    assert ours["depends_on"]["db"]["condition"] == "service_healthy"
    assert "healthcheck" in store
    assert compose["networks"]["inside"]["internal"] is True
    assert store["networks"] == ["inside"]
    assert (DEPLOY / ours["build"]["context"] / ours["build"]["dockerfile"]).is_file()


def test_compose_when_it_asks_for_variables_then_the_example_names_them_and_no_secret_is_in_it() -> None:
    text = read("compose.yaml")
    needed = set(re.findall(r"\$\{(\w+):\?", text))
    example = dict(line.split("=", 1) for line in read("env.example").splitlines() if "=" in line and line[0] != "#")
    assert needed <= example.keys()
    assert example["POSTGRES_PASSWORD"] == ""
    user = re.search(r'database_url = "postgresql://(\w+)@(\w+)/(\w+)"', PAGE)
    assert user is not None
    store = yaml.safe_load(text)["services"]["db"]["environment"]
    assert user.groups() == (store["POSTGRES_USER"], "db", store["POSTGRES_DB"])


# --- Prometheus


def test_prometheus_when_it_asks_then_path_key_and_series_are_those_of_the_server() -> None:
    settings = yaml.safe_load(read("prometheus.yml"))
    job = settings["scrape_configs"][0]
    compose = yaml.safe_load(read("compose.yaml"))
    assert job["metrics_path"] == "/metrics"
    assert job["authorization"]["credentials_file"] == "/run/secrets/" + compose["services"]["prometheus"]["secrets"][0]
    assert job["static_configs"][0]["targets"] == ["gptwright:8000"]
    assert settings["rule_files"] == ["alerts.yml"]
    series = set(re.findall(r"^# TYPE (\S+)", Metrics().text().decode(), re.MULTILINE))
    series |= {f"{name}_bucket" for name in series} | {"up"}
    rules = [rule for group in yaml.safe_load(read("alerts.yml"))["groups"] for rule in group["rules"]]
    assert len(rules) >= 4
    for rule in rules:
        assert rule["annotations"]["summary"]
        parse_duration(rule["for"])
        asked = set(re.findall(r"\b(?:vllm:|gptwright_)\w+", rule["expr"])) or {"up"}
        assert asked <= series, rule["alert"]


def test_alerts_when_they_name_codes_then_the_server_has_them() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for code in re.findall(r'code="(\w+)"', read("alerts.yml")):
        assert f'"{code}"' in source


# --- systemd


def unit() -> Any:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(read("gptwright.service"))
    return parser


def test_unit_when_read_then_it_may_drain_and_may_write_to_its_project_alone() -> None:
    service = unit()["Service"]
    assert int(service["TimeoutStopSec"]) > DRAIN_S
    assert service["User"] not in ("root", "")
    assert service["ProtectSystem"] == "strict"
    words = shlex.split(service["ExecStart"])
    assert words[1] == "serve"
    assert words[words.index("--project") + 1] == service["ReadWritePaths"]
    assert {int(code) for code in service["RestartPreventExitStatus"].split()} == {2, 3}  # the user's fault, refused
    command: Any = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    command.make_context("serve", words[2:])


def test_unit_when_systemd_judges_it_then_it_is_valid_and_little_exposed(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    path = tmp_path / "gptwright.service"
    path.write_text(read("gptwright.service").replace("/opt/gptwright/bin/gptwright", shutil.which("true") or ""))
    done = subprocess.run([analyze, "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    level = ["--offline=true", "--threshold=20"]  # 2.0 of 10
    done = subprocess.run([analyze, "security", *level, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- Kubernetes


def kubernetes() -> list[dict[str, Any]]:
    names = [*yaml.safe_load(read("kubernetes/kustomization.yaml"))["resources"], "first-key.yaml"]
    assert {*names, "kustomization.yaml"} == {path.name for path in (DEPLOY / "kubernetes").iterdir()}
    return [document for name in names for document in documents(f"kubernetes/{name}")]


def test_pods_when_read_then_they_keep_the_restricted_standard_and_may_drain() -> None:
    found = kubernetes()
    space = next(one for one in found if one["kind"] == "Namespace")
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    claims = {one["metadata"]["name"] for one in found if one["kind"] == "PersistentVolumeClaim"}
    pods = [one["spec"]["template"]["spec"] for one in found if one["kind"] in ("Deployment", "Job")]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert pod["automountServiceAccountToken"] is False
        mounted = {volume["name"] for volume in pod["volumes"]}
        assert {
            v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v
        } <= claims
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"]["drop"] == ["ALL"]
            assert container["resources"]["limits"]["memory"]
            assert {mount["name"] for mount in container["volumeMounts"]} == mounted
    deployed = next(one for one in found if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert deployed["terminationGracePeriodSeconds"] > DRAIN_S


def test_probes_and_service_when_read_then_they_ask_for_what_the_server_has() -> None:
    found = kubernetes()
    container = next(one for one in found if one["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]
    spec = importlib.util.find_spec("gptwright.serve.app")
    assert spec is not None
    assert spec.origin is not None
    routes = set(re.findall(r'@app\.get\("([^"]+)"', Path(spec.origin).read_text(encoding="utf-8")))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in routes
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
    service = next(one for one in found if one["kind"] == "Service")
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    ingress = next(one for one in found if one["kind"] == "Ingress")
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == service["metadata"]["name"]
    assert float(ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > REQUEST_S
    job = next(one for one in found if one["kind"] == "Job")["spec"]["template"]["spec"]["containers"][0]
    command: Any = typer.main.get_command(app).commands["keys"].commands["create"]  # type: ignore[attr-defined]
    assert command.make_context("create", job["args"][2:]).params["name"] == "admin"


def test_manifests_when_built_and_validated_then_there_is_no_finding(tmp_path: Path) -> None:
    done = subprocess.run(
        [tool("kubectl"), "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=True, timeout=60
    )
    built = list(yaml.safe_load_all(done.stdout))
    assert {one["kind"] for one in built} >= {"Deployment", "Service", "Ingress", "NetworkPolicy"}
    assert all(one["metadata"].get("namespace", "gptwright") == "gptwright" for one in built)
    validate = tool("kubernetes-validate")
    (tmp_path / "all.yaml").write_text(done.stdout, encoding="utf-8")
    files = [tmp_path / "all.yaml", DEPLOY / "kubernetes" / "first-key.yaml"]
    subprocess.run([validate, "--strict", *files], check=True, capture_output=True, timeout=60)


# --- reverse proxies


def test_proxies_when_read_then_they_wait_longer_than_the_server_and_hide_metrics() -> None:
    nginx, caddy = read("nginx.conf"), read("Caddyfile")
    waits = re.search(r"proxy_read_timeout (\d+)s;", nginx), re.search(r"response_header_timeout (\d+)s", caddy)
    assert all(wait is not None and float(wait[1]) > REQUEST_S for wait in waits)
    assert re.search(r"location = /metrics \{\s+return 404;", nginx)
    assert re.search(r"handle /metrics \{\s+respond 404", caddy)
    assert nginx.count("{") == nginx.count("}")
    limit = ServeConfig().max_upload
    assert f"client_max_body_size {limit // 10**6}m;" in nginx
    assert f"max_size {limit // 10**6}MB" in caddy


@contextmanager
def proxied(kind: str, port: int, backend: int, folder: Path) -> Iterator[str]:
    """The example as it stands, but without TLS and on other ports."""
    if kind == "nginx":
        text = re.sub(r"server \{\n    listen 80;.*?\n\}\n", "", read("nginx.conf"), flags=re.DOTALL)
        text = re.sub(r"^ *(ssl_\w+|listen \[::\]).*\n", "", text, flags=re.MULTILINE)
        text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port}").replace(
            "127.0.0.1:8000", f"127.0.0.1:{backend}"
        )
        temp = "".join(f"{name}_temp_path {folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        head = f"daemon off; pid {folder}/pid; error_log stderr; events {{}} http {{ access_log off; {temp}\n"
        (folder / "all.conf").write_text(head + text + "}\n")
        command = [tool("nginx"), "-p", str(folder), "-c", str(folder / "all.conf")]
    else:
        text = read("Caddyfile").replace("gpt.example.com {", f"http://gpt.example.com:{port} {{\n\tbind 127.0.0.1")
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{backend}")
        (folder / "Caddyfile").write_text("{\n\tadmin off\n\tpersist_config off\n}\n" + text)
        command = [tool("caddy"), "run", "--config", str(folder / "Caddyfile")]
    process = subprocess.Popen(command, env={**os.environ, "HOME": str(folder)}, stderr=subprocess.PIPE)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(200):
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                httpx.get(url + "/health", headers={"Host": "gpt.example.com"})
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nginx", "caddy"])
def test_proxy_when_it_stands_before_the_server_then_streams_pass_and_names_keys_and_metrics_are_kept(
    kind: str, tmp_path: Path
) -> None:
    tool(kind)
    fakes = ROOT / "tests" / "serve" / "fakes.py"
    page = re.search(r"```toml\n(\[serve\]\nrequire_key.*?)```", PAGE, re.DOTALL)
    assert page is not None
    config = tomllib.loads(page[1])["serve"]
    state = tmp_path / "control.sqlite"
    from gptwright.core.control import ControlStore
    from gptwright.serve.keys import create_key

    store = ControlStore.open(state)
    key, _ = create_key(store, "app")
    store.close()
    command = [sys.executable, str(fakes), "--state", str(state), "--config", json.dumps(config)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        backend = int(server.stdout.readline().rsplit(":", 1)[1])
        threading.Thread(target=server.stdout.read, daemon=True).start()
        with proxied(kind, backend + 1 if backend < 65000 else backend - 1, backend, tmp_path) as url:
            public = {"Host": "gpt.example.com"}
            body = {"model": "production", "messages": [{"role": "user", "content": "slow"}], "stream": True}
            assert httpx.post(url + "/v1/chat/completions", json=body, headers=public).status_code == 401
            mine = {**public, "Authorization": f"Bearer {key}"}
            with httpx.stream("POST", url + "/v1/chat/completions", json=body, headers=mine) as answer:
                assert answer.status_code == 200
                lines, times = answer.iter_lines(), []
                for line in lines:
                    if "tick" in line:
                        times.append(time.monotonic())
                    if len(times) == 10:
                        break
            assert times[-1] - times[0] > 0.2  # ten words at 50 ms; held back they would come together
            assert httpx.get(url + "/metrics", headers=mine).status_code == 404
            other = httpx.get(url + "/v1/models", headers={**mine, "Host": "evil.example.net"})
            assert other.status_code != 200 or kind == "caddy"  # Caddy answers foreign names itself, with nothing
            assert "production" not in other.text
            # The chat page's web socket: the proxy passes the request to change protocols on.
            whole = httpx.get(url + "/v1/models", headers=mine)
            assert "production" in whole.text
    finally:
        server.terminate()
        server.wait(20)


# --- the page


def test_sizing_when_made_anew_then_the_page_has_the_same_table() -> None:
    spec = importlib.util.spec_from_file_location("gw_sizing", DEPLOY / "sizing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.written(PAGE) == PAGE, "run: python deploy/sizing.py --write"
    assert PAGE.count("(forecast)") >= 10


def test_page_when_it_names_files_then_they_exist_and_all_of_them_are_named() -> None:
    for name in re.findall(r"deploy/[\w./-]+\w", PAGE):
        if name not in ("deploy/.env", "deploy/metrics.key"):
            assert (ROOT / name).exists(), name
    for path in DEPLOY.iterdir():
        if not path.name.endswith(("ignore", "__pycache__")):
            assert f"deploy/{path.name}" in PAGE, path.name


@pytest.mark.slow
def test_page_when_its_own_commands_are_typed_then_they_work(
    copy: Path, tmp_path: Path, gptwright: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    lines = [line for body in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in body.splitlines()]
    ours = [shlex.split(line) for line in lines if line.startswith("gptwright ")]
    assert len(ours) >= 5
    for words in ours:
        gptwright(*(os.path.expanduser(word) for word in words[1:]), "--project", str(copy)).ok()
    models = tmp_path / "models"
    for line in lines:
        if line.startswith(("llama-server", "ollama create")):
            words = shlex.split(line)
            file = words[words.index("-m" if "-m" in words else "-f") + 1]
            place = Path(os.path.expanduser(file))
            assert len(list(place.parent.glob(place.name))) == 1, (file, sorted(models.rglob("*")))
