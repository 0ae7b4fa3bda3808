# shellcheck shell=bash
# The node's volumes: folders of one group, as a disk that was formatted for others. Sourced, never run.
#
# `local`, not `hostPath`: kubelet applies fsGroup to the one only, and a pod that forgets it must fail here, too.

VOLUMES=40

reset_volume() { # NAME: as new
  local folder=$STATE/volumes/$1
  mkdir -p "$folder"
  find "$folder" -mindepth 1 -delete
  chown 0:4321 "$folder" # a group that no image has
  chmod 00770 "$folder"  # five digits: clears setgid, too
}

volume_manifest() { # NAME
  cat <<K
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: $1}
spec:
  storageClassName: standard
  capacity: {storage: 20Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain # \`recycle\` wipes it
  local: {path: $STATE/volumes/$1}
  nodeAffinity:
    required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [$NODE]}]}]}
K
}

make_volumes() { # prints their manifests
  local name
  for name in $(seq -f 'volume-%02g' $VOLUMES); do
    reset_volume "$name"
    volume_manifest "$name"
  done
}
