"""kubectl's own words (1.37, recorded from a real cluster) become one line with the remedy."""

from __future__ import annotations

import pytest

from diffcache.cluster.errors import explain
from diffcache.cluster.kubectl import Kubectl, checked_name
from diffcache.cluster.port_forward import parse_forwarding

_LOG = (
    'E1124 11:02:49.945147   17931 memcache.go:381] "Couldn\'t get current server API group list" '
    'err="Get \\"https://127.0.0.1:1/api?timeout=32s\\": dial tcp 127.0.0.1:1: connect: connection refused"\n'
)
_NO_LOGIN_PROGRAM = """E1124 11:04:22.033 18000 memcache.go:381] "Couldn't get current server API group list" err=<
\tGet "https://127.0.0.1:6443/api?timeout=32s": getting credentials: exec: executable no-such-login not found

\tIt looks like you are trying to use a client-go credential plugin that is not installed.
 >
Unable to connect to the server: getting credentials: exec: executable no-such-login not found

It looks like you are trying to use a client-go credential plugin that is not installed.

To learn more about this feature, consult the documentation available at:
      https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        (
            'Error from server (NotFound): diffusioncaches.diffcache.io "nope" not found',
            1,
            ["no DiffusionCache nope", "get -A"],
        ),
        ('Error from server (NotFound): namespaces "nons" not found', 1, ["no namespace nons", "-n"]),
        (
            'error: the server doesn\'t have a resource type "diffusioncaches" in group "diffcache.io"',
            1,
            ["not installed", "CRD", "--context"],
        ),
        (
            'Error from server (NotFound): Unable to list "diffcache.io/v1alpha1, Resource=diffusioncaches": the '
            "server could not find the requested resource (get diffusioncaches.diffcache.io)",
            1,
            ["not installed", "CRD"],
        ),
        (
            'Error from server (Forbidden): diffusioncaches.diffcache.io is forbidden: User "jane" cannot list '
            'resource "diffusioncaches" in API group "diffcache.io" in the namespace "cli-a"',
            1,
            ['not allowed: User "jane" cannot list', "ask for that right"],
        ),
        (
            "Error in configuration: context was not found for specified context: bad",
            2,
            ["no context bad", "--context"],
        ),
        ('error: context "bad" does not exist', 2, ["no context bad"]),
        ("error: stat /nope: no such file or directory", 2, ["/nope cannot be read (no such file", "--kubeconfig"]),
        (
            'error: error loading config file "/etc/passwd": couldn\'t get version/kind; json parse error: json: '
            "cannot unmarshal string into Go value",
            2,
            ["/etc/passwd is not a kubeconfig"],
        ),
        (
            "error: You must be logged in to the server (the server has asked for the client to provide credentials)",
            1,
            ["credentials", "log in"],
        ),
        ("error: EOF", 1, ["credentials", "log in"]),
        (
            "Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown "
            "authority",
            1,
            ["certificate is not trusted (x509", "certificate-authority"],
        ),
        (_NO_LOGIN_PROGRAM, 1, ["login program failed (exec: executable no-such-login not found)"]),
        (
            _LOG * 5 + "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?",
            1,
            ["cannot be reached (127.0.0.1:1)", "is it up?"],
        ),
        (
            "Unable to connect to the server: dial tcp: lookup nohost.invalid on 10.255.255.53:53: i/o timeout",
            1,
            ["cannot be reached (dial tcp: lookup nohost.invalid", "--context"],
        ),
        (
            "error: unable to forward port because pod is not running. Current status=Pending",
            1,
            ["kubectl failed: unable to forward port because pod is not running"],
        ),
        ("", 1, ["gave no reason"]),
    ],
)
def test_what_kubectl_says(said: str, status: int, words: list[str]) -> None:
    error = explain(said)
    assert error.status == status
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


def test_one_who_has_chosen_no_cluster_is_told_of_the_contexts() -> None:
    said = "The connection to the server localhost:8080 was refused - did you specify the right host or port?"
    assert "--context (one, two)" in str(explain(said, ["one", "two"]))
    assert "--kubeconfig or KUBECONFIG" in str(explain(said))


@pytest.mark.parametrize("name", ["--all", "-A", "a/b", "a,b", "", "Emoji", "x" * 41, "a\n"])
def test_what_is_no_name_never_reaches_kubectl(name: str) -> None:
    with pytest.raises(Exception, match="no name of a DiffusionCache") as caught:
        checked_name(name)
    assert caught.value.status == 2  # type: ignore[attr-defined]  # a ClusterError


def test_kubectl_is_called_as_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECTL", raising=False)
    assert Kubectl().command("get") == ["kubectl", "get"]
    monkeypatch.setenv("KUBECTL", "minikube kubectl --")
    chosen = Kubectl(namespace="-A", context="my cluster")
    assert chosen.command("get") == ["minikube", "kubectl", "--", "--namespace=-A", "--context=my cluster", "get"]
    assert chosen.advice("kubectl diffcache get") == "kubectl diffcache get --namespace=-A '--context=my cluster'"


def test_the_line_that_says_the_port() -> None:
    assert parse_forwarding("Forwarding from 127.0.0.1:39959 -> 50051\n") == "127.0.0.1:39959"
    assert parse_forwarding("Forwarding from [::1]:39959 -> 50051\n") is None
    assert parse_forwarding("Handling connection for 39959\n") is None
