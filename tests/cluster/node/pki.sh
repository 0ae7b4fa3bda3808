# shellcheck shell=bash
# Certificates and kubeconfigs of the node's programs. Sourced, never run.

make_ca() { # NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=$1" \
    -keyout "$1.key" -out "$1.crt"
}

make_certificate() { # NAME SUBJECT CA [ALTERNATIVE NAMES]
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$2" -keyout "$1.key" |
    openssl x509 -req -days 30 -CA "$3.crt" -CAkey "$3.key" -CAcreateserial -out "$1.crt" \
      -extfile <(printf '%s\n' extendedKeyUsage=clientAuth,serverAuth ${4:+"subjectAltName=$4"})
}

make_kubeconfig() { # CERTIFICATE FILE
  cat >"$2" <<K
apiVersion: v1
kind: Config
clusters: [{name: diffcache-test, cluster: {server: "https://127.0.0.1:6443", certificate-authority: $STATE/pki/ca.crt}}]
users: [{name: $1, user: {client-certificate: $STATE/pki/$1.crt, client-key: $STATE/pki/$1.key}}]
contexts: [{name: diffcache-test, context: {cluster: diffcache-test, user: $1}}]
current-context: diffcache-test
K
}

make_pki() {
  local names="IP:127.0.0.1,IP:$API_SERVICE_IP,IP:$NODE_IP,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default"
  make_ca ca
  make_ca front-proxy-ca
  make_certificate apiserver "/CN=kube-apiserver" ca "$names,DNS:kubernetes.default.svc"
  make_certificate apiserver-kubelet "/CN=kube-apiserver-kubelet-client" ca
  make_certificate front-proxy "/CN=front-proxy" front-proxy-ca
  make_certificate admin "/O=system:masters/CN=admin" ca
  make_certificate controller-manager "/CN=system:kube-controller-manager" ca
  make_certificate scheduler "/CN=system:kube-scheduler" ca
  make_certificate kubelet "/O=system:nodes/CN=system:node:$NODE" ca "IP:$NODE_IP,DNS:$NODE"
  make_certificate proxy "/CN=system:kube-proxy" ca
  openssl ecparam -name prime256v1 -genkey -noout -out sa.key # signs the tokens of ServiceAccounts
  openssl ec -in sa.key -pubout -out sa.pub
  local user
  for user in controller-manager scheduler kubelet proxy; do
    make_kubeconfig "$user" "$user.conf"
  done
  make_kubeconfig admin "$KUBECONFIG"
}
