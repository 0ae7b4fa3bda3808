{{/*
All that the operator may do, for the ClusterRole and the Roles alike; tests hold it to what the operator asks for at its
start. Secrets are not among it, and nothing but its own Leases is deleted: children go by their owner.
*/}}
{{- define "diffcache.rules" -}}
- apiGroups: [diffcache.io]
  resources: [diffusioncaches]
  verbs: [get, list, watch]
- apiGroups: [diffcache.io]
  resources: [diffusioncaches/status]
  verbs: [update]
- apiGroups: [diffcache.io]
  resources: [diffusioncaches/scale] # by the scaling loop, where a resource asks for it
  verbs: [patch]
- apiGroups: [diffcache.io]
  resources: [diffusioncaches/finalizers] # for blockOwnerDeletion, where the API server checks it, as OpenShift's does
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch] # the last two are server-side apply
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch] # patch: their owner, by the reclaimPolicy
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
- apiGroups: [coordination.k8s.io]
  resources: [leases] # that one operator writes in a namespace
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [diffcache-operator, diffcache-operator-all-namespaces]
  verbs: [get, update, delete]
{{- end }}
