# shellcheck shell=bash
# The node's programs: how each is started and stopped. Sourced, never run.

begin() { # NAME COMMAND...
  local name=$1
  shift
  (DIFFCACHE_NODE=$STATE inside setsid "$@" </dev/null >>"$STATE/log/$name.log" 2>&1 &)
}

start_init() {
  (
    export DIFFCACHE_NODE=$STATE
    exec setsid nsenter --net="/run/netns/$NAME" -- unshare --mount --pid --fork --mount-proc -- \
      "$NODE_DIR/init" "$STATE" </dev/null >"$STATE/log/init.log" 2>&1
  ) &
  wait_for 10 "the node's first process" test -f "$STATE/init.ready"
  pgrep --parent $! >"$STATE/init.pid" # `unshare` forks: its child is process 1
}

start_containerd() {
  begin containerd containerd --config "$STATE/config/containerd.toml"
}

start_etcd() {
  begin etcd etcd --data-dir "$STATE/etcd" \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380
}

start_apiserver() {
  local pki=$STATE/pki config=$STATE/config
  local flags=(
    --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --secure-port=6443
    --advertise-address=$NODE_IP --service-cluster-ip-range=$SERVICE_CIDR --allow-privileged=true
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt"
    --service-account-issuer=https://kubernetes.default.svc
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key"
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction
    --admission-control-config-file="$config/admission.yaml"
    # One file, however long: the tests read who wrote what.
    --audit-policy-file="$config/audit.yaml" --audit-log-path="$STATE/log/audit.log" --audit-log-maxsize=10000
    # The node's name resolves nowhere; logs, exec and port-forward go to its address.
    --kubelet-preferred-address-types=InternalIP --kubelet-certificate-authority="$pki/ca.crt"
    --kubelet-client-certificate="$pki/apiserver-kubelet.crt" --kubelet-client-key="$pki/apiserver-kubelet.key"
    # Aggregated APIs, such as external.metrics.k8s.io.
    --requestheader-client-ca-file="$pki/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group
    --requestheader-extra-headers-prefix=X-Remote-Extra- --enable-aggregator-routing=true
    --proxy-client-cert-file="$pki/front-proxy.crt" --proxy-client-key-file="$pki/front-proxy.key"
  )
  begin apiserver "$STATE/bin/kube-apiserver" "${flags[@]}"
}

start_controller-manager() {
  local flags=(
    --kubeconfig="$STATE/pki/controller-manager.conf" --use-service-account-credentials
    --service-account-private-key-file="$STATE/pki/sa.key" --root-ca-file="$STATE/pki/ca.crt"
    --cluster-signing-cert-file="$STATE/pki/ca.crt" --cluster-signing-key-file="$STATE/pki/ca.key"
    --leader-elect=false --bind-address=127.0.0.1
    --horizontal-pod-autoscaler-sync-period=5s # the default of 15 s makes tests wait
  )
  begin controller-manager "$STATE/bin/kube-controller-manager" "${flags[@]}"
}

start_scheduler() {
  begin scheduler "$STATE/bin/kube-scheduler" --kubeconfig="$STATE/pki/scheduler.conf" \
    --leader-elect=false --bind-address=127.0.0.1
}

start_kubelet() {
  begin kubelet "$STATE/bin/kubelet" --kubeconfig="$STATE/pki/kubelet.conf" --config="$STATE/config/kubelet.yaml" \
    --root-dir="$STATE/kubelet" --hostname-override=$NODE --node-ip=$NODE_IP
}

start_proxy() {
  begin proxy "$STATE/bin/kube-proxy" --config="$STATE/config/proxy.yaml"
}

start_recycle() {
  begin recycle "$NODE_DIR/recycle"
}

PROGRAMS=(containerd etcd apiserver controller-manager scheduler kubelet proxy)

find_program() { # pgrep|pkill NAME [OPTION...]
  local tool=$1 name=$2
  shift 2
  case $name in
    apiserver | controller-manager | scheduler | proxy) name=kube-$name ;;
    etcd | containerd | kubelet) ;;
    *) die "no such program: $name; there are ${PROGRAMS[*]}" ;;
  esac
  # Only in the node's process namespace; the kernel keeps 15 characters of a name.
  "$tool" "$@" --ns "$(cat "$STATE/init.pid")" --nslist pid --exact "${name:0:15}"
}

is_up() {
  local program
  for program in "${PROGRAMS[@]}"; do
    find_program pgrep "$program" || return 1
  done
  kube get --raw /readyz
}

is_stopped() { # NAME
  ! find_program pgrep "$1"
}

stop_program() { # NAME: at once, as a crash does
  find_program pkill "$1" -KILL || true
  wait_for 10 "the end of $1" is_stopped "$1"
}

start_program() { # NAME
  is_stopped "$1" >/dev/null || die "$1 runs already"
  "start_$1"
}
