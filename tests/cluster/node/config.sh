# shellcheck shell=bash
# Configuration files of the node's programs. Sourced, never run.

make_containerd_config() {
  cat >containerd.toml <<K
version = 2
root = "$STATE/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  restrict_oom_score_adj = true # without CAP_SYS_RESOURCE a container may not be made less likely to be killed
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$STATE/config/cni"
K
}

make_cni_config() {
  mkdir -p cni
  cat >cni/10-bridge.conflist <<K
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
K
}

# Everything that is not about the cgroups of this machine is as in production, access to kubelet as well.
make_kubelet_config() {
  echo "nameserver $DNS_IP" >resolv.conf
  cat >kubelet.yaml <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $STATE/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $STATE/pki/kubelet.crt
tlsPrivateKeyFile: $STATE/pki/kubelet.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDNS: ["$DNS_IP"]
clusterDomain: cluster.local
resolvConf: $STATE/config/resolv.conf
# cgroups: version 1 will do, and no hierarchy by quality of service, for which the machine's would have to be changed.
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
# How soon a pod sees a changed ConfigMap. The default is a minute, for which several tests would wait.
syncFrequency: 10s
# A developer's disk is often nearly full, and images cannot be pulled again: neither evict for it nor clean up.
evictionHard: {memory.available: 200Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
K
}

make_proxy_config() {
  cat >proxy.yaml <<K
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $STATE/pki/proxy.conf}
mode: iptables
clusterCIDR: $POD_CIDR
hostnameOverride: $NODE
conntrack: {maxPerCore: 0} # leave the machine's own setting
K
}

make_admission_config() {
  cat >admission.yaml <<K
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: restricted, enforce-version: latest, warn: restricted, audit: restricted}
    exemptions: {namespaces: [kube-system]}
K
}

make_audit_policy() {
  cat >audit.yaml <<K
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
K
}

make_config() {
  make_containerd_config
  make_cni_config
  make_kubelet_config
  make_proxy_config
  make_admission_config
  make_audit_policy
}
